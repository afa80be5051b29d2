"""What a slice of a Volume stands for."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.domain.volume import Volume, canonical


def a_volume(heights_mm: tuple[float, ...] = (), slices: int = 4, shear: float = 0.0) -> Volume:
    affine = np.diag((2.0, 2.0, 5.0, 1.0))[:, [2, 1, 0, 3]]
    affine[1, 0] = shear
    if heights_mm:
        affine[2, 0] = heights_mm[-1] / (len(heights_mm) - 1)
    voxels = np.zeros((len(heights_mm) or slices, 3, 3), np.int16)
    return Volume(voxels_zyx=voxels, affine_lps_mm=affine, heights_mm=heights_mm)


def test_even_slices_are_alike() -> None:
    volume = a_volume()
    assert volume.voxel_ml_of_slices == pytest.approx([0.02] * 4)
    assert volume.slice_indices.tolist() == [0, 1, 2, 3]


def test_a_sheared_voxel_is_as_large_as_an_upright_one() -> None:
    assert a_volume(shear=3.0).voxel_ml == pytest.approx(0.02)
    assert a_volume(shear=3.0).voxel_ml_of_slices == pytest.approx([0.02] * 4)


def test_an_uneven_slice_reaches_half_the_way_to_its_neighbours() -> None:
    volume = a_volume((0.0, 2.0, 8.0, 10.0))
    assert volume.voxel_ml_of_slices == pytest.approx([0.008, 0.016, 0.016, 0.008])
    assert volume.slice_indices == pytest.approx([0.0, 0.6, 2.4, 3.0])


def test_turning_a_stack_over_turns_its_heights() -> None:
    volume = a_volume((0.0, 2.0, 3.0, 10.0))
    affine = volume.affine_lps_mm.copy()
    affine[2, 0] *= -1
    affine[0, 2] *= -1
    upside_down = Volume(
        voxels_zyx=volume.voxels_zyx, affine_lps_mm=affine, heights_mm=volume.heights_mm
    )
    turned, _ = canonical(upside_down)
    assert turned.heights_mm == (0.0, 7.0, 8.0, 10.0)


def test_one_slice_or_none_has_no_heights() -> None:
    assert a_volume(slices=1).voxel_ml_of_slices == pytest.approx([0.02])
    assert a_volume(slices=0).voxel_ml_of_slices.tolist() == []


def test_heights_are_those_of_the_slices() -> None:
    with pytest.raises(ValueError, match="one height a slice"):
        Volume(
            voxels_zyx=np.zeros((3, 2, 2), np.int16), affine_lps_mm=np.eye(4), heights_mm=(0.0, 1.0)
        )


def test_millilitres_are_those_of_each_label() -> None:
    volume = a_volume((0.0, 2.0, 8.0, 10.0))
    labels = np.zeros(volume.voxels_zyx.shape, np.uint8)
    labels[0], labels[1, 0], labels[2, 0, 0] = 1, 3, 3
    assert volume.ml_of(labels) == pytest.approx({1: 9 * 0.008, 3: 4 * 0.016})
    assert a_volume().ml_of(labels) == pytest.approx({1: 9 * 0.02, 3: 4 * 0.02})
    assert volume.ml_of(np.zeros_like(labels)) == {}
