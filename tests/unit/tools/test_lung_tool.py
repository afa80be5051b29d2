"""A tool finds the same anatomy however the patient lay and the matrix was stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.tool import ImageProcessingTool, SegmentationResult, ToolContext
from dicom_node.domain.volume import Volume
from dicom_node.testing.phantom import chest_phantom
from dicom_node.tools.registry import build_tool, load_models

RIGHT, LEFT = 1, 2
SHIPPED = Path(__file__).parents[3] / "models"


@pytest.fixture
def threshold_tool(a_model: Callable[..., Path]) -> ImageProcessingTool:
    return build_tool(load_models(a_model("plain", "threshold"))["plain"])


def run(tool: ImageProcessingTool, volume: Volume) -> SegmentationResult:
    (result,) = tool.process(volume, ToolContext())
    return result


def turned(volume: Volume, permutation: tuple[int, int, int], flips: tuple[int, ...]) -> Volume:
    """The same body in the same place, its matrix stored in another order."""
    voxels = volume.voxels_zyx.transpose(permutation)
    affine = volume.affine_lps_mm[:, [*permutation, 3]].copy()
    for axis in flips:
        affine[:, 3] += affine[:, axis] * (voxels.shape[axis] - 1)
        affine[:, axis] *= -1
    return Volume(voxels_zyx=np.flip(voxels, flips).copy(), affine_lps_mm=affine)


STORED = {
    "rows back to front": ((0, 1, 2), (1,)),
    "columns left to right": ((0, 1, 2), (2,)),
    "feet first": ((0, 1, 2), (0, 2)),
    "prone": ((0, 1, 2), (1, 2)),
    "coronal": ((1, 0, 2), (1,)),
    "sagittal": ((2, 0, 1), (1,)),
}


def test_both_lungs_are_found_on_their_sides(
    threshold_tool: ImageProcessingTool, a_chest: Volume
) -> None:
    result = run(threshold_tool, a_chest)
    lung = a_chest.voxels_zyx == -850
    assert np.array_equal(result.labels_zyx > 0, lung)
    assert np.flatnonzero((result.labels_zyx == RIGHT).any(axis=(0, 1))).max() < 32
    assert np.flatnonzero((result.labels_zyx == LEFT).any(axis=(0, 1))).min() > 32
    ml = {m.segment: m.value for m in result.measurements}
    assert ml[RIGHT] == pytest.approx(np.count_nonzero(lung[:, :, :32]) * 0.18)
    assert ml[LEFT] == pytest.approx(np.count_nonzero(lung[:, :, 32:]) * 0.18)


def assert_alike(found: SegmentationResult, expected: SegmentationResult, stored: str) -> None:
    permutation, flips = STORED[stored]
    back = np.flip(found.labels_zyx, flips).transpose(np.argsort(permutation))
    assert np.array_equal(back, expected.labels_zyx)
    assert {m.segment for m in found.measurements} == {RIGHT, LEFT}
    assert found.measurements == expected.measurements


@pytest.mark.parametrize("stored", STORED)
def test_the_storage_of_the_matrix_does_not_matter(
    threshold_tool: ImageProcessingTool, a_chest: Volume, stored: str
) -> None:
    found = run(threshold_tool, turned(a_chest, *STORED[stored]))
    assert_alike(found, run(threshold_tool, a_chest), stored)


def test_the_shipped_network_finds_both_lungs_however_they_are_stored() -> None:
    tool = build_tool(load_models(SHIPPED)["lung-unet"], device="cpu", threads=1)
    chest, truth = chest_phantom(slices=24, size=128, spacing_mm=(11.0, 3.0, 3.0))
    expected = run(tool, chest)
    for side in (RIGHT, LEFT):
        found = expected.labels_zyx == side
        both = np.count_nonzero(found & (truth == side))
        assert 2 * both / (np.count_nonzero(found) + np.count_nonzero(truth == side)) > 0.95
    for stored in ("prone", "sagittal"):
        assert_alike(run(tool, turned(chest, *STORED[stored])), expected, stored)


def test_a_patient_who_lies_the_other_way_round_has_the_other_sides(
    threshold_tool: ImageProcessingTool, a_chest: Volume
) -> None:
    affine = a_chest.affine_lps_mm.copy()
    affine[:3, 1:3] *= -1  # prone: what was stored as right of the image is now the right lung
    result = run(threshold_tool, Volume(voxels_zyx=a_chest.voxels_zyx, affine_lps_mm=affine))
    assert (result.labels_zyx[:, :, :30] != RIGHT).all()
    assert (result.labels_zyx[:, :, 34:] != LEFT).all()
    assert {1, 2} <= set(np.unique(result.labels_zyx).tolist())


def test_a_volume_of_air_gives_an_empty_readable_result(
    threshold_tool: ImageProcessingTool,
) -> None:
    volume = Volume(voxels_zyx=np.full((4, 32, 32), -1000, np.int16), affine_lps_mm=np.eye(4))
    result = run(threshold_tool, volume)
    assert not result.labels_zyx.any()
    assert result.measurements == ()
    assert result.notes == ("No lung was found in this series.",)
    assert [s.label for s in result.segments] == ["Right lung", "Left lung"]


def test_the_network_takes_a_volume_of_air(a_model: Callable[..., Path]) -> None:
    tool = build_tool(load_models(a_model())["small"], device="cpu", threads=1)
    volume = Volume(voxels_zyx=np.full((3, 40, 30), -1000.0, np.float32), affine_lps_mm=np.eye(4))
    assert run(tool, volume).labels_zyx.shape == (3, 40, 30)


def test_a_volume_without_slices_is_answered(threshold_tool: ImageProcessingTool) -> None:
    volume = Volume(voxels_zyx=np.zeros((0, 8, 8), np.int16), affine_lps_mm=np.eye(4))
    result = run(threshold_tool, volume)
    assert result.labels_zyx.shape == (0, 8, 8)
    assert result.notes == ("No lung was found in this series.",)


def test_lungs_that_touch_are_parted(threshold_tool: ImageProcessingTool, a_chest: Volume) -> None:
    voxels = a_chest.voxels_zyx.copy()
    voxels[12:14, 30:33, 27:40] = -850  # a bridge in front of the heart
    result = run(threshold_tool, Volume(voxels_zyx=voxels, affine_lps_mm=a_chest.affine_lps_mm))
    assert (result.labels_zyx[:, :, :27][voxels[:, :, :27] == -850] == RIGHT).all()
    assert (result.labels_zyx[:, :, 40:][voxels[:, :, 40:] == -850] == LEFT).all()


def test_a_single_lung_gets_the_side_on_which_it_lies(
    threshold_tool: ImageProcessingTool, a_chest: Volume
) -> None:
    voxels = a_chest.voxels_zyx.copy()
    voxels[:, :, 32:][voxels[:, :, 32:] == -850] = 40
    result = run(threshold_tool, Volume(voxels_zyx=voxels, affine_lps_mm=a_chest.affine_lps_mm))
    assert set(np.unique(result.labels_zyx).tolist()) == {0, RIGHT}
    assert "Only the right lung" in result.notes[0]
