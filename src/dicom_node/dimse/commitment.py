"""The data sets of Storage Commitment: request and report, bytes to values and back. Pure.

PS3.4 Annex J; PS3.3 §C.14.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dicom_node.dimse import status
from dicom_node.dimse.contract import (
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Reference,
    StoreAnswer,
)
from dicom_node.dimse.elements import (
    Malformed,
    elements,
    encode_number,
    encode_sequence,
    encode_uid,
    items,
)
from dicom_node.domain.identifiers import is_uid

WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"  # PS3.4 §J.3.5
REQUEST_COMMITMENT = 1  # Action Type ID (PS3.4 Table J.3-1)
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID (PS3.4 Table J.3-2)

_TRANSACTION, _REFERENCED, _FAILED = 0x00081195, 0x00081199, 0x00081198
_CLASS, _INSTANCE, _REASON = 0x00081150, 0x00081155, 0x00081197


class _Invalid(Exception):
    """What is wrong with a data set, in words fit for an Error Comment."""

    def __init__(self, words: str, code: int = status.INVALID_ARGUMENT) -> None:
        self.answer = StoreAnswer(status=code, comment=words)
        super().__init__(words)


@dataclass(slots=True)
class _Content:
    """A data set of this service, checked item by item; None is an absent sequence."""

    transaction_uid: str = ""
    referenced: dict[str, Reference] | None = None
    failed: dict[str, FailedReference] | None = None


def decode_request(
    data: memoryview, *, explicit: bool, references_max: int
) -> CommitmentRequest | StoreAnswer:
    """Read an Action Information; a StoreAnswer is what is wrong with it."""
    try:
        content = _content(data, explicit, references_max)
        if not content.referenced:
            raise _Invalid("Referenced SOP Sequence is missing or empty")
    except _Invalid as invalid:
        return invalid.answer
    return CommitmentRequest(
        transaction_uid=content.transaction_uid, references=tuple(content.referenced.values())
    )


def decode_report(
    data: memoryview, *, explicit: bool, references_max: int, event_type: int, sender_ae: str
) -> CommitmentReport | StoreAnswer:
    """Read an Event Information; a StoreAnswer is what is wrong with it.

    The sequences must be those of the event type (PS3.4 Table J.3-2), and not contradict.
    """
    try:
        content = _content(data, explicit, references_max)
        _fits(content, event_type)
    except _Invalid as invalid:
        return invalid.answer
    return CommitmentReport(
        transaction_uid=content.transaction_uid,
        committed=tuple((content.referenced or {}).values()),
        failed=tuple((content.failed or {}).values()),
        sender_ae=sender_ae,
    )


def _fits(content: _Content, event_type: int) -> None:
    committed, failed = content.referenced or {}, content.failed or {}
    if event_type == ALL_COMMITTED and (failed or not committed):
        raise _Invalid("event type 1 with failures, or without references")
    if event_type == SOME_FAILED and not failed:
        raise _Invalid("event type 2 without Failed SOP Sequence")
    if committed.keys() & failed.keys():
        raise _Invalid("an instance is both committed and failed")


def _content(data: memoryview, explicit: bool, references_max: int) -> _Content:
    content = _Content()
    left = references_max
    try:
        for tag, value in elements(data, explicit=explicit):
            if tag == _TRANSACTION:
                content.transaction_uid = _text(value)
            elif tag == _REFERENCED:
                content.referenced = {}
                for item in _limited(value, explicit, left):
                    one = Reference(*_pair(item))
                    content.referenced[one.sop_instance_uid] = one
                left -= len(content.referenced)
            elif tag == _FAILED:
                content.failed = {}
                for item in _limited(value, explicit, left):
                    failure = FailedReference(*_pair(item), _reason(item))
                    content.failed[failure.sop_instance_uid] = failure
                left -= len(content.failed)
    except Malformed:
        raise _Invalid("the data set cannot be read") from None
    if not is_uid(content.transaction_uid):
        raise _Invalid("Transaction UID is missing or no UID")
    return content


def _limited(value: memoryview, explicit: bool, left: int) -> Iterator[dict[int, memoryview]]:
    """The items of a sequence, as long as they are not too many."""
    for number, item in enumerate(items(value, explicit=explicit)):
        if number >= left:
            raise _Invalid("too many references", status.RESOURCE_LIMITATION)
        yield dict(elements(item, explicit=explicit))


def _pair(item: dict[int, memoryview]) -> tuple[str, str]:
    sop_class, instance = (_text(item.get(tag, memoryview(b""))) for tag in (_CLASS, _INSTANCE))
    if not is_uid(sop_class) or not is_uid(instance):
        raise _Invalid("a reference lacks a UID, or has one that is none")
    return sop_class, instance


def _reason(item: dict[int, memoryview]) -> int:
    value = item.get(_REASON, b"")
    if len(value) != 2:
        raise _Invalid("a failed reference has no Failure Reason")
    return int.from_bytes(value, "little")


def _text(value: memoryview) -> str:
    return bytes(value).rstrip(b" \0").decode("ascii", "replace")


def encode_request(request: CommitmentRequest, *, explicit: bool) -> bytes:
    """Write an Action Information."""
    return _encoded(request.transaction_uid, (), request.references, explicit)


def encode_report(report: CommitmentReport, *, explicit: bool) -> bytes:
    """Write an Event Information; a sequence without items is left out."""
    return _encoded(report.transaction_uid, report.failed, report.committed, explicit)


def event_type_of(report: CommitmentReport) -> int:
    """The Event Type ID that a report goes out with."""
    return SOME_FAILED if report.failed else ALL_COMMITTED


def _encoded(
    transaction_uid: str,
    failed: Sequence[FailedReference],
    committed: Sequence[Reference],
    explicit: bool,
) -> bytes:
    parts = [encode_uid(_TRANSACTION, transaction_uid, explicit=explicit)]
    if failed:
        contents = [
            _named(one.sop_class_uid, one.sop_instance_uid, explicit)
            + encode_number(_REASON, one.reason, explicit=explicit)
            for one in failed
        ]
        parts.append(encode_sequence(_FAILED, contents, explicit=explicit))
    if committed:
        contents = [_named(*one, explicit) for one in committed]
        parts.append(encode_sequence(_REFERENCED, contents, explicit=explicit))
    return b"".join(parts)


def _named(sop_class_uid: str, sop_instance_uid: str, explicit: bool) -> bytes:
    return encode_uid(_CLASS, sop_class_uid, explicit=explicit) + encode_uid(
        _INSTANCE, sop_instance_uid, explicit=explicit
    )
