"""Storage as SCU: one association for a batch, each object in a context that holds it as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

from dicom_node.dimse.contexts import UNCOMPRESSED
from dicom_node.dimse.outcome import Outcome, Phase, Timeouts
from dicom_node.dimse.pdu import CONTEXTS_MAX
from dicom_node.dimse.requestor import Requestor, associated
from dicom_node.domain.records import Peer

_REOPENINGS_MAX = 3  # one object that makes a peer abort must not hold up those behind it
_UNSENDABLE = (OSError, InvalidDicomError, AttributeError, KeyError, TypeError, ValueError)
_Proposal = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreItem:
    """A DICOM file to send, and what its file meta says."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOutcome(Outcome):
    """How the sending of one object ended. associated: False if no association could be had."""

    sop_instance_uid: str
    associated: bool = True


def store(
    *,
    peer: Peer,
    calling_ae: str,
    items: Sequence[StoreItem],
    on_outcome: Callable[[StoreOutcome], None] | None = None,
    timeouts: Timeouts | None = None,
) -> list[StoreOutcome]:
    """Send the items; returns one outcome each, in their order, and tells each as it is known."""
    outcomes: list[StoreOutcome] = []
    for batch in _batches(items):
        for outcome in _send(peer, calling_ae, batch, timeouts or Timeouts()):
            outcomes.append(outcome)
            if on_outcome is not None:
                on_outcome(outcome)
    return outcomes


def proposals(item: StoreItem) -> tuple[_Proposal, ...]:
    """The contexts an item asks for: its own syntax, then what it could be converted to."""
    held = item.transfer_syntax_uid
    others = tuple(uid for uid in UNCOMPRESSED if uid != held)
    return ((item.sop_class_uid, (held,)), (item.sop_class_uid, others))


def _batches(items: Sequence[StoreItem]) -> Iterator[list[StoreItem]]:
    batch: list[StoreItem] = []
    wanted: set[_Proposal] = set()
    for item in items:
        more = set(proposals(item))
        if batch and len(wanted | more) > CONTEXTS_MAX:
            yield batch
            batch, wanted = [], set()
        batch.append(item)
        wanted |= more
    if batch:
        yield batch


def _contexts(batch: Sequence[StoreItem]) -> list[PresentationContext]:
    wanted = dict.fromkeys(proposal for item in batch for proposal in proposals(item))
    return [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in wanted]


def _send(
    peer: Peer, calling_ae: str, batch: list[StoreItem], timeouts: Timeouts
) -> Iterator[StoreOutcome]:
    """A batch over one association, and over further ones if the peer aborts inside it."""
    left, opened = list(batch), 0
    while left:
        opened += 1
        last: Outcome | None = None
        with associated(
            peer=peer, calling_ae=calling_ae, contexts=_contexts(batch), timeouts=timeouts
        ) as requestor:
            last = requestor.failure
            while left and last is None:
                item = left.pop(0)
                outcome = _send_one(requestor, item, message_id=len(left) % 65535 + 1)
                yield _of(item, outcome)
                if outcome.phase in (Phase.ABORT, Phase.TIMEOUT):
                    last = outcome
        if last is None or (last.phase is Phase.ABORT and opened <= _REOPENINGS_MAX):
            continue
        for item in left:
            yield _of(item, last, associated=requestor.associated)
        return


def _of(item: StoreItem, outcome: Outcome, *, associated: bool = True) -> StoreOutcome:
    return StoreOutcome(
        sop_instance_uid=item.sop_instance_uid,
        phase=outcome.phase,
        status=outcome.status,
        comment=outcome.comment,
        detail=outcome.detail,
        rejection=outcome.rejection,
        associated=associated,
    )


def _send_one(requestor: Requestor, item: StoreItem, *, message_id: int) -> Outcome:
    accepted = {
        str(context.transfer_syntax[0])
        for context in requestor.association.accepted_contexts
        if context.abstract_syntax == item.sop_class_uid
    }
    if not accepted:
        return Outcome(phase=Phase.NO_CONTEXT, detail="the peer does not take this SOP Class")
    if item.transfer_syntax_uid not in accepted and not accepted & set(UNCOMPRESSED):
        return Outcome(phase=Phase.NO_CONTEXT, detail="the peer does not take the transfer syntax")
    try:
        held: Path | Dataset = item.path
        if item.transfer_syntax_uid not in accepted:
            held = _uncompressed(item)
        requestor.asking()
        response = requestor.association.send_c_store(held, msg_id=message_id)
    except RuntimeError as error:
        if not requestor.association.is_established:  # the peer went between two objects
            return requestor.answered(Dataset())
        return _unsendable(error)
    except _UNSENDABLE as error:
        return _unsendable(error)
    return requestor.answered(response)


def _unsendable(error: Exception) -> Outcome:
    """The text of the error may quote the object, so only its kind is told."""
    kind = type(error).__name__
    return Outcome(phase=Phase.OBJECT, detail=f"the object cannot be read or converted ({kind})")


def _uncompressed(item: StoreItem) -> Dataset:
    """The object in memory, decompressed if need be; pynetdicom encodes it for the context.

    Decoders run in this process, with no limits: the node itself sends what it made, uncompressed,
    and only the command `send` comes here, with files that its operator chose.
    """
    image = dcmread(item.path)
    if item.transfer_syntax_uid not in UNCOMPRESSED and "PixelData" in image:
        image.decompress(generate_instance_uid=False)
    return image
