"""Our SCU against DCMTK's and Orthanc's servers: store, echo, find, move, get."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.dimse.scu import Phase, echo, find, get, move, store
from dicom_node.domain.records import Peer
from dicom_node.testing.series import Header, Pixels, a_series, items_of, write_files
from raw.ports import free_port

pytestmark = pytest.mark.peer

DCMQRSCP = "/usr/bin/dcmqrscp"
RLE = "1.2.840.10008.1.2.5"


def by_uid(images: Sequence[Dataset]) -> dict[str, bytes]:
    return {image.SOPInstanceUID: image.PixelData for image in images}


def a_peer(ae_title: str, port: int) -> Peer:
    return Peer(name="peer", ae_title=ae_title, host="127.0.0.1", port=port)


def test_storescp_is_echoed(storescp: Callable) -> None:
    port, _ = storescp()
    assert echo(peer=a_peer("STORESCP", port), calling_ae="US").succeeded


@pytest.mark.parametrize("options", [(), ("+xa",), ("-pdu", "4096")], ids=["plain", "all", "small"])
def test_a_series_is_stored_on_storescp(
    storescp: Callable, tmp_path: Path, options: tuple[str, ...]
) -> None:
    paths = write_files(tmp_path / "ct", a_series(5))
    port, folder = storescp(*options)
    outcomes = store(peer=a_peer("STORESCP", port), calling_ae="US", items=items_of(paths))
    assert all(outcome.succeeded for outcome in outcomes), outcomes
    assert by_uid([dcmread(p) for p in folder.iterdir()]) == by_uid([dcmread(p) for p in paths])


@pytest.mark.parametrize(("options", "kept_syntax"), [((), None), (("+xr",), RLE)])
def test_compressed_objects_go_as_they_are_or_decompressed_where_they_are_not_taken(
    storescp: Callable, tmp_path: Path, options: tuple[str, ...], kept_syntax: str | None
) -> None:
    plain = a_series(3)
    paths = write_files(tmp_path / "ct", a_series(3, pixels=Pixels(transfer_syntax=RLE)))
    port, folder = storescp(*options)
    outcomes = store(peer=a_peer("STORESCP", port), calling_ae="US", items=items_of(paths))
    assert all(outcome.succeeded for outcome in outcomes)
    stored = [dcmread(p) for p in folder.iterdir()]
    if kept_syntax:
        assert {image.file_meta.TransferSyntaxUID for image in stored} == {kept_syntax}
        assert by_uid(stored) == by_uid([dcmread(path) for path in paths])
    else:
        assert by_uid(stored) == by_uid(plain)


def test_a_storescp_that_aborts_is_an_abort(storescp: Callable, tmp_path: Path) -> None:
    paths = write_files(tmp_path / "ct", a_series(2))
    port, _ = storescp("--abort-during")
    outcomes = store(peer=a_peer("STORESCP", port), calling_ae="US", items=items_of(paths))
    assert {outcome.phase for outcome in outcomes} == {Phase.ABORT}


def test_a_storescp_that_refuses_is_a_rejection(storescp: Callable) -> None:
    port, _ = storescp("--refuse")
    outcome = echo(peer=a_peer("STORESCP", port), calling_ae="US")
    assert outcome.phase is Phase.REJECT
    assert outcome.rejection is not None


def test_orthanc_takes_what_we_send(orthanc, tmp_path: Path) -> None:
    paths = write_files(tmp_path / "ct", a_series(4))
    peer = a_peer(orthanc.ae_title, orthanc.dicom_port)
    outcomes = store(peer=peer, calling_ae="US", items=items_of(paths))
    assert all(outcome.succeeded for outcome in outcomes)
    orthanc.wait_for(4)
    found = find(
        peer=peer,
        calling_ae="US",
        level="SERIES",
        keys={"StudyInstanceUID": Header().study_uid, "NumberOfSeriesRelatedInstances": ""},
    )
    assert found.outcome.succeeded
    assert [match["NumberOfSeriesRelatedInstances"] for match in found.matches] == [4]


# --- DCMTK's archive ------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Callable[[int], Peer]]:
    """Starts dcmqrscp, which knows DICOMNODE at the given port as a destination."""
    if not Path(DCMQRSCP).is_file():
        pytest.skip("dcmqrscp is not installed")
    started: list[subprocess.Popen[bytes]] = []

    def start(destination_port: int) -> Peer:
        port = free_port()
        (tmp_path / "archive").mkdir()
        configuration = tmp_path / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
            f"HostTable BEGIN\nnode = (DICOMNODE, 127.0.0.1, {destination_port})\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nQRSCP {tmp_path / 'archive'} RW (200, 1024mb) ANY\nAETable END\n"
        )
        started.append(
            subprocess.Popen(
                [DCMQRSCP, "-c", str(configuration)],
                env=os.environ | {"TCP_NODELAY": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        peer = a_peer("QRSCP", port)
        until, pause = time.monotonic() + 30, threading.Event()
        while not echo(peer=peer, calling_ae="DICOMNODE").succeeded:
            assert started[-1].poll() is None, "dcmqrscp ended"
            assert time.monotonic() < until, "dcmqrscp does not answer"
            pause.wait(0.1)
        return peer

    yield start
    for process in started:
        process.terminate()
        process.wait(20)
    shutil.rmtree(tmp_path / "archive", ignore_errors=True)


@pytest.fixture
def filled(
    archive: Callable[[int], Peer], storage_scp: Callable, tmp_path: Path
) -> tuple[Peer, list[Path]]:
    """An archive with a study of two series, and the files that are in it."""
    series = [*a_series(3), *a_series(2, header=Header(series="other"))]
    paths = write_files(tmp_path / "ct", series)
    peer = archive(storage_scp().port)
    outcomes = store(peer=peer, calling_ae="DICOMNODE", items=items_of(paths))
    assert all(outcome.succeeded for outcome in outcomes)
    return peer, paths


def study_of(paths: Sequence[Path]) -> str:
    return str(dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)


def test_the_archive_is_queried_on_every_level(filled: tuple[Peer, list[Path]]) -> None:
    peer, paths = filled
    study = study_of(paths)
    studies = find(
        peer=peer,
        calling_ae="DICOMNODE",
        level="STUDY",
        keys={"StudyInstanceUID": "", "PatientID": ""},
    )
    assert studies.outcome.succeeded
    assert [match["StudyInstanceUID"] for match in studies.matches] == [study]
    series = find(
        peer=peer,
        calling_ae="DICOMNODE",
        level="SERIES",
        keys={"StudyInstanceUID": study, "SeriesInstanceUID": "", "Modality": "CT"},
    )
    assert len(series.matches) == 2
    one = str(dcmread(paths[0]).SeriesInstanceUID)
    images = find(
        peer=peer,
        calling_ae="DICOMNODE",
        level="IMAGE",
        keys={"StudyInstanceUID": study, "SeriesInstanceUID": one, "SOPInstanceUID": ""},
    )
    assert {m["SOPInstanceUID"] for m in images.matches} == {
        i.sop_instance_uid for i in items_of(paths[:3])
    }


def test_a_study_is_moved_to_our_scp(filled: tuple[Peer, list[Path]], spool_receiver) -> None:
    peer, paths = filled
    *_, last = move(
        peer=peer,
        calling_ae="DICOMNODE",
        level="STUDY",
        keys={"StudyInstanceUID": study_of(paths)},
        destination_ae="DICOMNODE",
    )
    assert last.outcome is not None
    assert last.outcome.succeeded
    assert (last.completed, last.failed) == (5, 0)
    received = [dcmread(spool_receiver.spool.path(s.path)) for _, s in spool_receiver.stored]
    assert by_uid(received) == by_uid([dcmread(path) for path in paths])


def test_a_move_to_an_unknown_destination_fails_with_its_status(
    filled: tuple[Peer, list[Path]],
) -> None:
    peer, paths = filled
    *_, last = move(
        peer=peer,
        calling_ae="DICOMNODE",
        level="STUDY",
        keys={"StudyInstanceUID": study_of(paths)},
        destination_ae="NOBODY",
    )
    assert last.outcome is not None
    assert last.outcome.status == 0xA801


def test_one_series_is_got_over_the_same_association(
    filled: tuple[Peer, list[Path]], spool_receiver
) -> None:
    peer, paths = filled
    head = dcmread(paths[4], stop_before_pixels=True)
    *_, last = get(
        peer=peer,
        calling_ae="DICOMNODE",
        level="SERIES",
        keys={
            "StudyInstanceUID": head.StudyInstanceUID,
            "SeriesInstanceUID": head.SeriesInstanceUID,
        },
        receive=spool_receiver.begin,
    )
    assert last.outcome is not None
    assert last.outcome.succeeded, last.outcome.detail
    assert last.completed == 2
    received = [dcmread(spool_receiver.spool.path(s.path)) for _, s in spool_receiver.stored]
    assert by_uid(received) == by_uid([dcmread(path) for path in paths[3:]])
