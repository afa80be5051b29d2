"""Query and retrieve as SCU: C-FIND, C-MOVE, C-GET (PS3.4 Annex C)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pynetdicom import StoragePresentationContexts, build_context, build_role, evt
from pynetdicom.dsutils import encode

from dicom_node.dimse.contexts import LOSSLESS, LOSSY, UNCOMPRESSED
from dicom_node.dimse.contract import Limits, Sink, StoreAnswer, StoreRequest
from dicom_node.dimse.outcome import Outcome, Timeouts
from dicom_node.dimse.pdu import CONTEXTS_MAX
from dicom_node.dimse.requestor import Requestor, associated
from dicom_node.dimse.status import INVALID_INSTANCE
from dicom_node.dimse.storing import Storing
from dicom_node.domain.errors import PeerError
from dicom_node.domain.identifiers import is_uid
from dicom_node.domain.records import Attributes, Peer

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
Model = Literal["PATIENT", "STUDY"]
Keys = Mapping[str, str | Sequence[str]]
"""DICOM keyword -> value; "" asks for the attribute (universal matching), several are a list."""

_LEVELS: tuple[tuple[Level, str], ...] = (  # with the unique key of each (PS3.4 §C.6.1.1)
    ("PATIENT", "PatientID"),
    ("STUDY", "StudyInstanceUID"),
    ("SERIES", "SeriesInstanceUID"),
    ("IMAGE", "SOPInstanceUID"),
)
MODELS: dict[tuple[Model, str], str] = {  # PS3.4 §C.6.1.3, §C.6.2.3
    ("PATIENT", "find"): "1.2.840.10008.5.1.4.1.2.1.1",
    ("PATIENT", "move"): "1.2.840.10008.5.1.4.1.2.1.2",
    ("PATIENT", "get"): "1.2.840.10008.5.1.4.1.2.1.3",
    ("STUDY", "find"): "1.2.840.10008.5.1.4.1.2.2.1",
    ("STUDY", "move"): "1.2.840.10008.5.1.4.1.2.2.2",
    ("STUDY", "get"): "1.2.840.10008.5.1.4.1.2.2.3",
}
GET_CLASSES = tuple(
    str(context.abstract_syntax) for context in StoragePresentationContexts[: CONTEXTS_MAX - 1]
)
"""Proposed in a C-GET unless the caller knows better: an association holds 128 contexts."""
GET_SYNTAXES = (*UNCOMPRESSED, *LOSSLESS, *LOSSY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The matches of a C-FIND. cut: there were more than were wanted."""

    matches: tuple[Attributes, ...]
    outcome: Outcome
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A response to C-MOVE or C-GET (PS3.4 §C.4.2.1.6 ff.). outcome: None while pending.

    Counts are None where the peer does not tell them. failed_uids: of the final response.
    """

    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    failed_uids: tuple[str, ...] = ()
    outcome: Outcome | None = None


def find(
    *,
    peer: Peer,
    calling_ae: str,
    level: Level,
    keys: Keys,
    model: Model = "STUDY",
    matches_max: int = 10_000,
    timeouts: Timeouts | None = None,
) -> Found:
    """Query the peer; beyond matches_max the query is cancelled.

    Raises PeerError if the unique key of a higher level is missing or not a single value.
    """
    for keyword in _unique_keys(level, model)[:-1]:
        _single(keyword, keys)
    identifier = _identifier(level, keys)
    uid = MODELS[model, "find"]
    matches: list[Attributes] = []
    cut = False
    with associated(
        peer=peer,
        calling_ae=calling_ae,
        contexts=[build_context(uid, list(UNCOMPRESSED))],
        timeouts=timeouts or Timeouts(),
    ) as requestor:
        if requestor.failure is not None:
            return Found(matches=(), outcome=requestor.failure)
        requestor.asking()
        outcome: Outcome | None = None
        for response, match in requestor.association.send_c_find(identifier, uid):
            if not _pending(response):
                outcome = requestor.answered(response)
                continue
            if match is not None and len(matches) < matches_max:
                matches.append(_attributes(match))
            elif not cut:
                cut = True
                requestor.association.send_c_cancel(1, query_model=uid)
            requestor.asking()
        return Found(
            matches=tuple(matches), outcome=outcome or requestor.answered(Dataset()), cut=cut
        )


def move(
    *,
    peer: Peer,
    calling_ae: str,
    level: Level,
    keys: Keys,
    destination_ae: str,
    model: Model = "STUDY",
    timeouts: Timeouts | None = None,
) -> Generator[Progress, None, None]:
    """Have the peer send to destination_ae; yields its responses, the last with an outcome.

    The peer may be silent until the end (pending responses are optional): answer_s must bear that.
    Raises PeerError at once if the keys are not those of the level, each with a plain value.
    """
    identifier = _identifier(level, _retrieval_keys(level, model, keys))
    uid = MODELS[model, "move"]

    def moving() -> Generator[Progress, None, None]:
        with associated(
            peer=peer,
            calling_ae=calling_ae,
            contexts=[build_context(uid, list(UNCOMPRESSED))],
            timeouts=timeouts or Timeouts(),
        ) as requestor:
            if requestor.failure is not None:
                yield Progress(outcome=requestor.failure)
                return
            requestor.asking()
            responses = requestor.association.send_c_move(identifier, destination_ae, uid)
            yield from _progress(requestor, responses)

    return moving()


def get(
    *,
    peer: Peer,
    calling_ae: str,
    level: Level,
    keys: Keys,
    receive: Callable[[StoreRequest], Sink | StoreAnswer],
    model: Model = "STUDY",
    sop_classes: Sequence[str] = GET_CLASSES,
    timeouts: Timeouts | None = None,
) -> Generator[Progress, None, None]:
    """Have the peer send over the same association; each object goes into the sink of `receive`.

    `receive` is called in another thread; the requests' association number is 0.
    Raises PeerError at once as `move` does, or for more than 127 SOP Classes.
    """
    identifier = _identifier(level, _retrieval_keys(level, model, keys))
    if len(sop_classes) >= CONTEXTS_MAX:
        raise PeerError("an association holds at most 127 storage classes", permanent=True)
    uid = MODELS[model, "get"]
    contexts = [build_context(uid, list(UNCOMPRESSED))]
    contexts += [build_context(sop_class, list(GET_SYNTAXES)) for sop_class in sop_classes]

    def getting() -> Generator[Progress, None, None]:
        with associated(
            peer=peer,
            calling_ae=calling_ae,
            contexts=contexts,
            timeouts=timeouts or Timeouts(),
            handlers=[(evt.EVT_C_STORE, lambda event: _received(event, peer, receive))],
            negotiation=[build_role(sop_class, scp_role=True) for sop_class in sop_classes],
        ) as requestor:
            if requestor.failure is not None:
                yield Progress(outcome=requestor.failure)
                return
            requestor.asking()
            responses = requestor.association.send_c_get(identifier, uid)
            yield from _progress(requestor, responses)

    return getting()


def _received(
    event: Any, peer: Peer, receive: Callable[[StoreRequest], Sink | StoreAnswer]
) -> Dataset:
    """A C-STORE sub-operation: the same checks and the same sink as for the SCP."""
    request = StoreRequest(
        association=0,
        sop_class_uid=str(event.request.AffectedSOPClassUID),
        sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        message_id=int(event.request.MessageID),
        calling_ae=peer.ae_title,
    )
    if is_uid(request.sop_instance_uid):
        storing = Storing(receive, request, Limits().object_bytes)
        storing.write((event.request.DataSet.getbuffer(),))
        answer = storing.finish()
    else:
        answer = StoreAnswer(status=INVALID_INSTANCE, comment="not a UID")
    response = Dataset()
    response.Status = answer.status
    if answer.comment:
        response.ErrorComment = answer.comment
    return response


def _progress(requestor: Requestor, responses: Any) -> Generator[Progress, None, None]:
    for response, identifier in responses:
        outcome = None if _pending(response) else requestor.answered(response)
        failed = identifier.get("FailedSOPInstanceUIDList") if identifier is not None else None
        yield Progress(
            remaining=response.get("NumberOfRemainingSuboperations"),
            completed=response.get("NumberOfCompletedSuboperations"),
            failed=response.get("NumberOfFailedSuboperations"),
            warning=response.get("NumberOfWarningSuboperations"),
            failed_uids=_texts(failed),
            outcome=outcome,
        )
        if outcome is not None:
            return
        requestor.asking()
    yield Progress(outcome=requestor.answered(Dataset()))


def _pending(response: Dataset) -> bool:
    return response.get("Status") in (0xFF00, 0xFF01)


def _unique_keys(level: Level, model: Model) -> list[str]:
    names = [name for name, _ in _LEVELS]
    first = names.index(model)
    last = names.index(level)
    if last < first:
        raise PeerError(f"the {model} root model has no {level} level", permanent=True)
    return [keyword for _, keyword in _LEVELS[first : last + 1]]


def _single(keyword: str, keys: Keys) -> str:
    values = _texts(keys.get(keyword, ""))
    if len(values) != 1 or not values[0] or set(values[0]) & set("*?\\"):
        raise PeerError(f"{keyword} must have one value without wildcards", permanent=True)
    return values[0]


def _retrieval_keys(level: Level, model: Model, keys: Keys) -> dict[str, str | Sequence[str]]:
    """PS3.4 §C.4.2.1.4.1, §C.4.3.1.3.1: the unique keys, all of them, and nothing else.

    Only the level's own key may be a list, and at PATIENT level not even that.
    """
    unique = _unique_keys(level, model)
    if set(keys) != set(unique):
        raise PeerError(
            f"a retrieval at {level} level takes exactly {', '.join(unique)}", permanent=True
        )
    plain: dict[str, str | Sequence[str]] = {name: _single(name, keys) for name in unique[:-1]}
    own = _texts(keys[unique[-1]])
    if level == "PATIENT" or len(own) < 2:
        plain[unique[-1]] = _single(unique[-1], keys)
    else:
        plain[unique[-1]] = [_single(unique[-1], {unique[-1]: value}) for value in own]
    return plain


def _identifier(level: Level, keys: Keys) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise PeerError(f"{keyword} is not an attribute of DICOM", permanent=True)
        held = value if isinstance(value, str) else list(value)
        # Not validated: wildcards and ranges are no values of their VR, and are meant.
        identifier.add(DataElement(tag, dictionary_VR(tag), held, validation_mode=IGNORE))
    if not all(text.isascii() for value in keys.values() for text in _texts(value)):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier


def identifier_bytes(level: Level, keys: Keys) -> bytes:
    """What is sent to ask for these keys, as a data set in Implicit VR Little Endian.

    Raises PeerError where they cannot be asked for.
    """
    return bytes(encode(_identifier(level, keys), True, True) or b"")


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    return tuple(str(one) for one in value)


def _attributes(match: Dataset) -> Attributes:
    """A match as plain values; sequences and values that cannot be read are left out."""
    attributes: dict[str, object] = {}
    for tag in match.keys():  # noqa: SIM118 - iterating over the data set itself decodes every value
        try:
            element = match[tag]
        except (ValueError, TypeError, LookupError, NotImplementedError):
            continue
        if not element.keyword or element.VR == "SQ":
            continue
        value = element.value
        if isinstance(value, MultiValue):
            attributes[element.keyword] = tuple(_plain(one) for one in value)
        else:
            attributes[element.keyword] = _plain(value)
    return attributes


def _plain(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)
