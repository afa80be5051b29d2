"""The SCP over real sockets: what is stored, what is refused and how, and who is not disturbed."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import build_context, build_role
from pynetdicom.dsutils import encode

from dicom_node.decide.eviction import Crowd
from dicom_node.decide.patience import Patience
from dicom_node.dimse import status
from dicom_node.dimse.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE, LOSSLESS, VERIFICATION
from dicom_node.dimse.contract import Limits, Rejection, StoreAnswer, StoreRequest
from dicom_node.dimse.entity import Entity
from dicom_node.dimse.scp import Extra, serve_storage
from dicom_node.domain.errors import ConfigurationError, SpoolError

CT = "1.2.840.10008.5.1.4.1.1.2"
BOTH_FRONTS = pytest.mark.parametrize("front", ["own", "stock"])
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"


def an_image(number: int = 1, pixels: int = 64) -> Dataset:
    image = Dataset()
    image.SOPClassUID = CT
    image.SOPInstanceUID = f"1.2.826.0.1.3680043.2.1.{number}"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    image.PatientName = "Phantom"
    image.Rows = image.Columns = pixels
    image.BitsAllocated = image.BitsStored = 16
    image.PixelData = bytes(range(256)) * (pixels * pixels * 2 // 256)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    return image


def encoded(image: Dataset) -> bytes:
    """The data set as pynetdicom puts it on the wire."""
    return encode(image, False, True)


@pytest.fixture
def entity() -> Entity:
    requestor = Entity("SENDER")
    requestor.acse_timeout = requestor.dimse_timeout = requestor.network_timeout = 20
    requestor.add_requested_context(CT, [EXPLICIT_LITTLE])
    requestor.add_requested_context(VERIFICATION, [IMPLICIT_LITTLE])
    return requestor


def associated(entity: Entity, port: int, called: str = "DICOMNODE", **more: object) -> object:
    return entity.associate("127.0.0.1", port, ae_title=called, **more)


# --- what is served -------------------------------------------------------------------------------


@BOTH_FRONTS
def test_an_object_is_stored_as_received_with_a_file_head(
    storage_scp: Callable, spool_receiver, entity: Entity
) -> None:
    association = associated(entity, storage_scp().port)
    assert association.is_established
    assert association.send_c_store(an_image()).Status == 0
    association.release()
    ((request, stored),) = spool_receiver.stored
    raw = spool_receiver.spool.path(stored.path).read_bytes()
    assert raw.endswith(encoded(an_image()))
    assert dcmread(BytesIO(raw)).PixelData == an_image().PixelData
    assert request == StoreRequest(
        association=1,
        sop_class_uid=CT,
        sop_instance_uid=an_image().SOPInstanceUID,
        transfer_syntax_uid=EXPLICIT_LITTLE,
        message_id=1,
        calling_ae="SENDER",
    )
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "released"})


@BOTH_FRONTS
def test_the_same_data_set_from_two_senders_makes_one_file(
    storage_scp: Callable, spool_receiver, entity: Entity
) -> None:
    port = storage_scp().port
    for sender in ("ONE", "TWO"):
        entity.ae_title = sender
        association = associated(entity, port)
        association.send_c_store(an_image(), msg_id=len(sender))
        association.release()
    assert len(spool_receiver.stored) == 2
    assert len(spool_receiver.files()) == 1


@BOTH_FRONTS
@pytest.mark.parametrize("max_pdu", [4096, 16382, 131072, 0])
def test_objects_come_whole_from_senders_of_any_pdu_size(
    storage_scp: Callable, spool_receiver, entity: Entity, max_pdu: int
) -> None:
    limits = Limits(pdu_bytes=max_pdu or 131072)
    association = associated(entity, storage_scp(limits=limits).port, max_pdu=max_pdu)
    for number in range(3):
        assert association.send_c_store(an_image(number, pixels=400)).Status == 0
    association.release()
    for number, (_, stored) in enumerate(spool_receiver.stored):
        raw = spool_receiver.spool.path(stored.path).read_bytes()
        assert raw.endswith(encoded(an_image(number, pixels=400)))


@BOTH_FRONTS
def test_an_echo_is_answered_and_told(
    storage_scp: Callable, spool_receiver, entity: Entity
) -> None:
    association = associated(entity, storage_scp().port)
    assert association.send_c_echo().Status == 0
    association.release()
    assert spool_receiver.wait(lambda: len(spool_receiver.echoes) == 1)
    request = spool_receiver.echoes[0]
    assert (request.calling_ae, request.called_ae) == ("SENDER", "DICOMNODE")
    assert request.address == "127.0.0.1"


@BOTH_FRONTS
def test_compressed_syntaxes_are_accepted_and_uncompressed_ones_preferred(
    storage_scp: Callable, entity: Entity
) -> None:
    proposed = [
        build_context(CT, [LOSSLESS[0]]),
        build_context(CT, [LOSSLESS[0], IMPLICIT_LITTLE, EXPLICIT_LITTLE]),
        build_context(CT, ["1.2.840.10008.1.2.2"]),
    ]
    association = associated(entity, storage_scp().port, contexts=proposed)
    accepted = {c.context_id: c.transfer_syntax[0] for c in association.accepted_contexts}
    association.release()
    assert accepted == {1: LOSSLESS[0], 3: EXPLICIT_LITTLE}


def test_a_class_added_by_the_operator_is_stored(
    storage_scp: Callable, spool_receiver, entity: Entity
) -> None:
    proposed = [build_context("1.2.3.4.5", ["1.2.3.4.6"])]
    server = storage_scp(extra=Extra(classes=["1.2.3.4.5"], syntaxes=["1.2.3.4.6"]))
    association = associated(entity, server.port, contexts=proposed)
    assert [c.abstract_syntax for c in association.accepted_contexts] == ["1.2.3.4.5"]
    association.release()


def test_roles_are_answered(storage_scp: Callable, entity: Entity) -> None:
    role = build_role(CT, scu_role=True, scp_role=True)
    association = associated(entity, storage_scp().port, ext_neg=[role])
    assert {
        uid: (r.scu_role, r.scp_role) for uid, r in association.acceptor.role_selection.items()
    } == {CT: (True, False)}
    association.release()


# --- refused associations -------------------------------------------------------------------------


@BOTH_FRONTS
@pytest.mark.parametrize(
    "verdict", [status.CALLED_AE_UNKNOWN, status.CALLING_AE_UNKNOWN, status.TEMPORARY_CONGESTION]
)
def test_the_receivers_verdict_is_what_the_peer_is_told(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, verdict: Rejection
) -> None:
    spool_receiver.verdict = verdict
    told = rejection_of(wire, storage_scp().port)
    assert told == (verdict.result, verdict.source, verdict.reason)
    assert spool_receiver.endings == {}


def rejection_of(wire: SimpleNamespace, port: int) -> tuple[int, ...]:
    """Result, source and reason, as they are on the wire."""
    peer = wire.call(port)
    peer.send(wire.associate_rq())
    kind, body = peer.receive()
    assert kind == 3, (kind, body)
    return tuple(body[1:4])


@BOTH_FRONTS
def test_associations_beyond_the_limit_are_rejected_for_now_and_later_accepted(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, entity: Entity
) -> None:
    server = storage_scp(limits=Limits(associations_max=2))
    held = [associated(entity, server.port) for _ in range(2)]
    assert server.active() == 2
    assert rejection_of(wire, server.port) == (2, 3, 2)
    held.pop().release()
    assert until(lambda: server.active() == 1)
    again = associated(entity, server.port)
    assert again.is_established
    for association in (*held, again):
        association.release()


def test_who_was_turned_away_takes_no_place_while_he_stays_connected(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, entity: Entity
) -> None:
    server = storage_scp(limits=Limits(associations_max=1))
    spool_receiver.verdict = Rejection(result=2, source=3, reason=2)
    lingering = wire.call(server.port)
    lingering.send(wire.associate_rq())
    assert lingering.receive()[0] == 3
    spool_receiver.verdict = None
    association = associated(entity, server.port)
    assert association.is_established
    association.release()


def until(so: Callable[[], bool]) -> bool:
    """Wait until something is so; false if it is not so within 20 s."""
    deadline, pause = time.monotonic() + 20, threading.Event()
    while not so() and time.monotonic() < deadline:
        pause.wait(0.01)
    return so()


@pytest.mark.parametrize(
    ("offset", "value", "rejection"),
    [
        (6, b"\x00\x02", (1, 2, 2)),  # protocol version without bit 0
        (10, b"\x01BAD" + b" " * 12, (1, 1, 7)),
        (26, b" " * 16, (1, 1, 3)),
        (78, b"9.9.840.10008.3.1.1.1", (1, 1, 2)),
    ],
)
def test_requests_that_may_not_be_accepted_are_rejected(
    storage_scp: Callable,
    wire: SimpleNamespace,
    offset: int,
    value: bytes,
    rejection: tuple[int, int, int],
) -> None:
    raw = wire.associate_rq()
    peer = wire.call(storage_scp().port)
    peer.send(raw[:offset] + value + raw[offset + len(value) :])
    kind, body = peer.receive()
    assert (kind, tuple(body[1:4])) == (3, rejection)
    assert peer.receive() == (0, b"")


@BOTH_FRONTS
def test_a_receiver_that_fails_is_temporary_congestion(
    storage_scp: Callable,
    spool_receiver,
    wire: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(request: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(spool_receiver, "admit", fails)
    assert rejection_of(wire, storage_scp().port) == (2, 3, 1)


# --- refused objects ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({0x0002: "1.2.840.10008.5.1.4.1.1.4"}, 0x0122),  # not the context's class
        ({0x0002: VERIFICATION}, 0x0122),
        ({0x0002: ""}, 0x0212),
        ({0x1000: ""}, 0x0212),
        ({0x1000: "../../etc/passwd"}, 0x0117),
        ({0x1000: "1." + "2" * 70}, 0x0117),
        ({0x0100: 0x0020}, 0x0211),  # C-FIND
        ({0x0100: 0x0021}, 0x0211),  # C-MOVE
        ({0x0100: 0x0130}, 0x0211),  # N-ACTION
        ({0x0100: 0x0030}, 0x0122),  # C-ECHO on a storage context
    ],
)
def test_a_wrong_request_gets_its_status_and_the_association_lives_on(
    storage_scp: Callable,
    spool_receiver,
    wire: SimpleNamespace,
    changes: dict[int, int | str],
    code: int,
) -> None:
    elements: dict[int, int | str] = {0x0002: CT, 0x0100: 1, 0x0110: 9, 0x0800: 1}
    elements[0x1000] = wire.INSTANCE
    peer = wire.call(storage_scp().port)
    peer.associate()
    message = wire.command_set(elements | changes)
    peer.send(wire.p_data(wire.pdv(message, command=True)))
    peer.send(wire.p_data(wire.pdv(b"refused data set", command=False)))
    answer = peer.response()
    assert int.from_bytes(answer[0x0900], "little") == code
    assert int.from_bytes(answer[0x0120], "little") == 9
    assert spool_receiver.stored == []
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    peer.send(wire.p_data(wire.pdv(b"accepted", command=False)))
    assert peer.status() == 0


def test_a_store_without_a_data_set_is_refused(
    storage_scp: Callable, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    elements = {0x0002: CT, 0x0100: 1, 0x0110: 1, 0x0800: 0x101, 0x1000: wire.INSTANCE}
    peer.send(wire.p_data(wire.pdv(wire.command_set(elements), command=True)))
    assert peer.status() == 0x0212


@BOTH_FRONTS
def test_an_empty_data_set_is_not_stored(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True), wire.pdv(b"", command=False)))
    assert peer.status() == 0xC000
    assert spool_receiver.files() == []


@BOTH_FRONTS
def test_an_object_refused_at_once_is_drained_and_the_next_one_stored(
    storage_scp: Callable, spool_receiver, entity: Entity
) -> None:
    spool_receiver.refusing = StoreAnswer(status=0xA700, comment="below the watermark")
    association = associated(entity, storage_scp().port)
    answer = association.send_c_store(an_image(pixels=400))
    assert (answer.Status, answer.ErrorComment) == (0xA700, "below the watermark")
    spool_receiver.refusing = None
    assert association.send_c_store(an_image(pixels=400)).Status == 0
    association.release()


@BOTH_FRONTS
def test_an_object_over_the_limit_is_refused_and_nothing_of_it_stays(
    storage_scp: Callable, spool_receiver, entity: Entity
) -> None:
    association = associated(entity, storage_scp(limits=Limits(object_bytes=250_000)).port)
    answer = association.send_c_store(an_image(pixels=400))
    assert (answer.Status, answer.ErrorComment) == (0xA700, "object too large")
    assert spool_receiver.files() == []
    assert association.send_c_store(an_image(pixels=300)).Status == 0
    association.release()


def test_a_data_set_without_end_is_aborted(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp(limits=Limits(object_bytes=1000)).port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    peer.send(wire.p_data(wire.pdv(bytes(3000), command=False, last=False)))
    assert peer.receive() == (7, bytes([0, 0, 0, 0]))
    assert spool_receiver.files() == []


NOT_WANTED: dict[str, dict[int, int | str]] = {
    "of another class": {0x0002: "1.2.840.10008.5.1.4.1.1.4"},
    "without an instance": {0x1000: ""},
    "of a query": {0x0100: 0x0020},
    "of a cancel": {0x0100: 0x0FFF},
    "of a response": {0x0100: 0x8001, 0x0120: 1},
    "of no message id": {0x0110: None},
}


@pytest.mark.parametrize("changes", NOT_WANTED.values(), ids=NOT_WANTED)
def test_a_data_set_without_end_is_aborted_whether_or_not_it_is_wanted(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, changes: dict
) -> None:
    limits = Limits(object_bytes=10_000, commitment_bytes=10_000)
    peer = wire.call(storage_scp(limits=limits).port)
    peer.associate()
    elements = {0x0002: CT, 0x0100: 1, 0x0110: 9, 0x0800: 1, 0x1000: wire.INSTANCE} | changes
    command = {number: value for number, value in elements.items() if value is not None}
    peer.send(wire.p_data(wire.pdv(wire.command_set(command), command=True)))
    for _ in range(3):
        peer.send(wire.p_data(wire.pdv(bytes(10_000), command=False, last=False)))
    assert peer.receive() == (7, bytes([0, 0, 0, 0]))
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "malformed"})


class FailingSink:
    def __init__(self, at: str, error: Exception) -> None:
        self.at, self.error, self.aborted = at, error, 0

    def _maybe(self, at: str) -> None:
        if at == self.at:
            raise self.error

    def write(self, chunks: object) -> None:
        self._maybe("write")

    def finish(self) -> StoreAnswer:
        self._maybe("finish")
        return StoreAnswer(status=0)

    def abort(self) -> None:
        self.aborted += 1


@pytest.mark.parametrize("at", ["begin", "write", "finish"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpoolError("the disk is full", full=True), 0xA700),
        (SpoolError("the disk fails"), 0x0110),
        (ZeroDivisionError("Doe^John"), 0x0110),
        (RecursionError(), 0x0110),
    ],
    ids=["full", "failing", "bug", "recursion"],
)
def test_a_failing_sink_is_a_status_and_the_association_lives_on(
    storage_scp: Callable,
    spool_receiver,
    entity: Entity,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at: str,
    error: Exception,
    code: int,
) -> None:
    sink = FailingSink(at, error)
    works = spool_receiver.begin

    def begin(request: StoreRequest) -> FailingSink:
        sink._maybe("begin")
        return sink

    monkeypatch.setattr(spool_receiver, "begin", begin)
    association = associated(entity, storage_scp().port)
    assert association.send_c_store(an_image(pixels=400)).Status == code
    assert sink.aborted == (1 if at == "write" else 0)
    monkeypatch.setattr(spool_receiver, "begin", works)
    assert association.send_c_store(an_image()).Status == 0
    association.release()
    assert "receiver failed" in caplog.text
    assert "Doe" not in caplog.text  # what an exception says may be patient data


def test_unsolicited_responses_and_cancels_are_passed_over(
    storage_scp: Callable, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate(contexts=[(wire.CT, [wire.EXPLICIT]), (VERIFICATION, [wire.EXPLICIT])])
    for field, data_set in ((0x8001, 0x101), (0x0FFF, 0x101), (0x8020, 1)):
        message = wire.command_set({0x0100: field, 0x0120: 1, 0x0800: data_set, 0x0900: 0})
        peer.send(wire.p_data(wire.pdv(message, command=True)))
        if data_set == 1:
            peer.send(wire.p_data(wire.pdv(b"an identifier", command=False)))
    peer.send(wire.p_data(wire.pdv(wire.c_echo(), 3, command=True)))
    assert peer.status() == 0


# --- broken protocol ------------------------------------------------------------------------------


def aborted_for(peer: object) -> tuple[int, int]:
    kind, body = peer.receive()
    assert kind == 7, (kind, body)
    assert peer.receive() == (0, b"")
    return body[2], body[3]


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", 1),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 1),  # TLS on the plain port
        (bytes(1000), 1),
        (b"\xff" * 70000, 1),
        (struct.pack(">BxI", 1, 0xFFFFFFFF) + bytes(5000), 6),
        (struct.pack(">BxI", 1, 40) + bytes(40), 6),
        (bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0]), 2),
    ],
    ids=["http", "tls", "zeros", "ones", "endless", "short", "release"],
)
def test_garbage_is_aborted_with_its_reason(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, garbage: bytes, reason: int
) -> None:
    server = storage_scp()
    peer = wire.call(server.port)
    peer.send(garbage)
    assert aborted_for(peer) == (2, reason)
    assert spool_receiver.requests == []
    echoes(server.port)


def echoes(port: int) -> None:
    """Another peer's C-ECHO is answered."""
    entity = Entity("OTHER")
    entity.acse_timeout = entity.dimse_timeout = 10
    entity.add_requested_context(VERIFICATION)
    association = associated(entity, port)
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()


def test_a_message_on_a_context_that_was_not_accepted_is_aborted(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate(contexts=[(wire.CT, [wire.EXPLICIT]), ("1.2.3", [wire.EXPLICIT])])
    peer.send(wire.p_data(wire.pdv(wire.c_store(), 3, command=True)))
    assert aborted_for(peer) == (2, 6)
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "malformed"})


def test_a_request_without_message_id_is_aborted(
    storage_scp: Callable, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.command_set({0x0100: 0x30, 0x0800: 0x101}), command=True)))
    assert aborted_for(peer) == (2, 6)


def test_a_pdu_longer_than_announced_is_aborted(
    storage_scp: Callable, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp(limits=Limits(pdu_bytes=16384)).port)
    assert peer.associate().user_information.maximum_length == 16384
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    peer.send(struct.pack(">BxI", 4, 16385))
    assert aborted_for(peer) == (2, 6)


def test_a_release_inside_an_object_is_aborted_and_leaves_no_file(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    peer.send(wire.p_data(wire.pdv(b"half", command=False, last=False)))
    peer.send(bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
    assert aborted_for(peer) == (2, 2)
    assert spool_receiver.files() == []


@BOTH_FRONTS
@pytest.mark.parametrize(
    ("how", "ending"), [("abort", "aborted"), ("close", "disconnected"), ("reset", "disconnected")]
)
def test_an_object_cut_off_in_the_middle_leaves_no_file(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, how: str, ending: str
) -> None:
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    for _ in range(5):
        peer.send(wire.p_data(wire.pdv(bytes(10_000), command=False, last=False)))
    if how == "abort":
        peer.send(bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
    elif how == "reset":
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: ending})
    assert spool_receiver.files() == []


# --- time, numbers, the end -----------------------------------------------------------------------


def test_twenty_silent_connections_do_not_block_an_echo(
    storage_scp: Callable, wire: SimpleNamespace
) -> None:
    port = storage_scp().port
    silent = [wire.call(port) for _ in range(20)]
    for number, peer in enumerate(silent):
        peer.send(wire.associate_rq()[: number * 4])  # half-open: some have begun, none is whole
    echoes(port)


def test_the_longest_waiting_connection_gives_way_when_too_many_wait(
    storage_scp: Callable, wire: SimpleNamespace
) -> None:
    port = storage_scp(limits=Limits(crowd=Crowd(total=3))).port
    waiting = [wire.call(port) for _ in range(3)]
    waiting[1].associate()  # is not waiting any more
    waiting += [wire.call(port) for _ in range(2)]
    assert waiting[0].receive() == (0, b"")
    echoes(port)


@pytest.mark.parametrize("sent", [0, 1, 6, 50])
def test_a_connection_that_never_asks_is_closed_without_a_word(
    storage_scp: Callable, wire: SimpleNamespace, sent: int
) -> None:
    peer = wire.call(storage_scp(limits=Limits(associate_s=0.3)).port)
    peer.send(wire.associate_rq()[:sent])
    assert peer.receive() == (0, b"")


def test_a_request_that_drips_in_is_cut_off_at_the_total(
    storage_scp: Callable, wire: SimpleNamespace
) -> None:
    peer = wire.call(storage_scp(limits=Limits(associate_s=0.5)).port)
    over = threading.Event()

    def drip() -> None:
        for byte in wire.associate_rq():
            try:
                peer.send(bytes([byte]))
            except OSError:
                break
            if over.wait(0.1):
                break

    dripping = threading.Thread(target=drip)
    dripping.start()
    assert peer.receive() == (0, b"")
    over.set()
    dripping.join()


@pytest.mark.parametrize("state", ["idle", "in a PDU", "in an object"])
def test_an_association_that_falls_silent_is_aborted(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace, state: str
) -> None:
    patience = Patience(idle_s=60, pdu_s=0.3) if state == "in a PDU" else Patience(idle_s=0.3)
    limits = Limits(patience=patience)
    peer = wire.call(storage_scp(limits=limits).port)
    peer.associate()
    if state != "idle":
        peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
        data = wire.p_data(wire.pdv(bytes(1000), command=False, last=False))
        peer.send(data[:-1] if state == "in a PDU" else data)
    assert aborted_for(peer) == (2, 0)
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "timed out"})
    assert spool_receiver.files() == []


@BOTH_FRONTS
def test_stop_lets_associations_end_and_aborts_those_that_do_not(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    server = storage_scp()
    peer = wire.call(server.port)
    peer.associate()
    silent = wire.call(server.port)
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    server.stop(0.1)
    assert aborted_for(peer) == (0, 0)
    assert silent.receive() == (0, b"")
    assert spool_receiver.endings == {1: "stopped"}  # told before stop() returned
    assert server.active() == 0
    with pytest.raises(ConnectionRefusedError):
        wire.call(server.port)


def test_a_port_that_is_taken_is_a_mistake_of_the_configuration(
    storage_scp: Callable, spool_receiver
) -> None:
    taken = storage_scp().port
    with pytest.raises(ConfigurationError, match="cannot listen"):
        serve_storage(ae_title="OTHER", host="127.0.0.1", port=taken, receiver=spool_receiver)


def resident_bytes() -> int:
    fields = Path("/proc/self/status").read_text()
    return int(fields.split("VmRSS:")[1].split()[0]) * 1024


def test_memory_stays_flat_for_a_multi_frame_object_of_300_mb(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    piece = bytes(131072 - 6)
    pdu = wire.p_data(wire.pdv(piece, command=False, last=False))
    peer = wire.call(storage_scp().port)
    peer.associate()
    peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
    peer.send(pdu)
    before = peak = resident_bytes()
    count = 300_000_000 // len(piece)
    for number in range(count):
        peer.send(pdu)
        if number % 100 == 0:
            peak = max(peak, resident_bytes())
    peer.send(wire.p_data(wire.pdv(b"", command=False)))
    assert peer.status() == 0
    peak = max(peak, resident_bytes())
    ((_, stored),) = spool_receiver.stored
    assert stored.size > 300_000_000 - len(piece)
    assert peak - before < 32 * 1024 * 1024
    spool_receiver.spool.remove(stored.path)


def test_threads_and_descriptors_are_back_after_many_associations(
    storage_scp: Callable, spool_receiver, wire: SimpleNamespace
) -> None:
    port = storage_scp().port

    def some_associations(count: int, so_far: int) -> None:
        for number in range(count):
            peer = wire.call(port)
            peer.associate()
            peer.send(wire.p_data(wire.pdv(wire.c_store(), command=True)))
            if number % 2:
                peer.send(bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
            peer.close()
        assert spool_receiver.wait(lambda: len(spool_receiver.endings) == so_far + count)

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    some_associations(5, 0)
    before = descriptors()
    some_associations(60, 5)
    for thread in threading.enumerate():
        if thread.name.startswith("association"):
            thread.join(20)
    assert descriptors() <= before
    assert spool_receiver.files() == []
