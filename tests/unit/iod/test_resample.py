"""Regular grids around stacks that are none, and labels cut back to their planes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicom_node.domain.errors import NotAVolume
from dicom_node.domain.volume import Volume
from dicom_node.iod.resample import mapped_back, regular


def a_volume(heights_mm: tuple[float, ...] = (), *, slices: int = 7, tilt: float = 0.0) -> Volume:
    """Random values on 3 x 1 x 2 mm voxels; tilt: mm that a slice moves along the columns."""
    count = len(heights_mm) or slices
    affine = np.diag((2.0, 1.0, 3.0, 1.0))[:, [2, 1, 0, 3]]
    affine[1, 0] = tilt
    if heights_mm:
        affine[:3, 0] *= heights_mm[-1] / (count - 1) / 3.0
    voxels = np.random.default_rng(3).integers(-900, 900, (count, 12, 10)).astype(np.int16)
    return Volume(voxels_zyx=voxels, affine_lps_mm=affine, heights_mm=heights_mm)


def test_a_regular_stack_stays_as_it_is() -> None:
    volume = a_volume()
    grid = regular(volume)
    np.testing.assert_array_equal(grid.voxels_zyx, volume.voxels_zyx)
    np.testing.assert_allclose(grid.affine_lps_mm, volume.affine_lps_mm)


def test_labels_of_a_regular_stack_come_back_as_they_were() -> None:
    volume = a_volume()
    labels = np.zeros(volume.voxels_zyx.shape, np.uint8)
    labels[1:6, 2:9, 1:4] = 1
    labels[0:4, 2:12, 5:10] = 2
    np.testing.assert_array_equal(mapped_back(labels, regular(volume), volume), labels)
    nothing = np.zeros_like(labels)
    np.testing.assert_array_equal(mapped_back(nothing, volume, volume), nothing)


def test_planes_between_uneven_ones_are_weighted_means() -> None:
    volume = a_volume((0.0, 3.0, 6.0, 12.0, 15.0))
    grid = regular(volume)
    assert grid.voxels_zyx.shape == (6, 12, 10)
    assert grid.spacing_zyx_mm == pytest.approx((3.0, 1.0, 2.0))
    old = volume.voxels_zyx.astype(np.float64)
    np.testing.assert_array_equal(grid.voxels_zyx[[0, 1, 2, 4, 5]], volume.voxels_zyx)
    np.testing.assert_array_equal(grid.voxels_zyx[3], np.rint((old[2] + old[3]) / 2))


def test_a_tilted_stack_is_straightened() -> None:
    volume = a_volume(tilt=3.0)  # 45°: three rows of 1 mm a slice of 3 mm
    grid = regular(volume)
    along = grid.affine_lps_mm[:3, 0] / grid.spacing_zyx_mm[0]
    np.testing.assert_allclose(along, (0, 0.5**0.5, 0.5**0.5), atol=1e-9)
    assert grid.voxels_zyx.min() >= volume.voxels_zyx.min()
    assert abs(grid.affine_lps_mm[:3, 0] @ grid.affine_lps_mm[:3, 1]) < 1e-9


def test_what_a_plane_does_not_reach_is_left_out() -> None:
    volume = a_volume()
    far = volume.affine_lps_mm.copy()
    far[0, 3] += 500.0
    labels = np.ones(volume.voxels_zyx.shape, np.uint8)
    assert mapped_back(labels, volume, volume).all()
    assert not mapped_back(labels, replace(volume, affine_lps_mm=far), volume).any()


@pytest.mark.parametrize("volume", [a_volume(tilt=3.0), a_volume((0.0, 0.1, 0.2, 900.0))])
def test_a_grid_that_is_too_large_is_refused(volume: Volume) -> None:
    with pytest.raises(NotAVolume, match="too many"):
        regular(volume, max_bytes=1000)
