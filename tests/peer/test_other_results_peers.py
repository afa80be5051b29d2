"""Secondary Captures, rejection notes and segmentations that replace others, to other readers."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from dicom_node.decide.geometry import Fault
from dicom_node.domain.tool import AlgorithmIdentity, Code, Segment, SegmentationResult
from dicom_node.iod.image import read_volume
from dicom_node.iod.rejection import Rejection, encode_rejection
from dicom_node.iod.replacing import Replacement
from dicom_node.iod.secondary import encode_secondary_captures
from dicom_node.iod.seg import SegSettings, encode_segmentation
from dicom_node.testing.series import a_series, write_files

BIN = Path(sys.executable).parent
DCMQI, DCIODVFY = BIN / "segimage2itkimage", BIN / "dciodvfy"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not DCMQI.exists(), reason="dcmqi is not installed"),
    pytest.mark.skipif(not DCIODVFY.exists(), reason="dicom3tools is not installed"),
]

STRUCTURE = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")
LUNG = Code(value="39607008", scheme="SCT", meaning="Lung")
LUNGS = (
    Segment(
        number=1, label="Lung", category=STRUCTURE, type=LUNG, laterality=None, rgb=(0, 128, 255)
    ),
)
WHO = AlgorithmIdentity(tool_id="lung-unet", name="Lung U-Net", version="1", digest="ab" * 32)
NOON = datetime(2026, 1, 5, 12, 0, 0)
EARLIER = (
    Replacement(kind="seg", sop_instance_uid="2.25.5", series_uid="2.25.6"),
    Replacement(kind="seg", sop_instance_uid="2.25.8", series_uid="2.25.9"),
)


@pytest.fixture
def sources(tmp_path):
    return write_files(tmp_path / "ct", a_series(5))


@pytest.fixture
def result():
    labels = np.zeros((5, 32, 32), np.uint8)
    labels[1:4, 10:20, 8:14] = 1
    return SegmentationResult(labels_zyx=labels, segments=LUNGS)


def complaints(path: Path, name: str) -> list[str]:
    run = subprocess.run([DCIODVFY, path], capture_output=True, text=True, check=False)
    lines = (run.stdout + run.stderr).splitlines()
    assert name in lines, lines
    return [line for line in lines if "Error" in line]


def segmentation(sources, result, path: Path) -> Path:
    content = encode_segmentation(
        result,
        source_paths=sources,
        identity=WHO,
        settings=SegSettings(),
        uids=("2.25.1", "2.25.2"),
        content_at=NOON,
        replaces=EARLIER,
    )
    path.write_bytes(content)
    return path


def test_a_segmentation_that_replaces_others_is_valid_and_read_by_others(sources, result, tmp_path):
    path = segmentation(sources, result, tmp_path / "seg.dcm")
    assert complaints(path, "Segmentation") == []
    seg = highdicom.seg.segread(path)
    assert {r.SeriesInstanceUID for r in seg.RelatedSeriesSequence} == {"2.25.6", "2.25.9"}
    assert "Replaces series 2.25.6, 2.25.9" in seg.ImageComments
    assert "replaces earlier" in seg.SeriesDescription
    sent = [str(pydicom.dcmread(s).SOPInstanceUID) for s in sources]
    assert {uids[2] for uids in seg.get_source_image_uids()} <= set(sent)
    read = seg.get_pixels_by_source_instance(
        sent, ignore_spatial_locations=True, combine_segments=True
    )
    assert (read == result.labels_zyx).all()
    run = subprocess.run(
        [DCMQI, "--inputDICOM", path, "--outputDirectory", tmp_path, "--prefix", "s"],
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0
    assert (tmp_path / "s-1.nrrd").is_file()


def test_secondary_captures_are_valid(sources, result, tmp_path):
    captures = encode_secondary_captures(
        result,
        volume=read_volume(sources, tolerate=frozenset(Fault)),
        source_paths=sources,
        identity=WHO,
        settings=SegSettings(),
        series_uid="2.25.77",
        content_at=NOON,
        replaces=EARLIER[:1],
    )
    path = tmp_path / "sc.dcm"
    for capture in captures:
        path.write_bytes(capture.data)
        assert complaints(path, "SCImage") == []


def test_a_rejection_note_is_valid_and_read_by_others(sources, tmp_path, dcmtk):
    note = Rejection(series_uid="2.25.6", rejected=((SEG, "2.25.5"),), replaced_by="2.25.1")
    path = tmp_path / "note.dcm"
    path.write_bytes(encode_rejection(note, of_study=sources[0], tool=WHO, settings=SegSettings()))
    assert complaints(path, "KeyObjectSelectionDocument") == []
    document = highdicom.ko.KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(path))
    assert document.resolve_reference("2.25.5")[1:] == ("2.25.6", "2.25.5")
    shown = dcmtk("dsrdump", path)
    assert shown.returncode == 0
    assert "Rejected for Quality Reasons" in shown.stdout
