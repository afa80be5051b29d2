"""What the front refuses or breaks off by itself, it tells; and who stays in meanwhile."""

from __future__ import annotations

import errno
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from dicom_node.decide.eviction import Crowd
from dicom_node.decide.patience import Patience
from dicom_node.dimse.contexts import acceptor_contexts
from dicom_node.dimse.contract import Limits, Rejection, StoreAnswer
from dicom_node.dimse.front import Server, listen

ECHO = "1.2.840.10008.1.1"
BOTH_FRONTS = pytest.mark.parametrize("front", ["own", "stock"])
ABORT, RELEASE = bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]), bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0])


def request(wire: SimpleNamespace, changes: dict[int, int | str]) -> bytes:
    elements: dict[int, int | str] = {0x0002: wire.CT, 0x0100: 1, 0x0110: 9, 0x0800: 1}
    elements[0x1000] = wire.INSTANCE
    return wire.p_data(wire.pdv(wire.command_set(elements | changes), command=True))


@pytest.mark.parametrize(
    ("changes", "name", "status", "offending"),
    [
        ({0x0002: "1.2.840.10008.5.1.4.1.1.4"}, "C-STORE", 0x0122, 0x00000002),
        ({0x0002: ""}, "C-STORE", 0x0212, 0x00000002),
        ({0x1000: ""}, "C-STORE", 0x0212, 0x00001000),
        ({0x1000: "../../etc/passwd"}, "C-STORE", 0x0117, 0x00001000),
        ({0x0100: 0x0020}, "C-FIND", 0x0211, None),
        ({0x0100: 0x0130}, "N-ACTION", 0x0211, None),
        ({0x0100: 0x0040}, "0x0040", 0x0211, None),
        ({0x0100: 0x0030}, "C-ECHO", 0x0122, 0x00000002),
    ],
)
def test_a_request_refused_by_the_front_is_told_with_its_comment(
    storage_scp: Callable,
    spool_receiver,
    wire: SimpleNamespace,
    changes: dict[int, int | str],
    name: str,
    status: int,
    offending: int | None,
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(request(wire, changes))
    peer.send(wire.p_data(wire.pdv(b"refused data set", command=False)))
    answer = peer.response()
    assert answer[0x0902].strip(), "an Error Comment says why"
    tag = b"" if offending is None else struct.pack("<HH", offending >> 16, offending & 0xFFFF)
    assert answer.get(0x0901, b"") == tag
    assert spool_receiver.wait(lambda: len(spool_receiver.refusals) == 1)
    (refusal,) = spool_receiver.refusals
    assert (refusal.request, refusal.answer.status) == (name, status)
    assert (refusal.association, refusal.caller.calling_ae) == (1, "SENDER")
    named = 0x1000 not in changes and name != "N-ACTION"  # that has another
    assert refusal.sop_instance_uid == (wire.INSTANCE if named else "")


@BOTH_FRONTS
@pytest.mark.parametrize("data", [b"", bytes(2000)], ids=["empty", "too large"])
def test_an_object_that_the_front_refuses_is_told(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, data: bytes
) -> None:
    peer = wire.call(storage_scp(limits=Limits(object_bytes=1500)).port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True), wire.pdv(data, command=False)))
    status = peer.status()
    assert status in (0xC000, 0xA700)
    assert spool_receiver.wait(lambda: len(spool_receiver.refusals) == 1)
    assert spool_receiver.refusals[0].answer.status == status
    assert spool_receiver.refusals[0].sop_instance_uid == wire.INSTANCE


@BOTH_FRONTS
def test_what_the_receiver_refused_and_recorded_it_is_not_told_again(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    spool_receiver.refusing = StoreAnswer(status=0xA700, comment="no room", recorded=True)
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True), wire.pdv(b"x", command=False)))
    assert peer.status() == 0xA700
    peer.send(RELEASE)
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "released"})
    assert spool_receiver.refusals == []


def test_who_sends_objects_of_the_wrong_class_for_ever_is_aborted(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp(limits=Limits(misfits_max=3)).port)
    peer.associate()
    for _ in range(3):
        peer.send(request(wire, {0x0002: "1.2.840.10008.5.1.4.1.1.4", 0x0800: 0x0101}))
        assert peer.status() == 0x0122
    assert peer.receive() == (7, bytes(4))
    assert spool_receiver.wait(lambda: len(spool_receiver.breaks) == 1)


def breaks_for(spool_receiver, number: int | None) -> str:
    assert spool_receiver.wait(lambda: len(spool_receiver.breaks) == 1)
    ((request, broken, reason),) = spool_receiver.breaks
    assert (broken, request.address) == (number, "127.0.0.1")
    assert request.calling_ae == ("SENDER" if number else "")
    return reason


def test_an_abort_with_a_reason_is_told_before_the_end_of_the_association(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), 5, command=True)))
    assert peer.receive()[0] == 7
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "malformed"})
    assert "context that was not accepted" in breaks_for(spool_receiver, 1)


def test_garbage_instead_of_a_request_is_told_of_the_address(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.send(b"GET / HTTP/1.1\r\n\r\n")
    assert peer.receive()[0] == 7
    assert "of no known type" in breaks_for(spool_receiver, None)


@pytest.mark.parametrize("how", ["aborted", "disconnected"])
def test_a_peer_that_goes_inside_an_object_is_told(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, how: str
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    peer.send(wire.p_data(wire.pdv(b"half", command=False, last=False)))
    if how == "aborted":
        peer.send(ABORT)
    peer.close()
    assert breaks_for(spool_receiver, 1) == f"it was {how} inside a message"


def test_probes_that_connect_and_close_are_told_nowhere(
    storage_scp: Callable,
    spool_receiver,
    wire: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "dicom_node")
    server = storage_scp()
    for number in range(30):
        probe = wire.call(server.port)
        probe.send(wire.associate_rq()[: number % 3])
        probe.close()
    peer = wire.call(server.port)
    peer.associate()
    peer.send(RELEASE)
    assert peer.receive()[0] == 6
    server.stop(20)
    assert (spool_receiver.breaks, spool_receiver.rejections) == ([], [])
    assert caplog.records == []


def test_a_rejection_by_the_front_is_told(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    raw = wire.associate_rq()
    peer = wire.call(storage_scp().port)
    peer.send(raw[:6] + b"\x00\x02" + raw[8:])
    assert peer.receive()[0] == 3
    assert spool_receiver.wait(lambda: len(spool_receiver.rejections) == 1)
    ((request, rejection),) = spool_receiver.rejections
    assert (request.calling_ae, rejection.source, rejection.reason) == ("SENDER", 2, 2)


class Exhausted:
    """A listening socket in a process that has no descriptor left for a while."""

    def __init__(self, listening: socket.socket, times: int) -> None:
        self.listening, self.times = listening, times

    def accept(self) -> object:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.listening.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self.listening, name)


def test_without_descriptors_the_door_opens_again_and_one_line_says_so(
    spool_receiver, wire: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    listener = listen(
        ae_title="DICOMNODE", host="127.0.0.1", port=0, acceptable=acceptor_contexts()
    )
    listener.open(spool_receiver, Limits(), None, None)
    listener.socket = Exhausted(listener.socket, times=4)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    wire.call(listener.server_address[1]).associate()
    Server(listener=listener, thread=thread).stop(0)
    assert [record.getMessage() for record in caplog.records] == [
        "cannot accept a connection: Too many open files"
    ]


# --- who stays ------------------------------------------------------------------------------------


def test_a_slow_honest_peer_is_not_pushed_out_by_silent_ones_of_another_address(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    crowd = Crowd(per_address=2, total=3, grace_s=0.0)
    port = storage_scp(limits=Limits(crowd=crowd)).port
    honest = wire.call(port)
    raw = wire.associate_rq()
    honest.send(raw[:50])
    silent = [
        socket.create_connection(("127.0.0.1", port), 20, source_address=("127.0.0.2", 0))
        for _ in range(20)
    ]
    for one in silent[:-2]:
        assert one.recv(1) == b"", "all but the last two gave way"
    honest.send(raw[50:])
    assert honest.receive()[0] == 2
    for one in silent:
        one.close()
    assert spool_receiver.wait(lambda: len(spool_receiver.breaks) >= 18)
    assert {request.address for request, _, _ in spool_receiver.breaks} == {"127.0.0.2"}


JUNK = b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("how", ["junk", "rejected", "aborted", "released"])
def test_who_is_told_its_last_and_stays_connected_is_one_of_the_crowd(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, how: str
) -> None:
    before = served()
    crowd = Crowd(per_address=3, total=3, grace_s=0.0)
    port = storage_scp(limits=Limits(crowd=crowd, goodbye_s=600.0)).port
    if how == "rejected":
        spool_receiver.verdict = Rejection(result=2, source=3, reason=1)
    lingering = []
    for _ in range(12):
        lingering.append(peer := wire.call(port))
        if how in ("junk", "rejected"):
            peer.send(JUNK if how == "junk" else wire.associate_rq())
        else:
            peer.associate()
            peer.send(JUNK if how == "aborted" else RELEASE)
        assert peer.receive()[0] == {"rejected": 3, "released": 6}.get(how, 7)
    assert until(lambda: len(served() - before) <= 3)
    spool_receiver.verdict = None
    wire.call(port).associate()  # nobody is locked out


def until(so: Callable[[], bool]) -> bool:
    """Wait until something is so; false if it is not so within 20 s."""
    deadline, pause = time.monotonic() + 20, threading.Event()
    while not so() and time.monotonic() < deadline:
        pause.wait(0.01)
    return so()


def served() -> set[threading.Thread]:
    """The threads that serve a connection."""
    return {one for one in threading.enumerate() if one.name.startswith("association")}


def test_who_may_yet_ask_is_not_pushed_out_by_who_has_been_told_its_last(
    storage_scp: Callable, wire: SimpleNamespace
) -> None:
    crowd = Crowd(per_address=3, total=3, grace_s=0.0)
    port = storage_scp(limits=Limits(crowd=crowd, goodbye_s=600.0)).port
    slow = wire.call(port)
    raw = wire.associate_rq()
    slow.send(raw[:50])
    for _ in range(12):
        junk = wire.call(port)
        junk.send(JUNK)
        assert junk.receive()[0] == 7
    slow.send(raw[50:])
    assert slow.receive()[0] == 2


def drips(peer: object, pieces: list[bytes]) -> tuple[int, bytes]:
    """Send the pieces, a tenth of a second apart, until the peer is aborted; the last PDU."""
    over = threading.Event()

    def drip() -> None:
        for piece in pieces:
            try:
                peer.send(piece)
            except OSError:
                return
            if over.wait(0.1):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    last = peer.receive()
    over.set()
    thread.join()
    return last


def test_bytes_that_drip_into_a_pdu_are_cut_off_by_their_rate(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    patience = Patience(rate_s=0.5, rate_bytes_s=1000)
    peer = wire.call(storage_scp(limits=Limits(patience=patience)).port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    pdu = wire.p_data(wire.pdv(bytes(3000), command=False))
    assert drips(peer, [pdu[n : n + 1] for n in range(len(pdu))]) == (7, bytes([0, 0, 2, 0]))
    assert "PDU" in breaks_for(spool_receiver, 1)


def test_a_message_of_tiny_pdus_now_and_then_does_not_hold_an_association_for_ever(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp(limits=Limits(patience=Patience(idle_s=0.5))).port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    tiny = wire.p_data(wire.pdv(b"x", command=False, last=False))
    assert drips(peer, [tiny] * 3000) == (7, bytes([0, 0, 2, 0]))
    assert "message" in breaks_for(spool_receiver, 1)
    assert spool_receiver.files() == []


def deaf(peer: object, wire: SimpleNamespace) -> threading.Thread:
    """Ask, and never read, until no more is taken; the thread ends with the connection."""
    echoes = wire.p_data(wire.pdv(wire.c_echo(), command=True)) * 50
    taken = threading.Event()

    def ask() -> None:
        try:
            while True:
                peer.send(echoes)
                taken.set()
        except OSError:
            return

    thread = threading.Thread(target=ask)
    thread.start()
    while taken.wait(1.0):
        taken.clear()
    return thread


def of_small_buffers(server: object, wire: SimpleNamespace) -> object:
    """A peer that has an association for C-ECHO, over which little fits that is not read."""
    server.listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer = wire.call(server.port)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.socket.settimeout(60)
    peer.associate(contexts=[(ECHO, [wire.EXPLICIT])])
    return peer


def test_a_peer_that_does_not_read_does_not_hold_up_the_end(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    server = storage_scp()
    thread = deaf(of_small_buffers(server, wire), wire)
    server.stop(0)
    assert spool_receiver.endings == {1: "stopped"}
    assert server.active() == 0
    thread.join(20)


def test_a_peer_that_does_not_read_is_told_to_be_one(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    server = storage_scp(limits=Limits(patience=Patience(pdu_s=0.5)))
    thread = deaf(of_small_buffers(server, wire), wire)
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "timed out"})
    assert breaks_for(spool_receiver, 1) == "it took nothing of its answer"
    thread.join(20)


def test_a_peer_may_have_an_idle_limit_of_its_own(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    spool_receiver.own_idle_s = 0.2
    peer = wire.call(storage_scp(limits=Limits(patience=Patience(idle_s=600))).port)
    peer.associate()
    assert peer.receive() == (7, bytes([0, 0, 2, 0]))
    assert "said nothing" in breaks_for(spool_receiver, 1)


def test_an_element_that_comes_twice_in_a_command_set_is_not_believed(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    twice = wire.c_store() + struct.pack("<HHIH", 0, 0x0110, 2, 8)
    peer.send(wire.p_data(wire.pdv(twice, command=True)))
    assert peer.receive() == (7, bytes([0, 0, 2, 6]))
