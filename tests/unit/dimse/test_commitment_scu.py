"""Storage Commitment asked of a peer and reported to one, and each way in which that can end."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pynetdicom import AE, evt

from dicom_node.dimse import command as dimse
from dicom_node.dimse import commitment, pdu
from dicom_node.dimse.contexts import STORAGE_COMMITMENT
from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Reference,
    Rejection,
    StoreAnswer,
)
from dicom_node.dimse.pdu import AnsweredContext, Roles
from dicom_node.dimse.scu import Phase, Timeouts, ask_commitment, echo, report_commitment
from dicom_node.domain.errors import PeerError
from dicom_node.domain.records import Peer
from dicom_node.testing.commitment import Commitment
from dicom_node.testing.pacs import LocalPacs, Refused, send_series
from dicom_node.testing.series import a_series

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
SHORT = Timeouts(connect_s=2, associate_s=0.5, answer_s=0.5)
TRANSACTION = "1.2.826.0.1.77"


def a_peer(port: int, ae_title: str = "TESTPACS", host: str = "127.0.0.1") -> Peer:
    return Peer(name="pacs", ae_title=ae_title, host=host, port=port)


def a_request(*references: Reference, transaction: str = TRANSACTION) -> CommitmentRequest:
    return CommitmentRequest(
        transaction_uid=transaction, references=references or (Reference(CT, "1.2.3.1"),)
    )


REPORT = CommitmentReport(
    transaction_uid=TRANSACTION,
    committed=(Reference(CT, "1.2.3.1"),),
    failed=(FailedReference(CT, "1.2.3.2", 0x0110),),
)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[LocalPacs]:
    """Holds three instances, and reports on the association of the request."""
    with LocalPacs(tmp_path / "pacs", commitment=Commitment(way="same")) as running:
        send_series(("127.0.0.1", running.port), running.ae_title, a_series(3))
        yield running


def held() -> tuple[Reference, ...]:
    return tuple(Reference(str(d.SOPClassUID), str(d.SOPInstanceUID)) for d in a_series(3))


def asked(pacs: LocalPacs, *references: Reference, within_s: float = 20.0, **more: object):
    return ask_commitment(
        peer=a_peer(pacs.port),
        calling_ae="DICOMNODE",
        request=a_request(*(references or held())),
        report_within_s=within_s,
        **more,
    )


# --- on the association of the request ------------------------------------------------------------


def test_all_that_is_there_is_committed(pacs: LocalPacs) -> None:
    done = asked(pacs)
    assert done.outcome.succeeded
    assert done.report == CommitmentReport(
        transaction_uid=TRANSACTION, committed=held(), sender_ae="TESTPACS"
    )
    assert pacs.wait_until(lambda: bool(pacs.reports_sent))
    assert [sent.status for sent in pacs.reports_sent] == [0]
    assert [(one.references, one.calling_ae) for one in pacs.asked] == [(held(), "DICOMNODE")]


def test_what_failed_is_told_with_its_reason(pacs: LocalPacs) -> None:
    first, second, third = held()
    pacs.forget(first.sop_instance_uid)
    pacs.commitment.fails = lambda uid: 0x0213 if uid == second.sop_instance_uid else None
    other = Reference("1.2.840.10008.5.1.4.1.1.4", third.sop_instance_uid)
    report = asked(pacs, first, second, other).report
    assert report is not None
    assert report.committed == ()
    assert report.failed == ((*first, 0x0112), (*second, 0x0213), (*other, 0x0119))


def test_a_report_that_comes_too_late_for_the_association_is_no_failure(pacs: LocalPacs) -> None:
    pacs.commitment.way = "never"
    done = asked(pacs, within_s=0.2)
    assert done.outcome.succeeded
    assert done.report is None


def test_nothing_is_waited_for_once_it_is_learned_elsewhere(pacs: LocalPacs) -> None:
    pacs.commitment.way = "never"
    done = asked(pacs, within_s=200, enough=lambda: bool(pacs.asked))
    assert done.outcome.succeeded
    assert done.report is None


def test_without_patience_the_association_is_released_at_once(pacs: LocalPacs) -> None:
    pacs.commitment.delay_s = 60.0
    assert asked(pacs, within_s=0).outcome.succeeded


def test_a_refused_request_is_not_waited_for(pacs: LocalPacs) -> None:
    pacs.commitment.status = 0x0213
    done = asked(pacs, within_s=200)
    assert (done.outcome.phase, done.outcome.status) == (Phase.STATUS, 0x0213)
    assert "resource limitation" in done.outcome.detail


def test_the_listener_decides_what_the_peer_is_answered(pacs: LocalPacs) -> None:
    heard: list[CommitmentReport] = []

    def refuses(report: CommitmentReport) -> StoreAnswer:
        heard.append(report)
        return StoreAnswer(status=0x0110, comment="not durable")

    done = asked(pacs, within_s=0.5, on_report=refuses)
    assert done.report is None  # it was not accepted
    assert len(heard) == 1
    assert pacs.wait_until(lambda: bool(pacs.reports_sent))
    assert pacs.reports_sent[0].status == 0x0110


def test_a_listener_that_fails_is_a_status(pacs: LocalPacs) -> None:
    def fails(report: CommitmentReport) -> StoreAnswer:
        raise ZeroDivisionError

    assert asked(pacs, within_s=0.5, on_report=fails).report is None
    assert pacs.wait_until(lambda: bool(pacs.reports_sent))
    assert pacs.reports_sent[0].status == 0x0110


def test_two_thousand_references_are_asked_for(pacs: LocalPacs) -> None:
    many = tuple(Reference(CT, f"1.2.826.0.1.3680043.2.9999.{n}") for n in range(2000))
    report = asked(pacs, *many).report
    assert report is not None
    assert [(one.sop_instance_uid, one.reason) for one in report.failed] == [
        (one.sop_instance_uid, 0x0112) for one in many
    ]


# --- on a new association -------------------------------------------------------------------------


class Listening:
    """A committer that says when something came."""

    def __init__(self) -> None:
        self.reports: list[CommitmentReport] = []
        self.requests: list[CommitmentRequest] = []
        self.came = threading.Condition()

    def asked(self, request: AssociationRequest, commitment: CommitmentRequest) -> StoreAnswer:
        with self.came:
            self.requests.append(commitment)
            self.came.notify_all()
        return StoreAnswer(status=0)

    def reported(self, request: AssociationRequest, report: CommitmentReport) -> StoreAnswer:
        with self.came:
            self.reports.append(report)
            self.came.notify_all()
        return StoreAnswer(status=0)


@pytest.mark.parametrize("roles", [True, False])
def test_the_report_comes_to_our_own_port(
    pacs: LocalPacs, storage_scp: Callable, roles: bool
) -> None:
    committer = Listening()
    pacs.destinations["DICOMNODE"] = ("127.0.0.1", storage_scp(committer=committer).port)
    pacs.commitment.way, pacs.commitment.roles = "new", roles
    assert asked(pacs, within_s=0).outcome.succeeded
    with committer.came:
        assert committer.came.wait_for(lambda: bool(committer.reports), 20)
    assert committer.reports == [
        CommitmentReport(transaction_uid=TRANSACTION, committed=held(), sender_ae="TESTPACS")
    ]
    assert pacs.wait_until(lambda: bool(pacs.reports_sent))
    assert pacs.reports_sent[0].status == 0


def test_a_node_reports_to_a_node(storage_scp: Callable) -> None:
    committer = Listening()
    node = a_peer(storage_scp(committer=committer).port, "DICOMNODE")
    done = ask_commitment(peer=node, calling_ae="OTHER", request=a_request())
    assert done.outcome.succeeded
    assert committer.requests == [a_request()]
    outcome = report_commitment(peer=node, calling_ae="OTHER", report=REPORT)
    assert outcome.succeeded
    (told,) = committer.reports
    assert (told.committed, told.failed) == (REPORT.committed, REPORT.failed)
    assert told.sender_ae == "OTHER"


def test_the_test_pacs_hears_our_report(pacs: LocalPacs) -> None:
    outcome = report_commitment(peer=a_peer(pacs.port), calling_ae="DICOMNODE", report=REPORT)
    assert outcome.succeeded
    (heard,) = pacs.reports_received
    assert (heard.committed, heard.failed) == (REPORT.committed, REPORT.failed)
    assert (heard.event_type, heard.ae_title) == (2, "DICOMNODE")


# --- peers that do not do it ----------------------------------------------------------------------


def both(peer: Peer, timeouts: Timeouts = SHORT) -> list:
    """The outcome of a request and of a report."""
    request = ask_commitment(
        peer=peer, calling_ae="DICOMNODE", request=a_request(), timeouts=timeouts
    )
    report = report_commitment(peer=peer, calling_ae="DICOMNODE", report=REPORT, timeouts=timeouts)
    return [request.outcome, report]


def test_a_peer_without_the_context_says_so_for_good(tmp_path: Path) -> None:
    with LocalPacs(tmp_path / "pacs") as pacs:
        for outcome in both(a_peer(pacs.port), Timeouts()):
            assert outcome.phase is Phase.NO_CONTEXT


def test_rejections_for_now_and_for_good_are_told_apart(pacs: LocalPacs) -> None:
    for verdict in (Refused(), Refused(result=2, source=3, reason=2)):
        pacs.admits = lambda _calling, verdict=verdict: verdict
        for outcome in both(a_peer(pacs.port), Timeouts()):
            assert outcome.phase is Phase.REJECT
            assert outcome.rejection == Rejection(
                result=verdict.result, source=verdict.source, reason=verdict.reason
            )


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b", "x" * 64 + ".example"])
def test_a_peer_that_is_not_there_cannot_be_connected_to(free_port: Callable, host: str) -> None:
    peer = a_peer(free_port(), host=host)
    for outcome in [*both(peer), echo(peer=peer, calling_ae="DICOMNODE", timeouts=SHORT)]:
        assert outcome.phase is Phase.CONNECT
        assert host in outcome.detail


def test_a_peer_that_refuses_the_role_is_not_reported_to(raw: RawPeers) -> None:
    peer = raw(lambda one: one.accept(Roles(scu=True, scp=False)))
    outcome = report_commitment(peer=peer, calling_ae="DICOMNODE", report=REPORT, timeouts=SHORT)
    assert (outcome.phase, outcome.detail) == (Phase.NO_CONTEXT, "the peer refuses the role of SCP")


def test_a_stock_peer_that_knows_no_roles_is_reported_to() -> None:
    heard: list[int] = []

    def on_report(event: object) -> tuple[int, None]:
        heard.append(event.event_type)
        return 0, None

    entity = AE("STOCK")
    entity.add_supported_context(STORAGE_COMMITMENT)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]
    )
    peer = a_peer(server.server_address[1], "STOCK")
    assert report_commitment(peer=peer, calling_ae="DICOMNODE", report=REPORT).succeeded
    server.shutdown()
    assert heard == [2]


@pytest.mark.parametrize(
    ("transaction", "references", "title"),
    [
        ("no UID", (Reference(CT, "1.2"),), "TESTPACS"),
        (TRANSACTION, (), "TESTPACS"),
        (TRANSACTION, tuple(Reference(CT, f"1.{n}") for n in range(20_001)), "TESTPACS"),
        (TRANSACTION, (Reference(CT, "1.2"),), "x" * 17),
    ],
    ids=["transaction", "nothing", "too many", "title"],
)
def test_what_can_be_no_request_is_an_error(
    free_port: Callable, transaction: str, references: tuple, title: str
) -> None:
    peer = a_peer(free_port(), title)
    request = CommitmentRequest(transaction_uid=transaction, references=references)
    report = CommitmentReport(transaction_uid=transaction, committed=references)
    with pytest.raises(PeerError):
        ask_commitment(peer=peer, calling_ae="DICOMNODE", request=request)
    with pytest.raises(PeerError):
        report_commitment(peer=peer, calling_ae="DICOMNODE", report=report)


# --- peers that say strange things ----------------------------------------------------------------


class Raw:
    """The acceptor's side of one connection, byte for byte."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.statuses: list[int] = []

    def receive(self) -> tuple[int, bytes]:
        header = self._exactly(6)
        return header[0], self._exactly(struct.unpack(">I", header[2:])[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def accept(self, roles: Roles | None = None, max_pdu: int = 16384) -> None:
        kind, body = self.receive()
        assert kind == pdu.ASSOCIATE_RQ
        request = pdu.decode_associate_rq(body)
        self.send(
            pdu.encode_associate_ac(
                echoed=request.echoed,
                contexts=[
                    AnsweredContext(
                        context_id=1,
                        result=0,
                        abstract_syntax=STORAGE_COMMITMENT,
                        transfer_syntax=EXPLICIT,
                    )
                ],
                roles={} if roles is None else {STORAGE_COMMITMENT: roles},
                max_pdu=max_pdu,
                implementation=("1.2.3", "RAW"),
            )
        )

    def message(self) -> tuple[dimse.Command, bytes]:
        """The next message: its command and its data set."""
        command, data, last = b"", b"", False
        decoded: dimse.Command | None = None
        while decoded is None or (decoded.has_data_set and not last):
            kind, body = self.receive()
            assert kind == pdu.P_DATA, kind
            length, _, control = struct.unpack(">IBB", body[:6])
            assert length == len(body) - 4
            if control & 1:
                command += body[6:]
                decoded = dimse.decode_command(command) if control & 2 else None
            else:
                data += body[6:]
                last = bool(control & 2)
        return decoded, data

    def respond(
        self, code: int = 0, responded_to: int = 1, field: int = 0x8130, comment: str = ""
    ) -> None:
        response = dimse.Response(
            field=field, responded_to=responded_to, status=code, comment=comment
        )
        self.send(dimse.encode_message(dimse.encode_response(response), 1, 0))

    def report(self, report: CommitmentReport = REPORT, message_id: int = 8, **more: int) -> None:
        """Send a report, without waiting for the answer."""
        known = {"event_type": commitment.event_type_of(report), "max_pdu": 0} | more
        command = dimse.encode_event_report(
            message_id=message_id,
            sop_class=STORAGE_COMMITMENT,
            sop_instance=WELL_KNOWN,
            event_type=known["event_type"],
        )
        content = commitment.encode_report(report, explicit=True)
        self.send(dimse.encode_message(command, 1, known["max_pdu"], content))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)


class RawPeers:
    """Starts listeners, each of which lets a function speak on its one connection."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[AssertionError] = []

    def __call__(self, speak: Callable[[Raw], object]) -> Peer:
        listening = socket.create_server(("127.0.0.1", 0))
        self._threads.append(threading.Thread(target=self._serve, args=(listening, speak)))
        self._threads[-1].start()
        return a_peer(listening.getsockname()[1], "RAW")

    def finished(self) -> None:
        """Wait until all has been said and heard."""
        for thread in self._threads:
            thread.join(20)
        assert self._errors == []

    def _serve(self, listening: socket.socket, speak: Callable[[Raw], object]) -> None:
        connection, _ = listening.accept()
        listening.close()
        with connection:
            connection.settimeout(20)
            try:
                one = Raw(connection)
                speak(one)
                while one.receive()[0] != pdu.RELEASE_RQ:  # or the other side has had enough
                    pass
                one.send(pdu.encode_release_rp())
            except OSError:
                return
            except AssertionError as error:
                self._errors.append(error)


@pytest.fixture
def raw() -> Iterator[RawPeers]:
    peers = RawPeers()
    yield peers
    peers.finished()


def ask_raw(peer: Peer, within_s: float = 20.0, timeouts: Timeouts | None = None):
    return ask_commitment(
        peer=peer,
        calling_ae="DICOMNODE",
        request=a_request(),
        report_within_s=within_s,
        timeouts=timeouts,
    )


def test_the_request_is_one_message_with_what_it_must_have(raw: RawPeers) -> None:
    seen: list[tuple[dimse.Command, bytes]] = []

    def speak(one: Raw) -> None:
        one.accept(max_pdu=64)  # the message comes in many small pieces
        seen.append(one.message())
        one.respond()

    assert ask_raw(raw(speak), within_s=0).outcome.succeeded
    raw.finished()
    ((command, data),) = seen
    assert (command.field, command.message_id, command.action_type) == (0x0130, 1, 1)
    assert (command.sop_class, command.sop_instance) == (STORAGE_COMMITMENT, WELL_KNOWN)
    content = commitment.decode_request(memoryview(data), explicit=True, references_max=9)
    assert content == a_request()


def resident_bytes() -> int:
    fields = Path("/proc/self/status").read_text()
    return int(fields.split("VmRSS:")[1].split()[0]) * 1024


def test_responses_that_nobody_awaits_are_not_kept(raw: RawPeers) -> None:
    grown: list[int] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        before = resident_bytes()
        for number in range(2, 4002):
            one.respond(code=0x0110, responded_to=number, comment="x" * 15_000)
        one.respond(code=0xA700, comment="no room left " + "x" * 15_000)
        grown.append(resident_bytes() - before)

    outcome = ask_raw(raw(speak), within_s=0).outcome
    assert (outcome.status, len(outcome.comment)) == (0xA700, 64)
    assert outcome.comment.startswith("no room left")
    assert len(outcome.detail) < 200
    raw.finished()
    assert grown[0] < 32 * 1024 * 1024


def test_a_report_may_come_before_the_response(raw: RawPeers) -> None:
    answers: list[dimse.Command] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        one.report(max_pdu=50)
        answers.append(one.message()[0])  # a peer that waits for it before it responds
        one.respond()

    done = ask_raw(raw(speak))
    assert done.outcome.succeeded
    assert done.report is not None
    assert done.report.failed == REPORT.failed
    raw.finished()
    assert [(a.field, a.responded_to, a.status) for a in answers] == [(0x8100, 8, 0)]


def test_a_report_behind_the_response_in_one_piece_is_heard(raw: RawPeers) -> None:
    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        response = dimse.encode_response(dimse.Response(field=0x8130, responded_to=1, status=0))
        event = dimse.encode_event_report(
            message_id=8, sop_class=STORAGE_COMMITMENT, sop_instance=WELL_KNOWN, event_type=2
        )
        content = commitment.encode_report(REPORT, explicit=True)
        one.send(dimse.encode_message(response, 1, 0) + dimse.encode_message(event, 1, 0, content))

    done = ask_raw(raw(speak))
    assert done.outcome.succeeded
    assert done.report is not None


def test_reports_on_other_transactions_are_answered_and_waited_past(raw: RawPeers) -> None:
    answers: list[int | None] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        one.respond()
        other = CommitmentReport(transaction_uid="1.2.8", committed=REPORT.committed)
        for report in (other, REPORT):
            one.report(report)
            answers.append(one.message()[0].status)

    done = ask_raw(raw(speak))
    assert done.report is not None
    assert done.report.transaction_uid == TRANSACTION
    raw.finished()
    assert answers == [0x0115, 0]


@pytest.mark.parametrize(
    ("event_type", "code"),
    [(3, 0x0113), (1, 0x0115)],
)
def test_a_malformed_report_is_answered_and_ends_nothing(
    raw: RawPeers, event_type: int, code: int
) -> None:
    answers: list[int | None] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        one.respond()
        one.report(event_type=event_type)
        answers.append(one.message()[0].status)
        one.report()
        answers.append(one.message()[0].status)

    assert ask_raw(raw(speak)).report is not None
    raw.finished()
    assert answers == [code, 0]


def test_other_requests_of_the_peer_are_not_recognised(raw: RawPeers) -> None:
    answers: list[int | None] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        action = dimse.encode_action(
            message_id=3, sop_class=STORAGE_COMMITMENT, sop_instance=WELL_KNOWN, action_type=1
        )
        content = commitment.encode_request(a_request(), explicit=True)
        one.send(dimse.encode_message(action, 1, 0, content))
        answers.append(one.message()[0].status)
        one.respond(responded_to=99)  # to nothing that was asked
        one.respond()

    assert ask_raw(raw(speak), within_s=0).outcome.succeeded
    raw.finished()
    assert answers == [0x0211]


def test_a_peer_that_responds_and_releases_at_once_has_responded(raw: RawPeers) -> None:
    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        response = dimse.encode_response(dimse.Response(field=0x8130, responded_to=1, status=0))
        one.send(dimse.encode_message(response, 1, 0) + pdu.encode_release_rq())

    done = ask_raw(raw(speak))
    assert (done.outcome.succeeded, done.report) == (True, None)


def test_a_peer_that_responds_and_hangs_up_has_responded(raw: RawPeers) -> None:
    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        one.respond()
        raise ConnectionError

    done = ask_raw(raw(speak), within_s=100)
    assert (done.outcome.succeeded, done.report) == (True, None)


def test_both_releasing_at_once_is_a_release(raw: RawPeers) -> None:
    seen: list[int] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        one.respond()
        seen.append(one.receive()[0])
        one.send(pdu.encode_release_rq())
        seen.append(one.receive()[0])
        one.send(pdu.encode_release_rp())

    assert ask_raw(raw(speak), within_s=0).outcome.succeeded
    raw.finished()
    assert seen == [pdu.RELEASE_RQ, pdu.RELEASE_RP]


def test_a_report_during_the_release_is_left_unanswered(raw: RawPeers) -> None:
    seen: list[int] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        one.respond()
        seen.append(one.receive()[0])
        one.report()
        one.send(pdu.encode_release_rp())
        one.receive()
        seen.append(-1)

    done = ask_raw(raw(speak), within_s=0)
    assert (done.outcome.succeeded, done.report) == (True, None)
    raw.finished()
    assert seen == [pdu.RELEASE_RQ]


def test_a_peer_that_does_not_answer_a_release_is_aborted(raw: RawPeers) -> None:
    seen: list[int] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        one.respond()
        seen.extend((one.receive()[0], one.receive()[0]))

    assert ask_raw(raw(speak), within_s=0, timeouts=SHORT).outcome.succeeded
    raw.finished()
    assert seen == [pdu.RELEASE_RQ, pdu.ABORT]


@pytest.mark.parametrize(
    ("speak", "phase"),
    [
        (lambda one: one.receive(), Phase.TIMEOUT),
        (lambda one: one.accept(), Phase.TIMEOUT),
        (lambda one: one.send(bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 2])), Phase.ABORT),
        (lambda one: (one.accept(), one.send(bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]))), Phase.ABORT),
        (lambda one: (one.accept(), one.send(pdu.encode_release_rq())), Phase.ABORT),
        (lambda one: one.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Phase.ABORT),
        (lambda one: one.send(struct.pack(">BxI", 2, 10) + bytes(10)), Phase.ABORT),
        (lambda one: (one.accept(), one.send(struct.pack(">BxI", 4, 2**31))), Phase.ABORT),
        (lambda one: (one.accept(), one.message(), one.respond(field=0x8001)), Phase.TIMEOUT),
        (lambda one: (one.accept(), one.message(), one.respond(responded_to=2)), Phase.TIMEOUT),
        (lambda one: (one.accept(), one.send(struct.pack(">BxI", 1, 4) + bytes(4))), Phase.ABORT),
    ],
    ids=[
        "silent",
        "silent later",
        "abort at once",
        "abort later",
        "release",
        "http",
        "short answer",
        "endless PDU",
        "other response",
        "response to another",
        "request",
    ],
)
def test_each_way_to_fail_is_an_outcome(raw: RawPeers, speak: Callable, phase: Phase) -> None:
    assert ask_raw(raw(speak), timeouts=SHORT).outcome.phase is phase
    report = report_commitment(
        peer=raw(speak), calling_ae="DICOMNODE", report=REPORT, timeouts=SHORT
    )
    assert report.phase is phase
    assert report.detail


def test_a_message_on_another_context_is_aborted(raw: RawPeers) -> None:
    seen: list[tuple[int, bytes]] = []

    def speak(one: Raw) -> None:
        one.accept()
        one.message()
        response = dimse.encode_response(dimse.Response(field=0x8130, responded_to=1, status=0))
        one.send(dimse.encode_message(response, 3, 0))
        seen.append(one.receive())

    outcome = ask_raw(raw(speak)).outcome
    assert outcome.phase is Phase.ABORT
    assert "broke the protocol" in outcome.detail
    raw.finished()
    assert seen == [(pdu.ABORT, bytes([0, 0, 2, 6]))]
