"""What a model's policy does to a Series: refuses it, warns or resamples, and says so."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.errors import NotAVolume
from dicom_node.domain.policy import InputPolicy, Treatment
from dicom_node.domain.tool import ImageProcessingTool
from dicom_node.domain.volume import Volume
from dicom_node.iod.header import read_attributes
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.encode import Source
from dicom_node.node.produce import Outcome, produce
from dicom_node.testing.series import Header, ct_series, file_of, write_files
from dicom_node.tools.registry import build_tool, load_models

SHIPPED = Path(__file__).parents[3] / "models"
STEP_MM, PIXEL_MM, SLICES = 5.0, 4.0, 24
WARN, RESAMPLE = Treatment.WARN, Treatment.RESAMPLE


def places(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """LPS of each voxel: (3, slices, rows, columns)."""
    index = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)


def lungs_at(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right and left: two ellipsoids in patient coordinates, 35 x 50 x 45 mm."""
    right, left = (
        sum(((p[i] - c[i]) / r) ** 2 for i, r in enumerate((35.0, 50.0, 45.0))) <= 1
        for c in ((-52.0, 0.0, 0.0), (52.0, 0.0, 0.0))
    )
    return right, left


def chest(tilt_deg: float = 0.0, heights_mm: Sequence[float] = ()) -> tuple[Volume, np.ndarray]:
    """Two lungs in a body, and the truth; the gantry tilted, or planes at those heights."""
    t = np.radians(tilt_deg)
    heights = np.array(heights_mm or np.arange(SLICES) * STEP_MM)
    shape = (len(heights), 64, 72)
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [
            [0.0, 0.0, PIXEL_MM],
            [0.0, PIXEL_MM * np.cos(t), 0.0],
            [STEP_MM, -PIXEL_MM * np.sin(t), 0.0],
        ]
    )
    affine[:3, 3] = -affine[:3, :3] @ [0.0, 31.5, 35.5] - [0.0, 0.0, heights[-1] / 2]
    p = places(affine, shape)
    p[2] += (heights - np.arange(len(heights)) * STEP_MM)[:, None, None]
    hu = np.where((p[0] / 125) ** 2 + (p[1] / 90) ** 2 <= 1, 40, -1000)
    right, left = lungs_at(p)
    hu[right | left] = -850
    truth = (right + 2 * left).astype(np.uint8)
    return Volume(voxels_zyx=hu.astype(np.int16), affine_lps_mm=affine), truth


def series(
    volume: Volume, heights_mm: Sequence[float] = (), header: Header | None = None
) -> list[Dataset]:
    """Its objects, each at its height."""
    made = ct_series(volume, header=header or Header())
    for dataset, height in zip(made, heights_mm or [], strict=False):
        x, y, z = volume.affine_lps_mm[:3, 3]
        dataset.ImagePositionPatient = [x, y, z + height]
    return made


def sources(folder: Path, datasets: Sequence[Dataset]) -> list[Source]:
    return [
        Source(
            path=path,
            attributes=read_attributes(path),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in write_files(folder, datasets)
    ]


def a_tool(policy: InputPolicy | None = None) -> ImageProcessingTool:
    shipped = load_models(SHIPPED)["lung-unet"]
    return build_tool(replace(shipped, kind="threshold", policy=policy or InputPolicy()))


def run(folder: Path, datasets: Sequence[Dataset], policy: InputPolicy | None = None) -> Outcome:
    return produce(sources(folder, datasets), a_tool(policy), SegSettings())


def seg_of(outcome: Outcome) -> Dataset:
    return pydicom.dcmread(BytesIO(outcome.produced[0].data))


def volumes(outcome: Outcome) -> dict[int | None, float]:
    return {m.segment: m.value for m in outcome.results[0].measurements}


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


ELLIPSOID_ML = 4 / 3 * np.pi * 35 * 50 * 45 / 1000


def test_an_ordinary_series_gets_a_result_without_a_warning(tmp_path: Path) -> None:
    volume, truth = chest()
    outcome = run(tmp_path, series(volume))
    assert outcome.notes == ()
    assert seg_of(outcome).ImageComments == "RESEARCH USE ONLY, NOT FOR CLINICAL USE."
    assert "SegmentDescription" not in seg_of(outcome).SegmentSequence[0]
    assert (outcome.results[0].labels_zyx == truth).all()
    assert set(outcome.seconds) == {"decode", "infer", "encode"}


def test_a_tilted_series_is_refused_by_default(tmp_path: Path) -> None:
    with pytest.raises(NotAVolume, match=r"tilted: the stack is sheared by 20\.0°"):
        run(tmp_path, series(chest(20.0)[0]))


def test_images_of_two_patients_are_refused_whatever_the_model_allows(tmp_path: Path) -> None:
    made = series(chest()[0])
    for dataset in made[12:]:
        dataset.PatientID = "SOMEBODY-ELSE"
    lenient = InputPolicy(holes=WARN, frames_of_reference=WARN, duplicates=WARN, few_slices=WARN)
    with pytest.raises(NotAVolume, match=r"^the Series holds images of 2 patients$"):
        run(tmp_path, made, lenient)


@pytest.mark.parametrize("treatment", [WARN, RESAMPLE])
def test_a_tilted_series_gets_its_mask_on_its_own_planes(
    tmp_path: Path, treatment: Treatment
) -> None:
    volume, truth = chest(20.0)
    outcome = run(tmp_path, series(volume), InputPolicy(tilt=treatment))
    labels = outcome.results[0].labels_zyx
    assert min(dice(labels == n, truth == n) for n in (1, 2)) > 0.95
    assert volumes(outcome) == pytest.approx({1: ELLIPSOID_ML, 2: ELLIPSOID_ML}, rel=0.03)
    seg = seg_of(outcome)
    positions = {
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID: tuple(
            frame.PlanePositionSequence[0].ImagePositionPatient
        )
        for frame in seg.PerFrameFunctionalGroupsSequence
    }
    at = {s.uid: s.attributes["ImagePositionPatient"] for s in outcome.sources}
    assert positions == {uid: pytest.approx(at[uid]) for uid in positions}
    assert ("resample" in outcome.seconds) is (treatment is RESAMPLE)


def test_a_few_tilted_slices_are_not_resampled(tmp_path: Path) -> None:
    made = series(chest(20.0)[0])[10:16]
    outcome = run(tmp_path, made, InputPolicy(tilt=RESAMPLE))
    assert "resample" not in outcome.seconds
    assert outcome.notes[0].endswith("each slice was segmented as it lies.")


def test_a_warning_is_in_the_object_and_in_the_notes(tmp_path: Path) -> None:
    outcome = run(tmp_path, series(chest(20.0)[0]), InputPolicy(tilt=RESAMPLE))
    seg = seg_of(outcome)
    sentence = "Warning: the gantry was tilted: the stack is sheared by 20.0 degrees; the model saw"
    assert seg.ImageComments.startswith(f"RESEARCH USE ONLY, NOT FOR CLINICAL USE. {sentence}")
    assert all(s.SegmentDescription.startswith(sentence) for s in seg.SegmentSequence)
    assert seg.SeriesDescription.startswith("Lung U-Net")
    assert outcome.notes[0].startswith("Warning: the gantry was tilted")


def test_results_of_another_treatment_are_other_objects(tmp_path: Path) -> None:
    made = sources(tmp_path, series(chest(20.0)[0]))
    treated = [
        produce(made, a_tool(InputPolicy(tilt=t)), SegSettings()).produced[0]
        for t in (WARN, RESAMPLE, RESAMPLE)
    ]
    assert treated[0].sop_instance_uid != treated[1].sop_instance_uid
    assert treated[1].data == treated[2].data


UNEVEN_MM = (*np.arange(0.0, 40.0, 5.0), *np.arange(40.0, 60.0, 3.0), *np.arange(61.0, 122.0, 8.0))


@pytest.mark.parametrize("treatment", [WARN, RESAMPLE])
def test_uneven_slices_count_with_what_they_stand_for(tmp_path: Path, treatment: Treatment) -> None:
    volume, truth = chest(heights_mm=UNEVEN_MM)
    made = series(volume, UNEVEN_MM)
    outcome = run(tmp_path, made, InputPolicy(spacing=treatment, sparse=Treatment.IGNORE))
    labels = outcome.results[0].labels_zyx
    assert min(dice(labels == n, truth == n) for n in (1, 2)) > 0.95
    assert volumes(outcome) == pytest.approx({1: ELLIPSOID_ML, 2: ELLIPSOID_ML}, rel=0.03)
    wrong = np.count_nonzero(truth == 1) * outcome.volume.voxel_ml
    assert abs(wrong / ELLIPSOID_ML - 1) > 0.1
    measures = seg_of(outcome).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert "SpacingBetweenSlices" not in measures
    with pytest.raises(NotAVolume, match="spacing is uneven"):
        run(tmp_path / "again", made)


def test_a_missing_plane_is_bridged_where_the_policy_allows(tmp_path: Path) -> None:
    volume, _ = chest()
    made = series(volume)
    del made[12]
    with pytest.raises(NotAVolume, match="1 plane is missing"):
        run(tmp_path / "a", made)
    outcome = run(tmp_path / "b", made, InputPolicy(holes=WARN))
    assert volumes(outcome) == pytest.approx({1: ELLIPSOID_ML, 2: ELLIPSOID_ML}, rel=0.03)
    assert any("1 plane is missing" in note for note in outcome.notes)


def copies_of(datasets: Sequence[Dataset]) -> list[Dataset]:
    made = [pydicom.dcmread(_file(d)) for d in datasets]
    for dataset in made:
        dataset.SOPInstanceUID += ".1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber += 1000
    return made


def _file(dataset: Dataset) -> BytesIO:
    return BytesIO(file_of(dataset))


def test_planes_that_came_twice_are_used_once(tmp_path: Path) -> None:
    made = series(chest()[0])
    outcome = run(tmp_path, [*copies_of(made[5:9]), *made])
    assert len(outcome.sources) == SLICES
    assert not any(s.uid.endswith(".1") for s in outcome.sources)
    assert outcome.notes == (
        "Warning: 4 positions have more than one plane, with the same pixels (4 planes too many); "
        "one of each was taken.",
    )


def test_other_pixels_at_one_position_are_refused(tmp_path: Path) -> None:
    made = series(chest()[0])
    later = copies_of(made[5:9])
    later[0].PixelData = later[1].PixelData
    with pytest.raises(NotAVolume, match=r"^1 position has more than one plane, with other pixels"):
        run(tmp_path / "a", [*made, *later])
    outcome = run(tmp_path / "b", [*later, *made], InputPolicy(duplicates=WARN))
    assert len(outcome.sources) == SLICES
    assert len(outcome.notes) == 2


def test_stored_values_without_a_rescale_are_refused(tmp_path: Path) -> None:
    volume, _ = chest()
    raw = replace(volume, voxels_zyx=(volume.voxels_zyx + 1024).astype(np.int16))
    with pytest.raises(NotAVolume, match="no value is below 0 HU"):
        run(tmp_path / "a", series(raw))
    outcome = run(tmp_path / "b", series(raw), InputPolicy(hu=WARN))
    assert any("no value is below 0 HU (24 to 1064)" in note for note in outcome.notes)


def test_a_foreign_body_part_is_a_warning_or_a_refusal(tmp_path: Path) -> None:
    made = series(chest()[0], header=Header(body_part="HEAD"))
    warns = InputPolicy(foreign_body_parts=("HEAD",))
    assert "Body Part Examined is HEAD" in run(tmp_path / "a", made, warns).notes[0]
    refuses = replace(warns, body_part=Treatment.REFUSE)
    with pytest.raises(NotAVolume, match="Body Part Examined is HEAD"):
        run(tmp_path / "b", made, refuses)


def test_several_refusals_are_said_together(tmp_path: Path) -> None:
    volume, _ = chest(20.0)
    made = series(volume)
    del made[12]
    with pytest.raises(NotAVolume, match=r"sheared by 20\.0°; 1 plane is missing"):
        run(tmp_path, made)


def test_planes_that_make_no_volume_are_refused_by_any_policy(tmp_path: Path) -> None:
    lenient = InputPolicy(few_slices=WARN, min_slices=1)
    assert run(tmp_path / "one", series(chest()[0])[12:13], lenient).sources
    made = series(chest()[0])
    made[3].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    with pytest.raises(NotAVolume, match="2 orientations"):
        run(tmp_path / "mixed", made, lenient)
    with pytest.raises(NotAVolume, match="there is no image plane"):
        run(tmp_path / "none", [], lenient)


@pytest.mark.parametrize("thickness", [None, 5.0])
def test_a_single_plane_has_a_volume_only_where_its_thickness_is_known(
    tmp_path: Path, thickness: float | None
) -> None:
    made = series(chest()[0])[12:13]
    if thickness is None:
        del made[0].SliceThickness
    else:
        made[0].SliceThickness = thickness
    outcome = run(tmp_path, made, InputPolicy(few_slices=WARN, min_slices=1))
    (result,) = outcome.results
    assert result.labels_zyx.any()
    assert bool(result.measurements) is (thickness is not None)
    told = [note for note in outcome.notes if "thickness" in note]
    assert bool(told) is (thickness is None)
    comments = pydicom.dcmread(BytesIO(outcome.produced[0].data)).ImageComments
    assert ("1 mm stands for it" in comments) is (thickness is None)


def test_a_doubt_stands_before_the_warnings_about_the_input(tmp_path: Path) -> None:
    """Readers have room for the first ones only."""
    volume, truth = chest(20.0)
    one_lung = np.where(truth == 2, 40, volume.voxels_zyx).astype(np.int16)
    objects = series(replace(volume, voxels_zyx=one_lung))
    outcome = run(tmp_path, objects, InputPolicy(tilt=WARN))
    assert outcome.doubts
    (first, *others) = outcome.results[0].warnings
    assert first == f"Doubtful: {outcome.doubts[0]}"
    assert others[-1].startswith("Warning: ")
    assert seg_of(outcome).SegmentSequence[0].SegmentDescription.startswith("Doubtful: ")
