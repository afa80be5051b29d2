"""Segmentations as other programs read them: dcmqi the places, dicom3tools the attributes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.decide.geometry import Fault
from dicom_node.domain.tool import AlgorithmIdentity, Code, Segment, SegmentationResult
from dicom_node.domain.volume import Volume
from dicom_node.iod.header import read_attributes
from dicom_node.iod.image import read_volume
from dicom_node.iod.seg import SegSettings, encode_segmentation
from dicom_node.testing.series import STORED_AS, Header, Pixels, moved, turned, write_series

BIN = Path(sys.executable).parent
DCMQI, DCIODVFY = BIN / "segimage2itkimage", BIN / "dciodvfy"

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not DCMQI.exists(), reason="dcmqi is not installed"),
    pytest.mark.skipif(not DCIODVFY.exists(), reason="dicom3tools is not installed"),
]

STRUCTURE = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")
LUNG = Code(value="39607008", scheme="SCT", meaning="Lung")
SIDES = (
    ("Right lung", Code(value="24028007", scheme="SCT", meaning="Right"), (0, 128, 255)),
    ("Left lung", Code(value="7771000", scheme="SCT", meaning="Left"), (255, 128, 0)),
)
LUNGS = tuple(
    Segment(number=n, label=label, category=STRUCTURE, type=LUNG, laterality=side, rgb=rgb)
    for n, (label, side, rgb) in enumerate(SIDES, 1)
)
WHO = AlgorithmIdentity(tool_id="lung-unet", name="Lung U-Net", version="1", digest="ab" * 32)
NOON = datetime(2026, 1, 5, 12, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A segmentation on disk, and what went into it."""

    path: Path
    volume: Volume
    labels: np.ndarray
    sources: list[Path]


def make(
    folder: Path,
    body: Volume,
    *,
    labels: np.ndarray | None = None,
    header: Header | None = None,
    pixels: Pixels | None = None,
    chosen: SegSettings | None = None,
) -> Made:
    paths = write_series(folder / "ct", body, header=header, pixels=pixels, shuffle_seed=9)
    return segment(folder, paths, labels=labels, chosen=chosen)


def segment(
    folder: Path,
    paths: list[Path],
    *,
    labels: np.ndarray | None = None,
    chosen: SegSettings | None = None,
    warnings: tuple[str, ...] = (),
) -> Made:
    volume = read_volume(paths, tolerate=frozenset(Fault))
    by_uid = {read_attributes(p)["SOPInstanceUID"]: p for p in paths}
    ordered = [by_uid[uid] for uid in volume.instance_uids]
    if labels is None:
        shape = volume.voxels_zyx.shape
        labels = np.random.default_rng(5).choice([0] * 9 + [1, 2], shape).astype(np.uint8)
        labels[0] = labels[-2] = 0
    content = encode_segmentation(
        SegmentationResult(
            labels_zyx=labels, segments=LUNGS, notes=("A note.",), warnings=warnings
        ),
        source_paths=ordered,
        identity=WHO,
        settings=chosen or SegSettings(),
        uids=("2.25.1", "2.25.2"),
        content_at=NOON,
    )
    path = folder / "seg.dcm"
    path.write_bytes(content)
    return Made(path=path, volume=volume, labels=labels, sources=ordered)


def complaints(path: Path) -> list[str]:
    """The errors of dciodvfy."""
    run = subprocess.run([DCIODVFY, path], capture_output=True, text=True, check=False)
    lines = (run.stdout + run.stderr).splitlines()
    assert "Segmentation" in lines, lines
    return [line for line in lines if "Error" in line]


def seen_by_dcmqi(made: Made, folder: Path) -> np.ndarray:
    """Labels on the grid of the source volume, by the physical places that dcmqi gives them."""
    folder.mkdir()
    subprocess.run(
        [DCMQI, "--inputDICOM", made.path, "--outputDirectory", folder, "--prefix", "s"],
        capture_output=True,
        check=True,
    )
    seen = np.zeros_like(made.labels)
    to_index = np.linalg.inv(made.volume.affine_lps_mm)
    for number in (1, 2):
        image = SimpleITK.ReadImage(folder / f"s-{number}.nrrd")
        k, j, i = np.nonzero(SimpleITK.GetArrayFromImage(image))
        direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        places = direction @ np.array([i, j, k]) + np.array(image.GetOrigin())[:, None]
        indices = to_index[:3, :3] @ places + to_index[:3, 3:]
        nearest = np.rint(indices).astype(int)
        assert np.abs(indices - nearest).max(initial=0) < 0.01
        seen[tuple(nearest)] = number
    return seen


@pytest.fixture(scope="module")
def body() -> Volume:
    affine = np.array(
        [[0.0, 0.0, 0.7, -100.0], [0.0, 0.9, 0.0, -90.5], [2.5, 0.0, 0.0, 30.25], [0, 0, 0, 1]]
    )
    return Volume(voxels_zyx=np.zeros((9, 21, 26), np.int16), affine_lps_mm=affine)


def oblique(v: Volume) -> Volume:
    a, b = np.radians((20, -35))
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = about_z @ about_x, (310.0, -77.7, -1203.4)
    return moved(v, turn)


def turned_as(position: str) -> Callable[[Volume], Volume]:
    return lambda v: turned(v, STORED_AS[position])


BODIES = {"oblique": oblique, **{name: turned_as(name) for name in STORED_AS}}


@pytest.mark.parametrize("kind", BODIES)
def test_dcmqi_sees_every_voxel_where_it_was_put(tmp_path: Path, body: Volume, kind: str) -> None:
    made = make(tmp_path, BODIES[kind](body))
    np.testing.assert_array_equal(seen_by_dcmqi(made, tmp_path / "out"), made.labels)
    assert complaints(made.path) == []


def test_dcmqi_sees_the_same_with_all_frames(tmp_path: Path, body: Volume) -> None:
    made = make(tmp_path, body, chosen=SegSettings(omit_empty_frames=False))
    np.testing.assert_array_equal(seen_by_dcmqi(made, tmp_path / "out"), made.labels)
    assert complaints(made.path) == []


def test_dcmqi_reads_what_the_segments_are(tmp_path: Path, body: Volume) -> None:
    made = make(tmp_path, body)
    seen_by_dcmqi(made, tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "s-meta.json").read_text())
    (right,), (left,) = meta["segmentAttributes"]
    assert right["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "39607008"
    assert right["SegmentedPropertyTypeModifierCodeSequence"]["CodeMeaning"] == "Right"
    assert left["SegmentedPropertyTypeModifierCodeSequence"]["CodeMeaning"] == "Left"
    assert left["SegmentLabel"] == "Left lung"
    for found, (_, _, rgb) in zip((right, left), SIDES, strict=True):
        difference = np.subtract(found["recommendedDisplayRGBValue"], rgb)
        assert np.abs(difference).max() <= 3  # CIELab in 16 bits and back


@pytest.mark.parametrize("only", [1, 2])
def test_one_lung_that_is_not_there_is_read_as_empty(
    tmp_path: Path, body: Volume, only: int
) -> None:
    labels = np.zeros(body.voxels_zyx.shape, np.uint8)
    labels[2:5, 3:9, 4:20] = only
    made = make(tmp_path, body, labels=labels)
    np.testing.assert_array_equal(seen_by_dcmqi(made, tmp_path / "out"), made.labels)
    assert complaints(made.path) == []


def test_an_empty_result_is_read_as_empty(tmp_path: Path, body: Volume) -> None:
    made = make(tmp_path, body, labels=np.zeros(body.voxels_zyx.shape, np.uint8))
    assert not seen_by_dcmqi(made, tmp_path / "out").any()
    assert complaints(made.path) == []


def tilted(v: Volume) -> Volume:
    affine = v.affine_lps_mm.copy()
    affine[:3, 1] = np.linalg.norm(affine[:3, 1]) * np.array([0.0, 0.95, -(0.0975**0.5)])
    return Volume(voxels_zyx=v.voxels_zyx, affine_lps_mm=affine)


def uneven(paths: list[Path]) -> list[Path]:
    for k, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + 0.3 * k * k]
        dataset.save_as(path)
    return paths


@pytest.mark.parametrize("kind", ["tilted", "uneven"])
def test_planes_that_are_no_regular_stack_keep_their_places(
    tmp_path: Path, body: Volume, kind: str
) -> None:
    paths = write_series(tmp_path / "ct", tilted(body) if kind == "tilted" else body)
    paths = uneven(paths) if kind == "uneven" else paths
    made = segment(tmp_path, paths, warnings=("Warning: by 18.5°; a sentence.",))
    assert complaints(made.path) == []
    read = highdicom.seg.segread(made.path)
    seen = read.get_pixels_by_source_instance(
        list(made.volume.instance_uids),
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(seen, made.labels)
    at = {read_attributes(p)["ImagePositionPatient"] for p in made.sources}
    frames = read.PerFrameFunctionalGroupsSequence
    assert {tuple(f.PlanePositionSequence[0].ImagePositionPatient) for f in frames} <= at
    assert all("18.5 degrees" in s.SegmentDescription for s in read.SegmentSequence)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(sorted(BODIES)),
    shape=st.tuples(st.integers(3, 7), st.integers(5, 19), st.integers(5, 19)),
    spacing=st.tuples(*[st.sampled_from((0.5, 0.703125, 1.25, 3.0))] * 3),
    origin=st.tuples(*[st.integers(-900, 900)] * 3),
    seed=st.integers(0, 99),
)
def test_dcmqi_agrees_on_any_grid(tmp_path_factory, kind, shape, spacing, origin, seed) -> None:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    affine[:3, 3] = origin
    folder = tmp_path_factory.mktemp("grid")
    straight = Volume(voxels_zyx=np.zeros(shape, np.int16), affine_lps_mm=affine)
    stored = BODIES[kind](straight)
    labels = np.random.default_rng(seed).choice([0, 0, 1, 2], stored.voxels_zyx.shape)
    made = make(folder, stored, labels=labels.astype(np.uint8), header=Header(seed=seed))
    np.testing.assert_array_equal(seen_by_dcmqi(made, folder / "out"), made.labels)


@pytest.mark.parametrize(
    "header",
    [
        Header(character_set="ISO_IR 192", patient_name="王^小東", series_number=0),
        Header(extra={"SliceThickness": None, "BodyPartExamined": None}),
        Header(
            extra=dict.fromkeys(
                ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate")
            )
        ),
        Header(
            extra={
                "LossyImageCompression": "01",
                "LossyImageCompressionRatio": "10.5",
                "LossyImageCompressionMethod": "ISO_15444_1",
            }
        ),
    ],
    ids=("unicode", "thin", "bare", "lossy"),
)
def test_odd_sources_make_objects_without_errors(
    tmp_path: Path, body: Volume, header: Header
) -> None:
    assert complaints(make(tmp_path, body, header=header).path) == []


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [
        *("test/lidc-0001-part", "test/lungdx-a0001", "test/cmb-crc-01068", "test/lung1-001"),
        *("quirks/cerr-hn-511", "quirks/ibsi-phantom-one-lung", "quirks/head-c3n"),
    ],
)
def test_results_on_real_series_lie_where_they_were_put(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    paths = sorted(p for p in (real_data / name).iterdir() if p.is_file())
    made = segment(tmp_path, paths)
    np.testing.assert_array_equal(seen_by_dcmqi(made, tmp_path / "out"), made.labels)
    # what the source itself lacks about the patient stays lacking
    inherited = ("Module=<Patient>", "Patient's", "Study")
    ours = [line for line in complaints(made.path) if not any(w in line for w in inherited)]
    assert ours == []
