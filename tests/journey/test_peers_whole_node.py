"""The whole node between foreign programs: DCMTK and Orthanc send, are sent to, query, move."""

from __future__ import annotations

import io

import highdicom
import numpy as np
import pydicom
import pytest

from dicom_node.dimse.scu import find
from dicom_node.domain.records import Peer
from dicom_node.node.why import stories
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import UNSIGNED_12, Header, a_series, ct_series, write_files

pytestmark = pytest.mark.peer

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
CALLED = ("-aec", "DICOMNODE")
JPEG_LOSSLESS, JPEG_LS, RLE = (
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.5",
)


@pytest.fixture(scope="module")
def hospital(request, tmp_path_factory, build, free_port):
    """One node for the module, and its PACS: ours, Orthanc, and whoever takes the free ports."""
    try:
        orthanc_port = request.getfixturevalue("shared_orthanc").dicom_port
    except pytest.skip.Exception:  # the tests with DCMTK alone do without
        orthanc_port = free_port()
    folder = tmp_path_factory.mktemp("hospital")
    ports = {name: free_port() for name in ("STORESCP", "DCMQR")}
    with LocalPacs(folder / "pacs", ae_title="TESTPACS") as pacs:
        peers = [
            ("pacs", "TESTPACS", pacs.port),
            ("orthanc", "ORTHANC", orthanc_port),
            ("storescp", "STORESCP", ports["STORESCP"]),
            ("dcmqr", "DCMQR", ports["DCMQR"]),
        ]
        text = "".join(build.peer_table(*peer) for peer in peers)
        with build.a_node(folder / "node", peers=text) as node:
            yield Hospital(node, pacs, ports)


class Hospital:
    def __init__(self, node, pacs, ports) -> None:
        self.node, self.pacs, self.ports = node, pacs, ports

    def of(self, series):
        """The segmentations in our PACS that were made from a series."""
        uid = series[0].SeriesInstanceUID
        return self.pacs.made_from(uid, SEG)

    def ends_well(self, series, peer="pacs") -> pydicom.Dataset:
        """Wait until the peer has the one result of the series, and read it from the spool."""
        uid = series[0].SeriesInstanceUID
        self.node.wait(lambda: f"{peer} has it" in self.why(uid))
        (result,) = self.node.running.catalog.views.results(uid)
        kept = pydicom.dcmread(self.node.folder / "var" / "spool" / result.path)
        referenced = kept.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert {r.ReferencedSOPInstanceUID for r in referenced} == {
            d.SOPInstanceUID for d in series
        }
        assert kept.StudyInstanceUID == series[0].StudyInstanceUID
        return kept

    def why(self, uid: str) -> str:
        known = self.node.running.catalog.views.series(uid)
        return self.node.why(uid) if known else "nothing has come"

    def kept_syntaxes(self, series) -> set[str]:
        views = self.node.running.catalog.views
        return {i.transfer_syntax_uid for i in views.instances(series[0].SeriesInstanceUID)}


def lungs(seed: int):
    """A small chest: 10 slices of 48 x 48."""
    volume, _ = chest_phantom(slices=10, size=48, spacing_mm=(25.0, 8.0, 8.0))
    return ct_series(volume, header=Header(seed=seed))


def series(seed: int, **more):
    return a_series(6, header=Header(seed=seed), **more)


# --- who asks -------------------------------------------------------------------------------------


def test_echoscu_is_answered(hospital, dcmtk):
    done = dcmtk("echoscu", "-aet", "TESTPACS", *CALLED, "127.0.0.1", hospital.node.port)
    assert done.returncode == 0, done.stderr


def test_echoscu_understands_why_it_is_rejected(hospital, dcmtk):
    done = dcmtk("echoscu", "-aet", "TESTPACS", "-aec", "OTHER", "127.0.0.1", hospital.node.port)
    assert done.returncode != 0
    assert "Called AE Title Not Recognized" in done.stdout + done.stderr


def test_of_a_stranger_echoscu_is_answered_and_storescu_understands_why_it_is_not(
    hospital, dcmtk, tmp_path
):
    to = ("-aet", "STRANGER", *CALLED, "127.0.0.1", hospital.node.port)
    assert dcmtk("echoscu", *to).returncode == 0
    (path,) = write_files(tmp_path, a_series(1))
    done = dcmtk("storescu", *to, path)
    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stdout + done.stderr


@pytest.mark.parametrize("program", ["findscu", "movescu", "getscu"])
def test_queries_get_a_clean_refusal(hospital, dcmtk, program):
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3")
    common = ("-v", "-S", "-aet", "TESTPACS", *CALLED, *keys)
    done = dcmtk(program, *common, "127.0.0.1", hospital.node.port, timeout_s=20)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "No Acceptable Presentation Contexts" in said or "No presentation context" in said
    after = dcmtk("echoscu", "-aet", "TESTPACS", *CALLED, "127.0.0.1", hospital.node.port)
    assert after.returncode == 0


# --- who sends ------------------------------------------------------------------------------------


def test_dcmsend_sends_a_chest_and_its_segmentation_comes_back(hospital, dcmtk, tmp_path):
    chest = lungs(1)
    write_files(tmp_path / "ct", chest)
    to = ("127.0.0.1", hospital.node.port)
    done = dcmtk("dcmsend", "-aet", "TESTPACS", *CALLED, "+sd", *to, tmp_path / "ct")
    assert done.returncode == 0, done.stderr
    kept = hospital.ends_well(chest)
    (arrived,) = hospital.of(chest)
    assert arrived == kept
    assert [s.SegmentLabel for s in arrived.SegmentSequence] == ["Right lung", "Left lung"]


def test_storescu_sends_the_same_series_twice_and_gets_one_result(hospital, dcmtk, tmp_path):
    sent = series(2)
    paths = write_files(tmp_path / "ct", sent)
    command = ("storescu", "-aet", "TESTPACS", *CALLED, "127.0.0.1", hospital.node.port, *paths)
    assert dcmtk(*command).returncode == 0
    hospital.ends_well(sent)
    assert dcmtk(*command).returncode == 0
    hospital.ends_well(sent)
    (arrived,) = hospital.of(sent)
    assert hospital.pacs.stored_counts[arrived.SOPInstanceUID] == 1


@pytest.mark.parametrize(
    ("encoder", "proposes", "syntax", "seed"),
    [
        (("dcmcjpeg", "+e1"), "-xs", JPEG_LOSSLESS, 3),
        (("dcmcrle",), "-xr", RLE, 4),
        (("dcmcjpls", "+el"), "-xt", JPEG_LS, 5),
    ],
    ids=("jpeg-lossless", "rle", "jpeg-ls"),
)
def test_what_dcmtk_compressed_is_kept_compressed_and_segmented(
    hospital, dcmtk, tmp_path, encoder, proposes, syntax, seed
):
    sent = series(seed, pixels=UNSIGNED_12)
    compressed = []
    for path in write_files(tmp_path / "ct", sent):
        compressed.append(path.with_suffix(".compressed"))
        done = dcmtk(*encoder, path, compressed[-1])
        assert done.returncode == 0, done.stderr
    to = ("127.0.0.1", hospital.node.port)
    done = dcmtk("storescu", proposes, "-aet", "TESTPACS", *CALLED, *to, *compressed)
    assert done.returncode == 0, done.stderr
    kept = hospital.ends_well(sent)
    assert hospital.kept_syntaxes(sent) == {syntax}
    plain = series(seed + 100, pixels=UNSIGNED_12)
    send_series(hospital.node.address, "DICOMNODE", plain, calling_ae="TESTPACS")
    assert hospital.ends_well(plain).PixelData == kept.PixelData, "the same lungs, uncompressed"


# --- whom it sends to -----------------------------------------------------------------------------


def test_storescp_gets_the_segmentation_as_the_spool_holds_it(
    hospital, dcmtk, start_program, tmp_path
):
    port, folder = hospital.ports["STORESCP"], tmp_path / "taken"
    folder.mkdir()
    start_program("storescp", port, "--output-directory", folder, "+xa", port)
    sent = series(6)
    paths = write_files(tmp_path / "ct", sent)
    to = ("127.0.0.1", hospital.node.port)
    assert dcmtk("storescu", "-aet", "STORESCP", *CALLED, *to, *paths).returncode == 0
    kept = hospital.ends_well(sent, "storescp")
    (taken,) = folder.iterdir()
    assert pydicom.dcmread(taken) == kept


# --- PACS that move -------------------------------------------------------------------------------

QRSCP = """
NetworkTCPPort  = {port}
MaxPDUSize      = 16384
MaxAssociations = 16
HostTable BEGIN
node = (DICOMNODE, 127.0.0.1, {node})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
DCMQR {store} RW (200, 1024mb) ANY
AETable END
"""


def test_dcmqrscp_moves_a_study_to_the_node_and_gets_the_result(
    hospital, dcmtk, start_program, tmp_path
):
    port, store = hospital.ports["DCMQR"], tmp_path / "archive"
    store.mkdir()
    table = tmp_path / "dcmqrscp.cfg"
    table.write_text(QRSCP.format(port=port, node=hospital.node.port, store=store))
    start_program("dcmqrscp", port, "-c", table)
    sent = series(7)
    assert set(send_series(("127.0.0.1", port), "DCMQR", sent)) == {0}
    assert "nothing has come" in hospital.why(sent[0].SeriesInstanceUID)
    keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={sent[0].StudyInstanceUID}")
    asked = [part for key in keys for part in ("-k", key)]
    to = ("-S", "-aec", "DCMQR", "-aem", "DICOMNODE", "127.0.0.1", port)
    moved = dcmtk("movescu", *asked, *to)
    assert moved.returncode == 0, moved.stderr
    kept = hospital.ends_well(sent, "dcmqr")
    held = [d for d in (pydicom.dcmread(p) for p in store.glob("SG*")) if d.SOPClassUID == SEG]
    assert [d.SOPInstanceUID for d in held] == [kept.SOPInstanceUID]


def test_orthanc_answers_a_c_move_by_sending_to_the_node(hospital, dcmtk, orthanc):
    orthanc.knows("node", "DICOMNODE", hospital.node.port)
    sent = series(8)
    assert set(send_series(("127.0.0.1", orthanc.dicom_port), "ORTHANC", sent)) == {0}
    keys = ("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={sent[0].StudyInstanceUID}")
    keys += (f"SeriesInstanceUID={sent[0].SeriesInstanceUID}",)
    asked = [part for key in keys for part in ("-k", key)]
    to = ("-S", "-aec", "ORTHANC", "-aem", "DICOMNODE", "127.0.0.1", orthanc.dicom_port)
    moved = dcmtk("movescu", *asked, *to)
    assert moved.returncode == 0, moved.stderr
    hospital.ends_well(sent, "orthanc")
    orthanc.wait_for(len(sent) + 1)


# --- Orthanc as the PACS --------------------------------------------------------------------------


@pytest.fixture
def returned(hospital, orthanc):
    """A chest in Orthanc, pushed to the node, and its segmentation back in Orthanc."""
    orthanc.knows("node", "DICOMNODE", hospital.node.port)
    hospital.chests = getattr(hospital, "chests", 20) + 1
    chest = lungs(hospital.chests)
    assert set(send_series(("127.0.0.1", orthanc.dicom_port), "ORTHANC", chest)) == {0}
    (study,) = orthanc.ask("/studies")
    orthanc.send(study, "node")
    return chest, hospital.ends_well(chest, "orthanc")


def test_the_result_is_found_in_the_source_study_by_c_find(hospital, orthanc, returned, dcmtk):
    chest, kept = returned
    study = chest[0].StudyInstanceUID
    peer = Peer(
        name="orthanc",
        ae_title="ORTHANC",
        host="127.0.0.1",
        port=orthanc.dicom_port,
        offers=frozenset({"query"}),
    )
    wanted = {"StudyInstanceUID": study, "SeriesInstanceUID": "", "Modality": ""}
    found = find(peer=peer, calling_ae="DICOMNODE", level="SERIES", keys=wanted)
    listed = {str(m["SeriesInstanceUID"]): m["Modality"] for m in found.matches}
    assert listed == {chest[0].SeriesInstanceUID: "CT", kept.SeriesInstanceUID: "SEG"}
    keys = (
        "QueryRetrieveLevel=SERIES",
        f"StudyInstanceUID={study}",
        "SeriesInstanceUID",
        "Modality=SEG",
    )
    asked = [part for key in keys for part in ("-k", key)]
    to = ("-aec", "ORTHANC", "127.0.0.1", orthanc.dicom_port)
    done = dcmtk("findscu", "-v", "-S", *asked, *to)
    assert kept.SeriesInstanceUID in done.stdout + done.stderr
    everything = {"StudyInstanceUID": "", "PatientID": chest[0].PatientID}
    studies = find(peer=peer, calling_ae="DICOMNODE", level="STUDY", keys=everything)
    assert [m["StudyInstanceUID"] for m in studies.matches] == [study], "no study of its own"


def test_the_result_is_found_in_the_source_study_by_qido(orthanc, returned):
    if not orthanc.dicomweb:
        pytest.skip("the DICOMweb plugin of Orthanc is not installed")
    chest, kept = returned
    (study,) = orthanc.ask("/dicom-web/studies")
    assert study["0020000D"]["Value"] == [chest[0].StudyInstanceUID]
    assert study["00201206"]["Value"] == [2], "Number of Study Related Series"
    assert sorted(study["00080061"]["Value"]) == ["CT", "SEG"]
    below = f"/dicom-web/studies/{chest[0].StudyInstanceUID}/series?Modality=SEG"
    (found,) = orthanc.ask(below)
    assert found["0020000E"]["Value"] == [kept.SeriesInstanceUID]


def test_the_result_in_orthanc_is_the_one_in_the_spool_and_highdicom_reads_it(orthanc, returned):
    chest, kept = returned
    files = [pydicom.dcmread(io.BytesIO(orthanc.file(i))) for i in orthanc.instances()]
    (there,) = [d for d in files if d.SOPClassUID == SEG]
    assert there == kept
    assert {d.PatientID for d in files} == {chest[0].PatientID}
    seg = highdicom.seg.segread(io.BytesIO(orthanc.file(_instance_of(orthanc, kept))))
    ordered = sorted(chest, key=lambda d: float(d.ImagePositionPatient[2]))
    labels = seg.get_pixels_by_source_instance(
        [d.SOPInstanceUID for d in ordered],
        combine_segments=True,
        ignore_spatial_locations=False,
        assert_missing_frames_are_empty=True,
    )
    assert labels.shape == (10, 48, 48)
    assert set(np.unique(labels)) == {0, 1, 2}
    right, left = (np.nonzero(labels == n)[2].mean() for n in (1, 2))
    assert right < left, "the patient's right is on the left of an axial image"


def _instance_of(orthanc, dataset) -> str:
    query = {"Level": "Instance", "Query": {"SOPInstanceUID": dataset.SOPInstanceUID}}
    (found,) = orthanc.ask("/tools/find", query)
    return str(found)


def test_orthanc_pushes_the_whole_study_again_and_nothing_new_is_made(hospital, orthanc, returned):
    chest, kept = returned
    (study,) = orthanc.ask("/studies")
    orthanc.send(study, "node")  # with the node's own result in it
    catalog = hospital.node.running.catalog
    views = catalog.views
    hospital.node.wait(lambda: views.series(kept.SeriesInstanceUID) is not None)
    hospital.node.wait(lambda: views.series(kept.SeriesInstanceUID).state == "COMPLETE")
    told = {s.series.series_uid: s.verdict for s in stories(catalog, kept.SeriesInstanceUID)}
    assert "result of this node" in told[kept.SeriesInstanceUID]
    assert "orthanc has it" in told[chest[0].SeriesInstanceUID], "what it was made from, too"
    assert len(views.results(chest[0].SeriesInstanceUID)) == 1
    assert len(orthanc.instances()) == len(chest) + 1
