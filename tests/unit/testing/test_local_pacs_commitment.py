"""The PACS for tests commits as it is told to, rejects for real, refuses classes and miscounts."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from pynetdicom.sop_class import (
    CTImageStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
    Verification,
)

from dicom_node.dimse.entity import Entity
from dicom_node.testing.commitment import Commitment, send_commitment_request
from dicom_node.testing.pacs import (
    LocalPacs,
    Refused,
    StoreAttempt,
    refuse_classes,
    send_series,
    slowly,
)
from dicom_node.testing.series import a_series

TRANSACTION = "1.2.3.4"


@pytest.fixture
def pacs(tmp_path):
    with LocalPacs(tmp_path / "pacs", commitment=Commitment()) as running:
        yield running


@pytest.fixture
def asker(tmp_path, pacs):
    """Another PACS, known to the first, that hears what it reports."""
    with LocalPacs(tmp_path / "asker", ae_title="ASKER", commitment=Commitment()) as running:
        pacs.destinations["ASKER"] = ("127.0.0.1", running.port)
        yield running


def references():
    return [(str(d.SOPClassUID), str(d.SOPInstanceUID)) for d in a_series(3)]


def ask(pacs, calling_ae="ASKER"):
    return send_commitment_request(
        ("127.0.0.1", pacs.port), pacs.ae_title, references(), TRANSACTION, calling_ae=calling_ae
    )


def test_the_report_goes_to_the_destination_of_the_caller(pacs, asker):
    send_series(("127.0.0.1", pacs.port), pacs.ae_title, a_series(3))
    pacs.forget(references()[0][1])
    assert ask(pacs) == 0
    assert asker.wait_until(lambda: bool(asker.reports_received))
    (report,) = asker.reports_received
    assert report.transaction_uid == TRANSACTION
    assert report.committed == tuple(references()[1:])
    assert report.failed == ((*references()[0], 0x0112),)
    assert (report.event_type, report.ae_title) == (2, "TESTPACS")
    assert pacs.wait_until(lambda: bool(pacs.reports_sent))
    assert pacs.reports_sent[0].status == 0


def test_the_report_goes_where_it_is_told_to(pacs, asker):
    pacs.commitment.report_to = ("ASKER", "127.0.0.1", asker.port)
    assert ask(pacs, calling_ae="SOMEBODY") == 0
    assert asker.wait_until(lambda: bool(asker.reports_received))


def test_a_caller_that_is_nowhere_gets_no_report(pacs):
    assert ask(pacs, calling_ae="SOMEBODY") == 0
    assert pacs.wait_until(lambda: bool(pacs.reports_sent))
    assert pacs.reports_sent[0].status is None


def test_a_refused_request_is_recorded_and_not_reported_on(pacs):
    pacs.commitment.status = 0x0110
    assert ask(pacs) == 0x0110
    assert [one.status for one in pacs.asked] == [0x0110]
    assert pacs.reports_sent == []


def test_a_pacs_that_ends_waits_for_no_report(tmp_path):
    with LocalPacs(tmp_path / "pacs", commitment=Commitment(delay_s=1000.0)) as pacs:
        assert ask(pacs) == 0
    assert pacs.reports_sent == []


def accepted(pacs, *classes):
    """Which of these classes the PACS accepts."""
    ae = Entity(ae_title="ASKER")
    for uid in (*classes, Verification):
        ae.add_requested_context(uid)
    association = ae.associate("127.0.0.1", pacs.port, ae_title=pacs.ae_title)
    assert association.is_established
    taken = {context.abstract_syntax for context in association.accepted_contexts}
    refused = {context.result for context in association.rejected_contexts}
    association.release()
    assert refused <= {3}
    return taken - {Verification}


def test_commitment_is_offered_only_if_it_is_there(pacs, tmp_path):
    assert accepted(pacs, StorageCommitmentPushModel) == {StorageCommitmentPushModel}
    with LocalPacs(tmp_path / "other") as other:
        assert accepted(other, StorageCommitmentPushModel) == set()
        assert ask(other) is None


def test_classes_can_be_refused_at_negotiation(tmp_path):
    pacs = LocalPacs(tmp_path / "pacs")
    pacs.unsupported.add(SegmentationStorage)
    with pacs:
        assert accepted(pacs, SegmentationStorage, CTImageStorage) == {CTImageStorage}


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        (False, (1, 1, 3)),
        (Refused(result=1, reason=7), (1, 1, 7)),
        (Refused(result=2, source=3, reason=1), (2, 3, 1)),
    ],
)
def test_a_rejection_is_one_on_the_wire(pacs, verdict, told):
    pacs.admits = lambda _calling: verdict
    with socket.create_connection(("127.0.0.1", pacs.port), 10) as connection:
        connection.sendall(a_request())
        answer = b""
        while more := connection.recv(100):
            answer += more
    assert answer == struct.pack(">BxI", 3, 4) + bytes((0, *told))
    assert pacs.rejected == 1


def a_request():
    """An A-ASSOCIATE-RQ for Verification."""

    def item(kind, value):
        return struct.pack(">BxH", kind, len(value)) + value

    context = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4")
    body = struct.pack(">HH", 1, 0) + b"TESTPACS".ljust(16) + b"ASKER".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    body += item(0x20, bytes((1, 0, 0, 0)) + context) + item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def an_attempt(sop_class):
    return StoreAttempt(
        number=1,
        times=1,
        sop_instance_uid="1.2",
        sop_class_uid=sop_class,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae="SENDER",
    )


def test_a_class_is_refused_for_the_first_times():
    judge = slowly(0.001, refuse_classes({SegmentationStorage: 0xA700}, 2))
    assert judge(an_attempt(CTImageStorage)) == 0
    assert [judge(an_attempt(SegmentationStorage)) for _ in range(3)] == [0xA700, 0xA700, 0]


def test_what_is_forgotten_is_gone_and_can_come_again(pacs, tmp_path: Path):
    address = ("127.0.0.1", pacs.port)
    send_series(address, pacs.ae_title, a_series(1))
    (uid,) = pacs.stored_counts
    pacs.forget(uid)
    assert pacs.instances() == []
    assert not pacs.wait_for(1, 0)
    send_series(address, pacs.ae_title, a_series(1))
    assert pacs.wait_for(1)
    assert pacs.stored_counts[uid] == 2
