"""Storage Commitment with a real Orthanc in both roles; it reports on an association of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Reference,
    StoreAnswer,
)
from dicom_node.dimse.scu import (
    Learned,
    ask_commitment,
    count_series,
    held_instances,
    report_commitment,
)
from dicom_node.domain.records import Peer
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series

pytestmark = pytest.mark.peer

CT = "1.2.840.10008.5.1.4.1.1.2"
TRANSACTION = "1.2.826.0.1.3680043.2.77.1"


class Listening:
    """A committer that notes what comes, and answers with success."""

    def __init__(self) -> None:
        self.requests: list[tuple[AssociationRequest, CommitmentRequest]] = []
        self.reports: list[tuple[AssociationRequest, CommitmentReport]] = []
        self._changed = threading.Condition()

    def asked(self, request: AssociationRequest, commitment: CommitmentRequest) -> StoreAnswer:
        with self._changed:
            self.requests.append((request, commitment))
            self._changed.notify_all()
        return StoreAnswer(status=0)

    def reported(self, request: AssociationRequest, report: CommitmentReport) -> StoreAnswer:
        with self._changed:
            self.reports.append((request, report))
            self._changed.notify_all()
        return StoreAnswer(status=0)

    def wait(self, so: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(so, 30)


@pytest.fixture
def committer() -> Listening:
    return Listening()


@pytest.fixture
def node_port(storage_scp: Callable, committer: Listening) -> int:
    return storage_scp(committer=committer).port


def as_peer(orthanc) -> Peer:
    return Peer(
        name="orthanc", ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.dicom_port
    )


def held_by(orthanc, count: int = 3) -> tuple[Reference, ...]:
    """Have it hold so many instances, and give their references."""
    send_series(("127.0.0.1", orthanc.dicom_port), orthanc.ae_title, a_series(count))
    orthanc.wait_for(count)
    return tuple(Reference(CT, str(d.SOPInstanceUID)) for d in a_series(count))


def asked_of(orthanc, references: tuple[Reference, ...]) -> None:
    done = ask_commitment(
        peer=as_peer(orthanc),
        calling_ae="DICOMNODE",
        request=CommitmentRequest(transaction_uid=TRANSACTION, references=references),
        report_within_s=0,
    )
    assert done.outcome.succeeded, done


def test_orthanc_commits_what_it_holds(orthanc, node_port: int, committer: Listening) -> None:
    references = held_by(orthanc)
    orthanc.knows("node", "DICOMNODE", node_port)
    asked_of(orthanc, references)
    assert committer.wait(lambda: bool(committer.reports))
    ((request, report),) = committer.reports
    assert report == CommitmentReport(
        transaction_uid=TRANSACTION, committed=references, sender_ae=orthanc.ae_title
    )
    assert (request.calling_ae, request.called_ae) == (orthanc.ae_title, "DICOMNODE")


def test_orthanc_says_what_it_does_not_hold(orthanc, node_port: int, committer: Listening) -> None:
    first, second, third = held_by(orthanc)
    orthanc.knows("node", "DICOMNODE", node_port)
    other_class = Reference("1.2.840.10008.5.1.4.1.1.4", second.sop_instance_uid)
    missing = Reference(CT, "1.2.826.0.1.3680043.2.9999")
    asked_of(orthanc, (first, other_class, third, missing))
    assert committer.wait(lambda: bool(committer.reports))
    ((_, report),) = committer.reports
    assert set(report.committed) == {first, third}
    assert set(report.failed) == {(*other_class, 0x0119), (*missing, 0x0112)}


def test_orthanc_takes_a_thousand_references(orthanc, node_port: int, committer: Listening) -> None:
    held = held_by(orthanc)
    orthanc.knows("node", "DICOMNODE", node_port)
    missing = tuple(Reference(CT, f"1.2.826.0.1.3680043.2.9999.{n}") for n in range(1000))
    asked_of(orthanc, (*held, *missing))
    assert committer.wait(lambda: bool(committer.reports))
    ((_, report),) = committer.reports
    assert (len(report.committed), len(report.failed)) == (3, 1000)


def test_orthanc_asks_us_and_hears_our_report(
    orthanc, node_port: int, committer: Listening
) -> None:
    references = held_by(orthanc)
    orthanc.knows("node", "DICOMNODE", node_port)
    answer = orthanc.ask(
        "/modalities/node/storage-commitment", {"DicomInstances": [list(r) for r in references]}
    )
    assert committer.wait(lambda: bool(committer.requests))
    ((request, asked),) = committer.requests
    assert request.calling_ae == orthanc.ae_title
    assert asked.references == references
    assert answer["ID"] == asked.transaction_uid
    assert orthanc.ask(answer["Path"])["Status"] == "Pending"
    first, second, third = references
    outcome = report_commitment(
        peer=as_peer(orthanc),
        calling_ae="DICOMNODE",
        report=CommitmentReport(
            transaction_uid=asked.transaction_uid,
            committed=(first, third),
            failed=(FailedReference(*second, 0x0112),),
        ),
    )
    assert outcome.succeeded, outcome
    told = orthanc.ask(answer["Path"])
    assert told["Status"] == "Failure"
    assert {one["SOPInstanceUID"] for one in told["Success"]} == {
        first.sop_instance_uid,
        third.sop_instance_uid,
    }
    (failure,) = told["Failures"]
    assert failure["SOPInstanceUID"] == second.sop_instance_uid
    assert failure["FailureReason"] == 0x0112


def test_orthanc_hears_that_all_is_kept(orthanc, node_port: int, committer: Listening) -> None:
    references = held_by(orthanc)
    orthanc.knows("node", "DICOMNODE", node_port)
    (study,) = orthanc.ask("/studies")
    answer = orthanc.ask("/modalities/node/storage-commitment", {"Resources": [study]})
    assert committer.wait(lambda: bool(committer.requests))
    ((_, asked),) = committer.requests
    assert set(asked.references) == set(references)
    report = CommitmentReport(transaction_uid=asked.transaction_uid, committed=asked.references)
    outcome = report_commitment(peer=as_peer(orthanc), calling_ae="DICOMNODE", report=report)
    assert outcome.succeeded
    assert orthanc.ask(answer["Path"])["Status"] == "Success"


def test_orthanc_says_what_it_has_of_a_series(orthanc) -> None:
    uids = [r.sop_instance_uid for r in held_by(orthanc)]
    header = Header()
    series = {
        "peer": as_peer(orthanc),
        "calling_ae": "DICOMNODE",
        "study_uid": header.study_uid,
        "series_uid": header.series_uid,
    }
    found = held_instances(sop_instance_uids=[*uids, "1.2.826.0.1.3680043.2.9999"], **series)
    assert found.found == set(uids)
    assert found.outcome.succeeded
    counted = count_series(**series)
    assert (counted.count, counted.how) == (3, Learned.STATED)
