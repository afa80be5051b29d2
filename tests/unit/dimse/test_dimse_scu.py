"""The SCU: what it sends, and the facts it reports when a peer refuses, aborts or falls silent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import RLELossless
from pynetdicom import AE, build_context, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ

from dicom_node.dimse import status
from dicom_node.dimse.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE, UNCOMPRESSED, VERIFICATION
from dicom_node.dimse.contract import Sink, StoreAnswer, StoreRequest
from dicom_node.dimse.requestor import associated
from dicom_node.dimse.scp import Extra
from dicom_node.dimse.scu import (
    Phase,
    StoreItem,
    StoreOutcome,
    Timeouts,
    echo,
    find,
    get,
    move,
    store,
)
from dicom_node.domain.errors import PeerError
from dicom_node.domain.records import Peer

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
SHORT = Timeouts(connect_s=2, associate_s=0.5, answer_s=0.5)
STUDY = {"StudyInstanceUID": "1.2.3"}


def a_peer(port: int) -> Peer:
    return Peer(name="peer", ae_title="DICOMNODE", host="127.0.0.1", port=port)


def an_item(
    folder: Path, number: int = 1, syntax: str = EXPLICIT_LITTLE, sop_class: str = CT
) -> StoreItem:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = sop_class, f"1.2.826.0.1.3680043.2.2.{number}"
    image.PatientName = "Phantom"
    image.Rows = image.Columns = 64
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = np.arange(64 * 64, dtype="<u2").tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    if syntax == RLELossless:
        image.compress(RLELossless, generate_instance_uid=False)
    image.file_meta.TransferSyntaxUID = syntax
    path = folder / f"{number}.dcm"
    image.save_as(path, enforce_file_format=True)
    return StoreItem(
        sop_class_uid=sop_class,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax_uid=syntax,
        path=path,
    )


def data_set_of(path: Path) -> bytes:
    """The bytes behind the file meta."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[140:144], "little")
    return raw[144 + length :]


@pytest.fixture
def foreign() -> Iterator[Callable[..., Peer]]:
    """Starts stock pynetdicom servers with the given contexts and handlers."""
    servers = []

    def start(contexts: list, handlers: list) -> Peer:
        entity = AE("DICOMNODE")
        server = entity.start_server(
            ("127.0.0.1", 0), block=False, contexts=contexts, evt_handlers=handlers
        )
        servers.append(server)
        return a_peer(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def mute() -> Iterator[Callable[[bytes | None], Peer]]:
    """Starts a listener that answers each connection's first bytes with the given bytes, or not."""
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: bytes | None) -> Peer:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                sockets.append(connection)
                connection.recv(65536)
                if answer is not None:
                    connection.sendall(answer)
                    connection.close()

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return a_peer(listening.getsockname()[1])

    yield start
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
    for thread in threads:
        thread.join()


def test_an_echo_is_answered(storage_scp: Callable, spool_receiver) -> None:
    outcome = echo(peer=a_peer(storage_scp().port), calling_ae="US")
    assert outcome.succeeded
    assert spool_receiver.requests[0].calling_ae == "US"


def test_each_way_to_fail_is_told_apart(
    storage_scp: Callable, spool_receiver, mute: Callable, foreign: Callable
) -> None:
    def phase_of(peer: Peer) -> Phase:
        return echo(peer=peer, calling_ae="US", timeouts=SHORT).phase

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert phase_of(a_peer(port)) is Phase.CONNECT
    assert phase_of(mute(bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 0]))) is Phase.ABORT
    assert phase_of(mute(b"")) is Phase.ABORT
    assert phase_of(mute(None)) is Phase.TIMEOUT
    assert phase_of(foreign([build_context(CT)], [])) is Phase.NO_CONTEXT
    spool_receiver.verdict = status.CALLING_AE_UNKNOWN
    rejected = echo(peer=a_peer(storage_scp().port), calling_ae="US")
    assert (rejected.phase, rejected.rejection) == (Phase.REJECT, status.CALLING_AE_UNKNOWN)
    assert "calling AE title" in rejected.detail


def test_a_rejection_faster_than_pynetdicom_looks_is_still_a_rejection(
    storage_scp: Callable, spool_receiver
) -> None:
    spool_receiver.verdict = status.CALLED_AE_UNKNOWN
    rejected, gone = threading.Event(), threading.Event()

    def received(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejected.set()

    def closed(event: evt.Event) -> None:
        if rejected.is_set():
            gone.set()

    held_up = [
        (evt.EVT_REQUESTED, lambda _event: gone.wait(10)),
        (evt.EVT_PDU_RECV, received),
        (evt.EVT_CONN_CLOSE, closed),
    ]
    with associated(
        peer=a_peer(storage_scp().port),
        calling_ae="US",
        contexts=[build_context(VERIFICATION)],
        timeouts=Timeouts(),
        handlers=held_up,
    ) as requestor:
        assert gone.is_set()
        assert not requestor.association.is_rejected  # what pynetdicom makes of it
        assert requestor.failure is not None
        assert requestor.failure.phase is Phase.REJECT
        assert requestor.failure.rejection == status.CALLED_AE_UNKNOWN


def test_an_echo_that_is_not_answered_times_out(foreign: Callable) -> None:
    over = threading.Event()
    handlers = [(evt.EVT_C_ECHO, lambda _event: int(over.wait(20)) * 0)]
    outcome = echo(
        peer=foreign([build_context(VERIFICATION)], handlers), calling_ae="US", timeouts=SHORT
    )
    over.set()
    assert outcome.phase is Phase.TIMEOUT


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, RLELossless])
def test_objects_are_sent_byte_for_byte(
    storage_scp: Callable, spool_receiver, tmp_path: Path, syntax: str
) -> None:
    items = [an_item(tmp_path, number, syntax) for number in range(5)]
    told: list[StoreOutcome] = []
    outcomes = store(
        peer=a_peer(storage_scp().port), calling_ae="US", items=items, on_outcome=told.append
    )
    assert outcomes == told
    assert [o.sop_instance_uid for o in outcomes] == [i.sop_instance_uid for i in items]
    assert all(o.succeeded for o in outcomes), [o for o in outcomes if not o.succeeded]
    assert len(spool_receiver.requests) == 1
    for item, (request, stored) in zip(items, spool_receiver.stored, strict=True):
        assert request.transfer_syntax_uid == syntax
        received = spool_receiver.spool.path(stored.path)
        assert received.read_bytes().endswith(data_set_of(item.path))


@pytest.mark.parametrize("taken", UNCOMPRESSED)
@pytest.mark.parametrize("held", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, str(RLELossless)])
def test_what_a_peer_does_not_take_is_converted(
    foreign: Callable, tmp_path: Path, held: str, taken: str
) -> None:
    got: list[tuple[str, Dataset]] = []

    def keep(event: evt.Event) -> int:
        got.append((str(event.context.transfer_syntax), event.dataset))
        return 0

    peer = foreign([build_context(CT, taken)], [(evt.EVT_C_STORE, keep)])
    item = an_item(tmp_path, 1, held)
    (outcome,) = store(peer=peer, calling_ae="US", items=[item])
    assert outcome.succeeded
    ((syntax, image),) = got
    assert syntax == taken
    assert image.SOPInstanceUID == item.sop_instance_uid
    assert image.PixelData == np.arange(64 * 64, dtype="<u2").tobytes()


def test_a_class_that_the_peer_does_not_take_is_told_and_the_others_are_sent(
    foreign: Callable, tmp_path: Path
) -> None:
    peer = foreign([build_context(CT, EXPLICIT_LITTLE)], [(evt.EVT_C_STORE, lambda _event: 0)])
    items = [an_item(tmp_path, 1, sop_class="1.2.840.10008.5.1.4.1.1.4"), an_item(tmp_path, 2)]
    outcomes = store(peer=peer, calling_ae="US", items=items)
    assert [o.phase for o in outcomes] == [Phase.NO_CONTEXT, Phase.STATUS]


def test_a_compressed_object_for_a_peer_without_any_fitting_syntax_is_no_context(
    foreign: Callable, tmp_path: Path
) -> None:
    peer = foreign(
        [build_context(CT, "1.2.840.10008.1.2.4.50"), build_context(VERIFICATION)],
        [(evt.EVT_C_STORE, lambda _event: 0)],
    )
    (outcome,) = store(peer=peer, calling_ae="US", items=[an_item(tmp_path, 1, RLELossless)])
    assert outcome.phase is Phase.NO_CONTEXT


def test_statuses_and_comments_come_back_as_they_are(
    storage_scp: Callable, spool_receiver, tmp_path: Path
) -> None:
    spool_receiver.refusing = StoreAnswer(status=0xA700, comment="the shelf is full")
    (outcome,) = store(peer=a_peer(storage_scp().port), calling_ae="US", items=[an_item(tmp_path)])
    assert (outcome.phase, outcome.status, outcome.comment) == (
        Phase.STATUS,
        0xA700,
        "the shelf is full",
    )
    assert outcome.detail == "status 0xA700 (out of resources): the shelf is full"


def test_a_file_that_is_gone_is_our_fault_and_the_next_one_is_sent(
    storage_scp: Callable, tmp_path: Path
) -> None:
    items = [an_item(tmp_path, 1), an_item(tmp_path, 2)]
    items[0].path.unlink()
    outcomes = store(peer=a_peer(storage_scp().port), calling_ae="US", items=items)
    assert [o.phase for o in outcomes] == [Phase.OBJECT, Phase.STATUS]


def test_one_object_that_makes_the_peer_abort_does_not_hold_up_the_others(
    foreign: Callable, tmp_path: Path
) -> None:
    def picky(event: evt.Event) -> int:
        if str(event.request.AffectedSOPInstanceUID).endswith(".1"):
            event.assoc.abort()
        return 0

    peer = foreign([build_context(CT, EXPLICIT_LITTLE)], [(evt.EVT_C_STORE, picky)])
    items = [an_item(tmp_path, number) for number in range(4)]
    outcomes = store(peer=peer, calling_ae="US", items=items)
    assert [o.phase for o in outcomes] == [Phase.STATUS, Phase.ABORT, Phase.STATUS, Phase.STATUS]
    assert all(o.associated for o in outcomes)


def test_a_silent_peer_costs_one_timeout_for_the_whole_batch(
    mute: Callable, tmp_path: Path
) -> None:
    items = [an_item(tmp_path, number) for number in range(4)]
    outcomes = store(peer=mute(None), calling_ae="US", items=items, timeouts=SHORT)
    assert [o.phase for o in outcomes] == [Phase.TIMEOUT] * 4
    assert not any(o.associated for o in outcomes)


def test_without_any_common_context_there_was_an_association_all_the_same(
    foreign: Callable, tmp_path: Path
) -> None:
    peer = foreign([build_context(MR)], [])
    (outcome,) = store(peer=peer, calling_ae="US", items=[an_item(tmp_path)], timeouts=SHORT)
    assert (outcome.phase, outcome.associated) == (Phase.NO_CONTEXT, True)


def test_more_classes_than_an_association_holds_go_over_several(
    storage_scp: Callable, spool_receiver, tmp_path: Path
) -> None:
    classes = [f"1.2.3.4.{number}" for number in range(1, 151)]
    items = [an_item(tmp_path, n, sop_class=uid) for n, uid in enumerate(classes)]
    port = storage_scp(extra=Extra(classes=classes)).port
    outcomes = store(peer=a_peer(port), calling_ae="US", items=items)
    assert all(o.succeeded for o in outcomes), [o for o in outcomes if not o.succeeded]
    assert len(spool_receiver.requests) == 3  # two contexts a class, 128 an association


def test_nothing_to_send_opens_nothing() -> None:
    assert store(peer=a_peer(1), calling_ae="US", items=[]) == []


# --- query and retrieve ---------------------------------------------------------------------------

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"


def test_matches_are_plain_values_in_the_peers_character_set(foreign: Callable) -> None:
    asked: list[Dataset] = []

    def answer(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked.append(event.identifier)
        match = Dataset()
        match.SpecificCharacterSet = "ISO_IR 100"
        match.QueryRetrieveLevel = "STUDY"
        match.PatientName = "M\u00fcller^Jos\u00e9"
        match.StudyInstanceUID = "1.2.3"
        match.ModalitiesInStudy = ["CT", "SEG"]
        match.NumberOfStudyRelatedInstances = 93
        match.PatientWeight = "71.5"
        match.AccessionNumber = ""
        yield 0xFF00, match

    found = find(
        peer=foreign([build_context(FIND)], [(evt.EVT_C_FIND, answer)]),
        calling_ae="US",
        level="STUDY",
        keys={"PatientName": "M\u00fcl*", "StudyDate": "20240101-", "ModalitiesInStudy": ""},
    )
    assert found.outcome.succeeded
    assert found.matches == (
        {
            "SpecificCharacterSet": "ISO_IR 100",
            "QueryRetrieveLevel": "STUDY",
            "PatientName": "M\u00fcller^Jos\u00e9",
            "StudyInstanceUID": "1.2.3",
            "ModalitiesInStudy": ("CT", "SEG"),
            "NumberOfStudyRelatedInstances": 93,
            "PatientWeight": 71.5,
            "AccessionNumber": "",
        },
    )
    assert asked[0].PatientName == "M\u00fcl*"
    assert (asked[0].StudyDate, asked[0].QueryRetrieveLevel) == ("20240101-", "STUDY")


def test_a_query_with_too_many_matches_is_cancelled(foreign: Callable) -> None:
    def endless(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(20):
            match = Dataset()
            match.StudyInstanceUID = f"1.2.{number}"
            yield 0xFF00, match
        deadline = time.monotonic() + 30
        while not event.is_cancelled:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        yield 0xFE00, None

    found = find(
        peer=foreign([build_context(FIND)], [(evt.EVT_C_FIND, endless)]),
        calling_ae="US",
        level="STUDY",
        keys={"StudyInstanceUID": ""},
        matches_max=5,
    )
    assert len(found.matches) == 5
    assert found.cut
    assert found.outcome.status == 0xFE00


def test_a_move_yields_its_progress_and_its_end(foreign: Callable) -> None:
    def moves(event: evt.Event) -> Iterator[object]:
        yield None, None  # an unknown destination

    peer = foreign([build_context(MOVE)], [(evt.EVT_C_MOVE, moves)])
    *pending, last = move(
        peer=peer, calling_ae="US", level="STUDY", keys=STUDY, destination_ae="NOBODY"
    )
    assert pending == []
    assert last.outcome is not None
    assert last.outcome.status == 0xA801


class ListSink:
    def __init__(self, kept: list[bytes]) -> None:
        self.kept, self.parts = kept, b""

    def write(self, chunks: object) -> None:
        self.parts += b"".join(chunks)

    def finish(self) -> StoreAnswer:
        self.kept.append(self.parts)
        return StoreAnswer(status=0)

    def abort(self) -> None:
        self.parts = b""


def test_a_get_writes_each_object_to_a_sink(foreign: Callable, tmp_path: Path) -> None:
    images = [dcmread(an_item(tmp_path, number).path) for number in range(3)]

    def gets(event: evt.Event) -> Iterator[object]:
        yield len(images)
        for image in images:
            yield 0xFF00, image

    kept: list[bytes] = []
    requests: list[StoreRequest] = []

    def receive(request: StoreRequest) -> Sink | StoreAnswer:
        requests.append(request)
        if request.sop_instance_uid.endswith(".1"):
            return StoreAnswer(status=0xA700, comment="full")
        return ListSink(kept)

    images_as_scu = build_context(CT, EXPLICIT_LITTLE)
    images_as_scu.scu_role, images_as_scu.scp_role = False, True  # of the requestor
    peer = foreign([build_context(GET), images_as_scu], [(evt.EVT_C_GET, gets)])
    *pending, last = get(
        peer=peer,
        calling_ae="US",
        level="STUDY",
        keys=STUDY,
        receive=receive,
        sop_classes=[CT],
    )
    assert last.outcome is not None
    assert (last.completed, last.failed) == (2, 1)
    assert last.failed_uids == (images[1].SOPInstanceUID,)
    assert len(pending) == 3
    assert [r.sop_instance_uid for r in requests] == [i.SOPInstanceUID for i in images]
    (tmp_path / "got.dcm").write_bytes(kept[1])
    assert dcmread(tmp_path / "got.dcm").PixelData == images[2].PixelData


WRONG_KEYS = {
    "no key": ("STUDY", {}),
    "empty": ("STUDY", {"StudyInstanceUID": ""}),
    "wildcard": ("STUDY", {"StudyInstanceUID": "1.2.*"}),
    "parent missing": ("SERIES", {"SeriesInstanceUID": "1.2.3.4"}),
    "list above the level": (
        "SERIES",
        {"StudyInstanceUID": ["1.2.3", "1.2.4"], "SeriesInstanceUID": "1.2.3.4"},
    ),
    "wildcard in a list": ("STUDY", {"StudyInstanceUID": ["1.2.3", "1.*"]}),
    "patient in study root": ("STUDY", {"StudyInstanceUID": "1.2.3", "PatientID": "1"}),
    "no such level": ("PATIENT", {"PatientID": "1"}),
}


@pytest.mark.parametrize("case", WRONG_KEYS)
def test_a_retrieval_with_wrong_keys_is_refused_before_anything_is_sent(case: str) -> None:
    level, keys = WRONG_KEYS[case]
    with pytest.raises(PeerError) as refused:
        move(peer=a_peer(1), calling_ae="US", level=level, keys=keys, destination_ae="X")
    assert refused.value.permanent
    with pytest.raises(PeerError):
        get(peer=a_peer(1), calling_ae="US", level=level, keys=keys, receive=lambda _request: None)


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("SERIES", {"Modality": "CT"}),
        ("IMAGE", {"StudyInstanceUID": "1.2.3", "SOPInstanceUID": ""}),
        ("STUDY", {"NoSuchKeyword": "x"}),
    ],
    ids=["study missing", "series missing", "unknown keyword"],
)
def test_a_query_with_wrong_keys_is_refused_before_anything_is_sent(
    level: str, keys: dict[str, str]
) -> None:
    with pytest.raises(PeerError):
        find(peer=a_peer(1), calling_ae="US", level=level, keys=keys)


def test_several_uids_of_the_level_are_a_list(foreign: Callable) -> None:
    asked: list[Dataset] = []

    def moves(event: evt.Event) -> Iterator[object]:
        asked.append(event.identifier)
        yield None, None

    peer = foreign([build_context(MOVE)], [(evt.EVT_C_MOVE, moves)])
    keys = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": ["1.2.3.4", "1.2.3.5"]}
    list(move(peer=peer, calling_ae="US", level="SERIES", keys=keys, destination_ae="X"))
    assert list(asked[0].SeriesInstanceUID) == ["1.2.3.4", "1.2.3.5"]


def test_no_identifier_is_logged(foreign: Callable, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    peer = foreign([build_context(FIND)], [(evt.EVT_C_FIND, lambda _event: iter(()))])
    find(peer=peer, calling_ae="US", level="STUDY", keys={"PatientName": "SECRET^NAME"})
    assert "SECRET" not in caplog.text
