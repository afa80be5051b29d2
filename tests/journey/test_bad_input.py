"""Bad input meets the whole node: each gets its status or its reason, and good series still pass.

One node is shared; after each test it must still echo, and at the end still make a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, MRImageStorage, SecondaryCaptureImageStorage

from dicom_node.cli.why import why
from dicom_node.dimse.scu import echo, store
from dicom_node.domain.records import Peer
from dicom_node.domain.states import StepState
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import Header, a_localizer, a_series, items_of, write_files

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
CT = "1.2.840.10008.5.1.4.1.1.2"
SHORT_LIMITS = """
[engine]
max_attempts = 2
step_limit_s = 2
"""


class House:
    """A node, its PACS, and what tests ask of them."""

    def __init__(self, node, pacs) -> None:
        self.node, self.pacs = node, pacs

    def peer(self, called: str = "DICOMNODE") -> Peer:
        return Peer(name="node", ae_title=called, host="127.0.0.1", port=self.node.port)

    def send(self, objects, calling: str = "TESTPACS") -> list[int]:
        return send_series(self.node.address, "DICOMNODE", objects, calling_ae=calling)

    def send_files(self, paths):
        """Bytes as they are in the files, whatever they are."""
        return store(peer=self.peer(), calling_ae="TESTPACS", items=items_of(paths))

    def echoes(self) -> bool:
        return echo(peer=self.peer(), calling_ae="TESTPACS").succeeded

    def told(self, what: str) -> str:
        """What an administrator reads."""
        done = CliRunner().invoke(why, [what, "--config", str(self.node.config_path)])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    def verdict(self, what: str) -> str:
        """The sentence under the head of the story."""
        done = CliRunner().invoke(why, [what, "--json", "--config", str(self.node.config_path)])
        return str(json.loads(done.stdout)[0]["verdict"])

    def judged(self, series, state: str = "COMPLETE") -> str:
        """Wait until the series has its final verdict, and give its sentence."""
        uid, views = series[0].SeriesInstanceUID, self.node.running.catalog.views

        def settled() -> bool:
            known = views.series(uid)
            open_states = ("SCHEDULED", "IN PROGRESS")
            return (
                known is not None
                and known.state == state
                and not any(step.state in open_states for step in views.steps(uid))
            )

        self.node.wait(settled)
        return self.verdict(uid)

    def segs(self, series) -> list[pydicom.Dataset]:
        uid = series[0].SeriesInstanceUID
        return self.pacs.made_from(uid, SEG)

    def still_works(self, seed: int) -> None:
        """It echoes, and a good series gets its one result."""
        assert self.echoes()
        good = series(seed)
        assert set(self.send(good)) == {0}
        uid = good[0].SeriesInstanceUID
        self.node.wait(lambda: "pacs has it" in self.node.why(uid))
        assert len(self.segs(good)) == 1


def series(seed: int, slices: int = 6, **more):
    return a_series(slices, header=Header(seed=seed, **more))


@pytest.fixture(scope="module")
def shared(tmp_path_factory, build):
    folder = tmp_path_factory.mktemp("shared")
    with LocalPacs(folder / "pacs", ae_title="TESTPACS") as pacs:
        peers = build.peer_table("pacs", "TESTPACS", pacs.port)
        peers += build.peer_table("viewer", "VIEWER", 104, may="[]")
        routes = build.route + build.route.replace('"lungs"', '"heads"').replace(
            "'Modality == \"CT\"'", "'BodyPartExamined == \"HEAD\"'"
        )
        with build.a_node(folder / "node", peers=peers, routes=routes) as node:
            house = House(node, pacs)
            yield house
            house.still_works(999)


@pytest.fixture
def house(shared):
    yield shared
    assert shared.echoes()


# --- at the door ----------------------------------------------------------------------------------

TLS_HELLO = bytes.fromhex("16030100c8010000c403035f") + bytes(190)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        np.random.default_rng(3).bytes(4096),
        TLS_HELLO,
        b"\x04\x00\x00\x00\x00\x06" + bytes(6),  # P-DATA before any association
        b"",
    ],
    ids=("http", "noise", "tls", "too early", "nothing"),
)
def test_who_does_not_speak_dicom_is_hung_up_on(house, said):
    with socket.create_connection(house.node.address, 10) as caller:
        caller.sendall(said)
        caller.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while more := caller.recv(4096):
                answer += more
        except ConnectionResetError:
            pass
    assert answer == b"" or answer[0] == 7, "nothing, or an A-ABORT"


def test_another_called_ae_title_is_rejected_as_the_standard_says(house):
    outcome = echo(peer=house.peer("OTHER"), calling_ae="TESTPACS")
    assert outcome.rejection is not None
    found = (outcome.rejection.result, outcome.rejection.source, outcome.rejection.reason)
    assert found == (1, 1, 7)
    assert house.verdict("TESTPACS") == (
        "TESTPACS at 127.0.0.1, calling OTHER, was rejected: this node is called DICOMNODE"
    )


def test_a_stranger_is_rejected_and_told_of(house):
    assert echo(peer=house.peer(), calling_ae="STRANGER").succeeded, "IT may probe"
    with pytest.raises(ConnectionError, match="did not accept"):
        house.send(series(1), calling="STRANGER")
    assert "STRANGER at 127.0.0.1, calling DICOMNODE, was rejected" in house.verdict("STRANGER")
    assert "[[peer]]" in house.verdict("STRANGER"), "what to do about it"


def test_a_peer_that_may_not_store_is_told_so(house):
    objects = series(1)
    assert set(house.send(objects, calling="VIEWER")) == {0x0124}
    told = house.verdict(objects[0].SOPInstanceUID)
    assert "from VIEWER was refused with 0x0124" in told
    assert '"store"' in told
    assert echo(peer=house.peer(), calling_ae="VIEWER").succeeded


# --- objects --------------------------------------------------------------------------------------


def test_a_data_set_that_ends_inside_its_pixel_data_is_refused(house, tmp_path):
    objects = series(2)
    paths = write_files(tmp_path / "ct", objects)
    whole = paths[-1].read_bytes()
    paths[-1].write_bytes(whole[:-700])
    outcomes = house.send_files(paths)
    assert [o.status for o in outcomes] == [0, 0, 0, 0, 0, 0xC000]
    assert outcomes[-1].comment
    uid = objects[0].SeriesInstanceUID
    house.node.wait(lambda: "INCOMPLETE" in house.node.why(uid))
    assert "1 instance more came with it, to be refused" in house.verdict(uid), "it lacks a slice"
    assert "refused with 0xC000" in house.told(uid)
    assert "refused with 0xC000" in house.told(objects[-1].SOPInstanceUID)
    paths[-1].write_bytes(whole)
    assert house.send_files(paths[-1:])[0].status == 0
    house.node.wait(lambda: len(house.segs(objects)) == 1)
    assert "refused" not in house.verdict(uid), "it came after all"


def test_fewer_pixels_than_the_header_says_are_refused(house):
    (odd,) = series(3, slices=1)
    odd.PixelData = odd.PixelData[:100]
    assert house.send([odd]) == [0xC000]
    assert "Pixel Data has 100 bytes, not 2048" in house.verdict(odd.SOPInstanceUID)


def test_the_same_uid_with_other_content_is_refused_and_the_first_is_processed(house):
    objects = series(4)
    assert set(house.send(objects)) == {0}
    objects[2].PatientComments = "other"
    assert house.send([objects[2]]) == [0x0111]
    assert "with other content" in house.told(objects[2].SOPInstanceUID)
    house.node.wait(lambda: "pacs has it" in house.node.why(objects[0].SeriesInstanceUID))
    assert len(house.segs(objects)) == 1


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
def test_a_uid_that_is_a_path_is_refused_and_writes_nowhere(house, tmp_path, keyword):
    (odd,) = a_series(1, header=Header(seed=5, series=keyword))
    meta_uid = odd.SOPInstanceUID
    paths = write_files(tmp_path / "ct", [odd])
    uid = str(odd[keyword].value)
    evil = ("../" * 30)[: len(uid) - 4] + "evil"
    assert len(evil) == len(uid)
    content = paths[0].read_bytes()
    meta, _, rest = content.partition(b"\x08\x00\x05\x00CS")  # what the command says stays
    assert uid.encode() in rest
    changed = rest.replace(uid.encode(), evil.encode())
    paths[0].write_bytes(meta + b"\x08\x00\x05\x00CS" + changed)
    (outcome,) = house.send_files(paths)
    assert outcome.status == 0xA900
    assert "is not a UID" in house.verdict(meta_uid)
    assert not list(house.node.folder.parent.rglob("*evil*"))
    spool = house.node.folder / "var" / "spool"
    assert not any(".tmp" in path.name for path in spool.rglob("*"))


def test_an_undecodable_code_stream_is_kept_and_its_step_says_why(house, tmp_path):
    objects = series(6)
    for dataset in objects:
        dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(200)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    outcomes = house.send_files(write_files(tmp_path / "ct", objects))
    assert {o.status for o in outcomes} == {0}
    told = house.judged(objects)
    assert "no result of lung-threshold" in told
    assert "code stream is damaged" in told
    assert not house.segs(objects)


# --- series ---------------------------------------------------------------------------------------


def test_a_series_that_no_route_takes_has_a_reason_for_each_route(house):
    objects = series(7, extra={"Modality": "MR", "SOPClassUID": MRImageStorage})
    for dataset in objects:
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    assert set(house.send(objects)) == {0}
    told = house.judged(objects)
    assert told.startswith("complete, no result: ")
    assert "route 'lungs': Modality is 'MR'" in told
    assert "route 'heads': BodyPartExamined is 'CHEST'" in told


def test_a_single_localizer_is_no_volume(house):
    volume, _ = chest_phantom(slices=6, size=32, spacing_mm=(40.0, 12.0, 12.0))
    scout = a_localizer(volume, header=Header(seed=8))
    assert house.send([scout]) == [0]
    told = house.judged([scout])
    assert told.startswith("complete, no result: ")
    assert "The series is a localizer, not a stack of slices; route 'heads'" in told


def test_ct_without_positions_makes_no_result(house):
    objects = series(9, extra={"ImagePositionPatient": None})
    assert set(house.send(objects)) == {0}
    told = house.judged(objects)
    assert "6 of 6 instances cannot be placed: no Image Position (Patient)" in told
    assert "CANCELED" not in told, "words, not states"


def test_a_colour_picture_of_modality_ct_makes_no_result(house):
    (picture,) = series(10, slices=1)
    picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    picture.SamplesPerPixel, picture.PhotometricInterpretation = 3, "RGB"
    picture.PlanarConfiguration = 0
    picture.BitsAllocated = picture.BitsStored = 8
    picture.HighBit, picture.PixelRepresentation = 7, 0
    picture.ImageType = ["DERIVED", "SECONDARY"]
    picture.PixelData = bytes(32 * 32 * 3)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(picture, keyword)
    assert house.send([picture]) == [0]
    assert "no result" in house.judged([picture])


def test_two_frames_of_reference_in_one_series_make_no_result(house):
    objects = series(11)
    for dataset in objects[3:]:
        dataset.FrameOfReferenceUID = "1.2.3.4"
    assert set(house.send(objects)) == {0}
    assert "2 frames of reference" in house.judged(objects)
    assert not house.segs(objects)


def test_a_disk_below_the_limit_tells_senders_to_come_back(build, tmp_path):
    with LocalPacs(tmp_path / "pacs", ae_title="TESTPACS") as pacs:
        path = build.write_node(
            tmp_path / "node", peers=build.peer_table("pacs", "TESTPACS", pacs.port)
        )
        text = path.read_text()
        path.write_text(text.replace("min_free_gib = 0.01", "min_free_gib = 1000000"))
        with build.started(path) as node:
            house = House(node, pacs)
            objects = series(12, slices=2)
            assert house.send(objects) == [0xA700, 0xA700]
            assert house.echoes()
            assert "0xA700" in house.verdict(objects[0].SOPInstanceUID)
            assert "disk" in house.verdict(objects[0].SOPInstanceUID)
            assert not list((tmp_path / "node/var/spool").rglob("*.dcm"))


# --- tools and performers -------------------------------------------------------------------------

WEIGHTS = """
[weights]
file = "weights.safetensors"
sha256 = "{digest}"
"""


@pytest.fixture(scope="module")
def rough(tmp_path_factory, build):
    """A node with short limits and, beside the good model, one with the wrong weights."""
    folder = tmp_path_factory.mktemp("rough")
    broken = build.write_model(
        folder / "node" / "models", model_id="broken", when='BodyPartExamined == "HEAD"'
    )
    text = (broken / "model.toml").read_text().replace('"threshold"', '"unet"')
    (broken / "model.toml").write_text(
        text.replace(
            "[input]", WEIGHTS.format(digest=hashlib.sha256(b"as pinned").hexdigest()) + "\n[input]"
        )
    )
    weights = broken / "weights.safetensors"
    weights.write_bytes(b"as pinned")
    routes = build.route + build.route.replace('"lungs"', '"heads"').replace(
        '"lung-threshold"', '"broken"'
    ).replace("'Modality == \"CT\"'", "'BodyPartExamined == \"HEAD\"'")
    with LocalPacs(folder / "pacs", ae_title="TESTPACS") as pacs:
        peers = build.peer_table("pacs", "TESTPACS", pacs.port)
        with build.a_node(folder / "node", peers=peers, routes=routes, more=SHORT_LIMITS) as node:
            weights.write_bytes(b"not these")  # a start would have been refused
            yield House(node, pacs)


class Stuck:
    """A source file of a series that cannot be read to its end, until it is mended."""

    def __init__(self, house: House, objects) -> None:
        views = house.node.running.catalog.views
        known = views.instance(objects[0].SOPInstanceUID)
        self.path = house.node.folder / "var" / "spool" / known.path
        self.aside = self.path.with_suffix(".aside")
        self.path.rename(self.aside)
        os.mkfifo(self.path)  # who opens it waits for a writer that never comes

    def mend(self) -> None:
        self.path.unlink()
        self.aside.rename(self.path)


def stuck_in(house: House, objects) -> tuple[Stuck, int]:
    """Send a series whose step will hang; returns when it does, with the performer's pid."""
    send_series(
        house.node.address, "DICOMNODE", objects, calling_ae="TESTPACS", abort_after=len(objects)
    )  # aborted: the series waits, and its file can be taken away
    stuck = Stuck(house, objects)
    views = house.node.running.catalog.views
    uid = objects[0].SeriesInstanceUID
    house.node.wait(lambda: any(s.state == "IN PROGRESS" for s in views.steps(uid)))
    return stuck, house.node.performer_pid()


def test_a_tool_that_cannot_be_loaded_is_waited_for_with_the_reason_and_others_go_on(rough):
    head = series(20, extra={"BodyPartExamined": "HEAD"})
    assert set(rough.send(head)) == {0}
    uid, views = head[0].SeriesInstanceUID, rough.node.running.catalog.views
    rough.node.wait(
        lambda: any(s.attempt >= 3 and s.state is StepState.SCHEDULED for s in views.steps(uid))
    )
    told = rough.verdict(uid)
    assert "lung-threshold made its result" in told, "the other model on the same series"
    assert "broken" in told
    assert "its SHA-256 differs" in told
    assert f"dicom-node retry {uid}" in told, "what to do about it"
    rough.still_works(21)


def test_a_performer_killed_in_the_middle_makes_the_result_exactly_once(rough):
    objects = series(22)
    stuck, pid = stuck_in(rough, objects)
    os.kill(pid, 9)
    stuck.mend()
    uid = objects[0].SeriesInstanceUID
    rough.node.wait(lambda: "pacs has it" in rough.node.why(uid))
    (seg,) = rough.segs(objects)
    assert rough.pacs.stored_counts[seg.SOPInstanceUID] == 1
    told = rough.told(uid)
    assert "failed: its process ended: signal SIGKILL; it is tried again" in told


def test_a_step_that_takes_too_long_is_ended_and_quarantined(rough):
    objects = series(23)
    stuck, _ = stuck_in(rough, objects)
    told = rough.judged(objects)
    assert "it took longer than 2 s" in told
    assert "dicom-node retry" in told
    assert not rough.segs(objects)
    stuck.mend()
    rough.still_works(24)


def test_a_model_that_is_taken_away_is_named_in_the_reason(rough):
    shutil.rmtree(rough.node.folder / "models" / "lung-threshold")
    os.kill(rough.node.performer_pid(), 9)  # the next one loads its models anew
    objects = series(25)
    assert set(rough.send(objects)) == {0}
    uid = objects[0].SeriesInstanceUID
    rough.node.wait(lambda: "there is no model lung-threshold" in rough.node.why(uid))
    assert f"dicom-node retry {uid}" in rough.node.why(uid)
    assert rough.echoes()


def test_no_thread_of_the_node_has_died(shared, rough):
    alive = {thread.name for thread in threading.enumerate()}
    assert {"assemble", "deliver", "supervise"} <= alive


def test_the_log_of_a_process_quotes_no_patient_data(tmp_path):
    """pydicom's warnings and errors quote values, rich's tracebacks quote variables."""
    program = """
import logging, sys, warnings
from dicom_node.node import log
log.configure()
import pydicom.valuerep
pydicom.valuerep.validate_value("UI", "Mueller^Anna", pydicom.config.WARN)
def fail(name):
    raise ValueError("an error")
try:
    fail("Mueller^Anna")
except ValueError as error:
    logging.getLogger("pydicom").exception(error)
    logging.getLogger("dicom_node").exception("ours")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "ours" in done.stderr
    assert "ValueError: an error" in done.stderr, "what failed, and where"
    assert "Mueller^Anna" not in done.stderr + done.stdout
