"""The data sets of Storage Commitment, compared with what pydicom makes of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.dsutils import decode, encode

from dicom_node.dimse import commitment, elements, status
from dicom_node.dimse.contract import (
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Limits,
    Reference,
    StoreAnswer,
)
from dicom_node.domain.identifiers import MAX_UID

CT = "1.2.840.10008.5.1.4.1.1.2"
MANY = Limits().references_max

uids = st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]{0,5}){1,8}", fullmatch=True).filter(
    lambda uid: len(uid) <= MAX_UID
)
syntaxes = st.booleans()


def references(count: int, first: int = 1) -> tuple[Reference, ...]:
    return tuple(Reference(CT, f"1.2.3.{number}") for number in range(first, first + count))


def a_report(**more: object) -> CommitmentReport:
    settled = {"transaction_uid": "1.2.9", "committed": references(2), "sender_ae": "PACS"} | more
    return CommitmentReport(**settled)


def raw_item(sop_class: str = CT, instance: str = "1.2.3.1", reason: int | None = None) -> Dataset:
    item = Dataset()
    for tag, uid in ((0x00081150, sop_class), (0x00081155, instance)):
        item.add(DataElement(tag, "UI", uid, validation_mode=IGNORE))
    if reason is not None:
        item.FailureReason = reason
    return item


def raw(transaction: str = "1.2.9", **sequences: list[Dataset]) -> Dataset:
    data = Dataset()
    data.TransactionUID = transaction
    for keyword, value in sequences.items():
        setattr(data, keyword, value)
    return data


def told(data: Dataset | bytes, event_type: int = 0, *, explicit: bool = True, most: int = MANY):
    """What is read of a data set: of a request, or of a report if it has an event type."""
    content = data if isinstance(data, bytes) else encode(data, not explicit, True)
    view = memoryview(content)
    if not event_type:
        return commitment.decode_request(view, explicit=explicit, references_max=most)
    return commitment.decode_report(
        view, explicit=explicit, references_max=most, event_type=event_type, sender_ae="PACS"
    )


@settings(max_examples=60, deadline=None)
@given(
    transaction=uids,
    pairs=st.lists(st.tuples(uids, uids), min_size=1, max_size=5, unique_by=lambda p: p[1]),
    explicit=syntaxes,
)
def test_a_request_is_read_by_pydicom_and_read_back(
    transaction: str, pairs: list[tuple[str, str]], explicit: bool
) -> None:
    request = CommitmentRequest(
        transaction_uid=transaction, references=tuple(Reference(*pair) for pair in pairs)
    )
    encoded = commitment.encode_request(request, explicit=explicit)
    theirs = decode(DicomBytesIO(encoded), not explicit, True)
    assert theirs.TransactionUID == transaction
    assert [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for item in theirs.ReferencedSOPSequence
    ] == pairs
    assert told(encoded, explicit=explicit) == request
    assert told(theirs, explicit=explicit) == request


@settings(max_examples=60, deadline=None)
@given(
    committed=st.lists(uids, max_size=4, unique=True),
    failed=st.dictionaries(uids, st.integers(0, 0xFFFF), max_size=4),
    explicit=syntaxes,
)
def test_a_report_is_read_by_pydicom_and_read_back(
    committed: list[str], failed: dict[str, int], explicit: bool
) -> None:
    report = a_report(
        committed=tuple(Reference(CT, uid) for uid in committed if uid not in failed),
        failed=tuple(FailedReference(CT, uid, reason) for uid, reason in failed.items()),
    )
    if not report.committed and not report.failed:
        return
    encoded = commitment.encode_report(report, explicit=explicit)
    theirs = decode(DicomBytesIO(encoded), not explicit, True)
    assert {
        item.ReferencedSOPInstanceUID: item.FailureReason
        for item in theirs.get("FailedSOPSequence", [])
    } == failed
    assert ("ReferencedSOPSequence" in theirs) == bool(report.committed)
    event_type = commitment.event_type_of(report)
    assert event_type == (2 if failed else 1)
    assert told(encoded, event_type, explicit=explicit) == report
    assert told(theirs, event_type, explicit=explicit) == report


@pytest.mark.parametrize("explicit", [True, False])
def test_undefined_lengths_and_foreign_elements_are_stepped_over(explicit: bool) -> None:
    data = raw(ReferencedSOPSequence=[raw_item(), raw_item(instance="1.2.3.2")])
    data.RetrieveAETitle = "PACS"
    data.StorageMediaFileSetUID = "1.2.4"
    data.ReferencedSOPSequence[0].RetrieveAETitle = "PACS"
    nested = Dataset()
    nested.PurposeOfReferenceCodeSequence = [Dataset()]
    data.ReferencedPerformedProcedureStepSequence = [nested]
    for sequence in (
        data["ReferencedSOPSequence"],
        data["ReferencedPerformedProcedureStepSequence"],
        nested["PurposeOfReferenceCodeSequence"],
    ):
        sequence.is_undefined_length = True
        for item in sequence.value:
            item.is_undefined_length_sequence_item = True
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, not explicit
    write_dataset(written, data)
    encoded = written.getvalue()
    assert encoded.count(struct.pack("<HH", 0xFFFE, 0xE0DD)) == 3
    request = told(encoded, explicit=explicit)
    assert isinstance(request, CommitmentRequest)
    assert request.references == references(2)


def test_an_instance_that_is_named_twice_is_asked_for_once() -> None:
    request = told(raw(ReferencedSOPSequence=[raw_item(), raw_item()]))
    assert isinstance(request, CommitmentRequest)
    assert request.references == references(1)


ITEM, FAILED = raw_item(), raw_item(reason=0x0112)


@pytest.mark.parametrize(
    ("data", "event_type"),
    [
        (b"", 0),
        (raw(), 0),
        (raw(ReferencedSOPSequence=[]), 0),
        (raw("", ReferencedSOPSequence=[ITEM]), 0),
        (raw(ReferencedSOPSequence=[Dataset()]), 0),
        (raw(ReferencedSOPSequence=[raw_item(instance="../../etc")]), 0),
        (raw(ReferencedSOPSequence=[raw_item(sop_class="1.2.x")]), 0),
        (raw(), 1),
        (raw(ReferencedSOPSequence=[ITEM], FailedSOPSequence=[raw_item("1.2", "1.3", 1)]), 1),
        (raw(ReferencedSOPSequence=[ITEM]), 2),
        (raw(FailedSOPSequence=[ITEM]), 2),  # without its reason
        (raw(ReferencedSOPSequence=[ITEM], FailedSOPSequence=[FAILED]), 2),
    ],
    ids=[
        "empty",
        "no references",
        "empty references",
        "no transaction",
        "empty item",
        "path",
        "no class",
        "all of nothing",
        "all and a failure",
        "some without failure",
        "no reason",
        "both",
    ],
)
def test_what_is_malformed_is_an_invalid_argument(data: Dataset | bytes, event_type: int) -> None:
    answer = told(data, event_type)
    assert isinstance(answer, StoreAnswer)
    assert answer.status == 0x0115
    assert 0 < len(answer.comment) <= status.COMMENT_MAX


def test_a_failure_alone_is_a_report() -> None:
    report = told(raw(FailedSOPSequence=[FAILED]), 2)
    assert isinstance(report, CommitmentReport)
    assert (report.committed, report.failed) == ((), ((CT, "1.2.3.1", 0x0112),))


@pytest.mark.parametrize("explicit", [True, False])
def test_a_data_set_that_lost_its_end_is_refused_at_every_byte(explicit: bool) -> None:
    whole = commitment.encode_report(
        a_report(failed=(FailedReference(CT, "1.2.4", 1),)), explicit=explicit
    )
    assert isinstance(told(whole, 2, explicit=explicit), CommitmentReport)
    for end in range(len(whole)):
        answer = told(whole[:end], 2, explicit=explicit)
        if isinstance(answer, CommitmentReport):  # cut between two elements: nothing shows it
            assert answer.committed == ()
            assert answer.failed


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200), explicit=syntaxes, event_type=st.sampled_from([0, 1, 2]))
def test_no_bytes_raise_anything(content: bytes, explicit: bool, event_type: int) -> None:
    head = raw(ReferencedSOPSequence=[ITEM])
    for data in (content, encode(head, not explicit, True) + content):
        answer = told(data, event_type, explicit=explicit)
        assert isinstance(answer, StoreAnswer | CommitmentReport | CommitmentRequest)


@pytest.mark.parametrize("explicit", [True, False])
def test_nesting_without_end_is_refused_and_no_stack_overflows(explicit: bool) -> None:
    opened = struct.pack("<HH2sxxI", 0x0008, 0x1199, b"SQ", 0xFFFFFFFF)
    if not explicit:
        opened = struct.pack("<HHI", 0x0008, 0x1199, 0xFFFFFFFF)
    opened += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    answer = told(opened * 100_000, explicit=explicit)
    assert answer == StoreAnswer(status=0x0115, comment="the data set cannot be read")


def test_more_references_than_allowed_are_a_resource_limitation() -> None:
    request = CommitmentRequest(transaction_uid="1.2.9", references=references(11))
    encoded = commitment.encode_request(request, explicit=True)
    assert told(encoded, most=11) == request
    answer = told(encoded, most=10)
    assert isinstance(answer, StoreAnswer)
    assert answer.status == 0x0213
    split = a_report(failed=(FailedReference(CT, "1.2.4", 1),))  # 2 and 1 make 3
    encoded = commitment.encode_report(split, explicit=True)
    assert isinstance(told(encoded, 2, most=3), CommitmentReport)
    assert told(encoded, 2, most=2) == answer


def test_the_limit_of_bytes_holds_the_limit_of_references_with_the_longest_uids() -> None:
    longest = "1." + "2" * (MAX_UID - 2)
    item = FailedReference(longest, longest, 0x0110)
    one = commitment.encode_report(a_report(failed=(item,)), explicit=True)
    two = commitment.encode_report(a_report(failed=(item, item)), explicit=True)
    assert MANY * (len(two) - len(one)) + len(one) < Limits().commitment_bytes


@pytest.mark.parametrize(
    "wrong",
    [
        struct.pack("<HH2sH", 8, 0x1195, b"\x00\x00", 0),  # no VR
        struct.pack("<HH2sxxI", 8, 0x1195, b"OB", 0xFFFFFFFF),  # only sequences have no length
        struct.pack("<HHI", 0xFFFE, 0xE000, 0),  # an item without a sequence
        struct.pack("<HH2sxxI", 8, 0x1199, b"SQ", 8) + struct.pack("<HHI", 8, 0x1195, 0),
        struct.pack("<HH2sxxI", 8, 0x1199, b"SQ", 8) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    ],
)
def test_elements_that_cannot_be_are_malformed(wrong: bytes) -> None:
    def walk() -> list[memoryview]:
        pairs = elements.elements(memoryview(wrong), explicit=True)
        return [item for _, value in pairs for item in elements.items(value, explicit=True)]

    with pytest.raises(elements.Malformed):
        walk()


def test_an_unknown_element_without_length_holds_implicit_elements() -> None:
    inside = struct.pack("<HHI", 8, 0x1150, 4) + b"1.2\0"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    unknown = struct.pack("<HH2sxxI", 9, 1, b"UN", 0xFFFFFFFF) + item + end
    rest = encode(raw(ReferencedSOPSequence=[ITEM]), False, True)
    request = told(unknown + rest)
    assert isinstance(request, CommitmentRequest)
