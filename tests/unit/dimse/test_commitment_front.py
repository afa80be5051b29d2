"""Storage Commitment at the node's own front: who is heard, and what each message is answered."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from pynetdicom import build_role

from dicom_node.dimse import commitment
from dicom_node.dimse.contexts import STORAGE_COMMITMENT, VERIFICATION
from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Limits,
    Reference,
    StoreAnswer,
)
from dicom_node.dimse.entity import Entity
from dicom_node.dimse.scp import Extra
from dicom_node.domain.errors import SpoolError
from dicom_node.testing.commitment import Reported, send_commitment_request, send_report

CT = "1.2.840.10008.5.1.4.1.1.2"
BOTH_FRONTS = pytest.mark.parametrize("front", ["own", "stock"])
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
PROPOSED = [(STORAGE_COMMITMENT, ["1.2.840.10008.1.2.1"])]
AS_SCP = {STORAGE_COMMITMENT: (False, True)}
REQUEST = CommitmentRequest(
    transaction_uid="1.2.9", references=(Reference(CT, "1.2.3.1"), Reference(CT, "1.2.3.2"))
)
REPORT = CommitmentReport(
    transaction_uid="1.2.9",
    committed=(Reference(CT, "1.2.3.1"),),
    failed=(FailedReference(CT, "1.2.3.2", 0x0112),),
    sender_ae="SENDER",
)


class NotedCommitter:
    """Remembers what it was told, and answers as it is set to."""

    def __init__(self) -> None:
        self.requests: list[tuple[AssociationRequest, CommitmentRequest]] = []
        self.reports: list[tuple[AssociationRequest, CommitmentReport]] = []
        self.answer = StoreAnswer(status=0)
        self.error: Exception | None = None

    def asked(self, request: AssociationRequest, commitment: CommitmentRequest) -> StoreAnswer:
        self.requests.append((request, commitment))
        return self._answered()

    def reported(self, request: AssociationRequest, report: CommitmentReport) -> StoreAnswer:
        self.reports.append((request, report))
        return self._answered()

    def _answered(self) -> StoreAnswer:
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def committer() -> NotedCommitter:
    return NotedCommitter()


@pytest.fixture
def port(storage_scp: Callable, committer: NotedCommitter) -> int:
    return storage_scp(committer=committer).port


def message(
    wire: SimpleNamespace,
    changes: dict[int, int | str | None] | None = None,
    data: bytes | None = None,
    *,
    report: bool = False,
) -> bytes:
    """A request (or report) with some of its elements changed, or left out if they are None."""
    kind: dict[int, int | str | None] = {0x0003: STORAGE_COMMITMENT, 0x0100: 0x0130}
    kind |= {0x1001: WELL_KNOWN, 0x1008: 1}
    content = commitment.encode_request(REQUEST, explicit=True)
    if report:
        kind = {0x0002: STORAGE_COMMITMENT, 0x0100: 0x0100, 0x1000: WELL_KNOWN, 0x1002: 2}
        content = commitment.encode_report(REPORT, explicit=True)
    elements = kind | {0x0110: 5, 0x0800: 1} | (changes or {})
    command = wire.command_set({n: v for n, v in elements.items() if v is not None})
    sent = wire.p_data(wire.pdv(command, command=True))
    if elements[0x0800] == 1:
        sent += wire.p_data(wire.pdv(content if data is None else data, command=False))
    return sent


def number(answer: dict[int, bytes], element: int) -> int:
    return int.from_bytes(answer[element], "little")


def roles_of(answer: object) -> dict[str, tuple[int, int]]:
    return {
        uid: (item.scu_role, item.scp_role)
        for uid, item in answer.user_information.role_selection.items()
    }


def results_of(answer: object) -> list[int]:
    return [item.result for item in answer.presentation_context]


# --- negotiation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proposed", "answered", "result"),
    [
        (None, {}, 0),
        ((True, False), (1, 0), 0),
        ((False, True), (0, 1), 0),
        ((True, True), (1, 1), 0),
    ],
)
def test_each_role_is_granted(
    wire: SimpleNamespace, port: int, proposed: tuple, answered: tuple, result: int
) -> None:
    peer = wire.call(port)
    roles = {STORAGE_COMMITMENT: proposed} if proposed else None
    answer = peer.associate(contexts=PROPOSED, roles=roles)
    assert results_of(answer) == [result]
    assert roles_of(answer) == ({STORAGE_COMMITMENT: answered} if proposed else {})


def test_without_a_committer_the_context_is_refused(
    wire: SimpleNamespace, storage_scp: Callable
) -> None:
    answer = wire.call(storage_scp().port).associate(contexts=PROPOSED, roles=AS_SCP)
    assert results_of(answer) == [3]
    answer = wire.call(storage_scp(extra=Extra(classes=[STORAGE_COMMITMENT])).port).associate(
        contexts=PROPOSED
    )
    assert results_of(answer) == [3]


def test_storage_is_not_granted_to_a_requestor_that_would_be_scp(
    wire: SimpleNamespace, port: int
) -> None:
    answer = wire.call(port).associate(roles={wire.CT: (False, True)})
    assert results_of(answer) == [1]


# --- requests -------------------------------------------------------------------------------------


@BOTH_FRONTS
def test_a_request_of_pynetdicom_is_taken(port: int, committer: NotedCommitter) -> None:
    pairs = [tuple(one) for one in REQUEST.references]
    status = send_commitment_request(("127.0.0.1", port), "DICOMNODE", pairs, "1.2.9")
    assert status == 0
    ((request, asked),) = committer.requests
    assert asked == REQUEST
    assert (request.calling_ae, request.called_ae) == ("SENDER", "DICOMNODE")


@BOTH_FRONTS
def test_the_response_to_a_request_says_to_what(
    wire: SimpleNamespace, port: int, committer: NotedCommitter
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED)
    peer.send(message(wire))
    answer = peer.response()
    assert number(answer, 0x0100) == 0x8130
    assert (number(answer, 0x0120), number(answer, 0x0900)) == (5, 0)
    assert answer[0x0002].rstrip(b"\0").decode() == STORAGE_COMMITMENT
    assert answer[0x1000].rstrip(b"\0").decode() == WELL_KNOWN
    assert number(answer, 0x1008) == 1
    assert list(answer) == sorted(answer)


def test_a_request_needs_the_role_of_scu(
    wire: SimpleNamespace, port: int, committer: NotedCommitter
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED, roles=AS_SCP)
    peer.send(message(wire))
    assert peer.status() == 0x0211
    assert committer.requests == []


# --- reports --------------------------------------------------------------------------------------


@BOTH_FRONTS
@pytest.mark.parametrize("roles", [True, False])
def test_a_report_of_pynetdicom_is_taken(port: int, committer: NotedCommitter, roles: bool) -> None:
    report = Reported(
        transaction_uid="1.2.9",
        committed=tuple(tuple(one) for one in REPORT.committed),
        failed=tuple(tuple(one) for one in REPORT.failed),
        event_type=2,
        status=None,
        ae_title="DICOMNODE",
    )
    target = ("DICOMNODE", "127.0.0.1", port)
    assert send_report("SENDER", target, report, roles=roles) == 0
    ((request, told),) = committer.reports
    assert told == REPORT
    assert request.calling_ae == "SENDER"


@BOTH_FRONTS
def test_the_response_to_a_report_says_to_what(
    wire: SimpleNamespace, port: int, committer: NotedCommitter
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED, roles=AS_SCP)
    peer.send(message(wire, report=True))
    answer = peer.response()
    assert (number(answer, 0x0100), number(answer, 0x0900)) == (0x8100, 0)
    assert number(answer, 0x1002) == 2
    assert [told for _, told in committer.reports] == [REPORT]


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "changes", "code"),
    [
        (False, {0x0003: CT}, 0x0118),
        (False, {0x0003: None}, 0x0118),
        (False, {0x0003: None, 0x0002: STORAGE_COMMITMENT}, 0x0118),  # not the element for it
        (False, {0x1001: None}, 0x0212),
        (False, {0x1001: "../x"}, 0x0117),
        (False, {0x1001: "1.2.3"}, 0x0112),
        (False, {0x1008: None}, 0x0212),
        (False, {0x1008: 2}, 0x0123),
        (False, {0x0800: 0x0101}, 0x0212),
        (True, {0x0002: CT}, 0x0118),
        (True, {0x1000: None}, 0x0212),
        (True, {0x1000: "1.2.3"}, 0x0112),
        (True, {0x1002: None}, 0x0212),
        (True, {0x1002: 0}, 0x0113),
        (True, {0x1002: 3}, 0x0113),
        (True, {0x1002: 1}, 0x0115),  # "all" with a failure in it
        (True, {0x0800: 0x0101}, 0x0212),
        (True, {0x0100: 0x0110}, 0x0211),  # N-GET
        (True, {0x0100: 0x0140}, 0x0211),  # N-CREATE
        (True, {0x0100: 0x0030}, 0x0122),  # C-ECHO
        (True, {0x0100: 0x0001}, 0x0122),  # C-STORE: this class is not stored
    ],
)
def test_a_wrong_message_gets_its_status_and_the_association_lives_on(
    wire: SimpleNamespace,
    port: int,
    committer: NotedCommitter,
    spool_receiver,
    report: bool,
    changes: dict,
    code: int,
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED, roles={STORAGE_COMMITMENT: (True, True)})
    peer.send(message(wire, changes, report=report))
    answer = peer.response()
    assert (number(answer, 0x0900), number(answer, 0x0120)) == (code, 5)
    assert committer.requests == committer.reports == []
    assert spool_receiver.files() == []
    peer.send(message(wire, report=report))
    assert peer.status() == 0


@pytest.mark.parametrize("report", [True, False])
@pytest.mark.parametrize("data", [b"", b"junk", b"\xff" * 5000])
def test_a_data_set_that_cannot_be_read_is_an_invalid_argument(
    wire: SimpleNamespace, port: int, committer: NotedCommitter, report: bool, data: bytes
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED)
    peer.send(message(wire, data=data, report=report))
    assert peer.status() == 0x0115
    assert committer.requests == committer.reports == []


def test_an_object_of_no_storage_class_is_not_stored_on_the_context_of_verification(
    wire: SimpleNamespace, port: int, spool_receiver
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=[(VERIFICATION, ["1.2.840.10008.1.2.1"])])
    peer.send(wire.p_data(wire.pdv(wire.c_store(sop_class=VERIFICATION), command=True)))
    peer.send(wire.p_data(wire.pdv(b"data set", command=False)))
    assert peer.status() == 0x0122
    assert spool_receiver.files() == []


def test_a_message_of_this_service_on_a_storage_context_is_not_recognised(
    wire: SimpleNamespace, port: int, committer: NotedCommitter
) -> None:
    peer = wire.call(port)
    peer.associate()
    for report in (True, False):
        peer.send(message(wire, report=report))
        assert peer.status() == 0x0211
    assert committer.requests == committer.reports == []


@BOTH_FRONTS
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpoolError("the disk is full", full=True), 0x0213),
        (ZeroDivisionError("Doe^John"), 0x0110),
    ],
)
def test_a_committer_that_fails_is_a_status(
    wire: SimpleNamespace,
    port: int,
    committer: NotedCommitter,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    code: int,
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED)
    committer.error = error
    peer.send(message(wire))
    assert peer.status() == code
    peer.send(message(wire, report=True))
    assert peer.status() == code
    committer.error = None
    peer.send(message(wire))
    assert peer.status() == 0
    assert "Doe" not in caplog.text


@BOTH_FRONTS
def test_what_the_committer_answers_is_what_the_peer_gets(
    wire: SimpleNamespace, port: int, committer: NotedCommitter
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED)
    committer.answer = StoreAnswer(status=0x0124, comment="not allowed to ask")
    peer.send(message(wire))
    answer = peer.response()
    assert (number(answer, 0x0900), answer[0x0902].rstrip()) == (0x0124, b"not allowed to ask")


# --- limits ---------------------------------------------------------------------------------------


def test_too_many_references_are_a_resource_limitation(
    wire: SimpleNamespace, storage_scp: Callable, committer: NotedCommitter
) -> None:
    server = storage_scp(committer=committer, limits=Limits(references_max=1))
    peer = wire.call(server.port)
    peer.associate(contexts=PROPOSED)
    for report in (True, False):
        peer.send(message(wire, report=report))
        assert peer.status() == 0x0213
    assert committer.requests == committer.reports == []


def test_a_data_set_over_the_limit_is_let_pass_and_refused(
    wire: SimpleNamespace, storage_scp: Callable, committer: NotedCommitter
) -> None:
    server = storage_scp(committer=committer, limits=Limits(commitment_bytes=1000))
    peer = wire.call(server.port)
    peer.associate(contexts=PROPOSED)
    peer.send(message(wire, data=bytes(1900)))
    assert peer.status() == 0x0213
    peer.send(message(wire))
    assert peer.status() == 0


def test_a_data_set_without_end_is_aborted(
    wire: SimpleNamespace, storage_scp: Callable, committer: NotedCommitter
) -> None:
    server = storage_scp(committer=committer, limits=Limits(commitment_bytes=1000))
    peer = wire.call(server.port)
    peer.associate(contexts=PROPOSED)
    head = message(wire, {0x0800: 2})  # a data set follows, which is sent below
    peer.send(head + wire.p_data(wire.pdv(bytes(6000), command=False, last=False)))
    assert peer.receive() == (7, bytes(4))


def test_twenty_thousand_references_are_taken(
    wire: SimpleNamespace, port: int, committer: NotedCommitter
) -> None:
    longest = "1." + "2" * 55
    many = CommitmentRequest(
        transaction_uid="1.2.9",
        references=tuple(Reference(CT, f"{longest}.{n:05d}") for n in range(20_000)),
    )
    data = commitment.encode_request(many, explicit=True)
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED)
    peer.send(message(wire, {0x0800: 2}))
    for start in range(0, len(data), 100_000):
        piece = data[start : start + 100_000]
        last = start + 100_000 >= len(data)
        peer.send(wire.p_data(wire.pdv(piece, command=False, last=last)))
    assert peer.status() == 0
    assert [asked for _, asked in committer.requests] == [many]


def test_a_message_cut_off_in_the_middle_concerns_nobody(
    wire: SimpleNamespace, port: int, committer: NotedCommitter, spool_receiver
) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED)
    peer.send(message(wire)[:-10])
    peer.close()
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "disconnected"})
    assert committer.requests == []


def test_a_request_a_report_an_object_and_an_echo_share_an_association(
    wire: SimpleNamespace, port: int, committer: NotedCommitter, spool_receiver
) -> None:
    syntax = ["1.2.840.10008.1.2.1"]
    peer = wire.call(port)
    peer.associate(contexts=[*PROPOSED, (wire.CT, syntax), (VERIFICATION, syntax)])
    peer.send(wire.p_data(wire.pdv(wire.c_store(), 3, command=True)))
    peer.send(wire.p_data(wire.pdv(b"data set", 3, command=False)))
    assert peer.status() == 0
    peer.send(message(wire))
    assert peer.status() == 0
    peer.send(wire.p_data(wire.pdv(wire.c_echo(), 5, command=True)))
    assert peer.status() == 0
    peer.send(message(wire, report=True))
    assert peer.status() == 0
    assert (len(committer.requests), len(committer.reports)) == (1, 1)
    assert len(spool_receiver.stored) == 1


def test_many_peers_are_heard_at_once(port: int, committer: NotedCommitter) -> None:
    statuses: list[int | None] = []

    def ask(name: str) -> None:
        pairs = [(CT, f"1.2.3.{n}") for n in range(50)]
        statuses.append(
            send_commitment_request(
                ("127.0.0.1", port), "DICOMNODE", pairs, "1.2.9", calling_ae=name
            )
        )

    threads = [threading.Thread(target=ask, args=(f"PEER{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 6
    assert sorted(r.calling_ae for r, _ in committer.requests) == [f"PEER{n}" for n in range(6)]


def test_the_answer_to_roles_is_understood_by_pynetdicom(port: int) -> None:
    entity = Entity("PACS")
    entity.add_requested_context(STORAGE_COMMITMENT)
    association = entity.associate(
        "127.0.0.1",
        port,
        ae_title="DICOMNODE",
        ext_neg=[build_role(STORAGE_COMMITMENT, scp_role=True)],
    )
    (context,) = association.accepted_contexts
    assert (context.as_scu, context.as_scp) == (False, True)
    association.release()


def test_a_number_of_the_wrong_length_is_aborted(wire: SimpleNamespace, port: int) -> None:
    peer = wire.call(port)
    peer.associate(contexts=PROPOSED)
    command = wire.command_set({0x0100: 0x0130, 0x0110: 5, 0x0800: 1, 0x1008: "1.2.3"})
    peer.send(wire.p_data(wire.pdv(command, command=True)))
    assert peer.receive() == (7, struct.pack("BBBB", 0, 0, 2, 6))
