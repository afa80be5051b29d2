"""The chest phantom: believable, and the same for the same seed."""

import numpy as np
import pytest

from dicom_node.testing.anatomy import Physique
from dicom_node.testing.phantom import LEFT_LUNG, RIGHT_LUNG, chest_phantom

COARSE = {"slices": 46, "size": 96, "spacing_mm": (6.0, 4.0, 4.0)}


@pytest.fixture(scope="module")
def phantom():
    return chest_phantom(**COARSE, seed=0)


def test_the_phantom_has_the_shape_and_the_types_that_were_asked_for(phantom):
    volume, labels = phantom
    assert volume.voxels_zyx.shape == labels.shape == (46, 96, 96)
    assert volume.voxels_zyx.dtype == np.int16
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, RIGHT_LUNG, LEFT_LUNG}
    assert volume.spacing_zyx_mm == (6.0, 4.0, 4.0)


def test_the_right_lung_is_the_larger_and_lies_at_low_columns(phantom):
    volume, labels = phantom
    right, left = ((labels == k) for k in (RIGHT_LUNG, LEFT_LUNG))
    assert right.sum() > left.sum()
    assert 1500 < right.sum() * volume.voxel_ml < 3500
    assert 1200 < left.sum() * volume.voxel_ml < 3200
    assert np.argwhere(right)[:, 2].mean() + 20 < np.argwhere(left)[:, 2].mean()
    x_mm = volume.affine_lps_mm @ [0.0, 0.0, np.argwhere(right)[:, 2].mean(), 1.0]
    assert x_mm[0] < 0  # LPS: the patient's right is negative


def test_densities_are_those_of_air_fat_muscle_and_bone(phantom):
    volume, labels = phantom
    hu = volume.voxels_zyx
    assert -900 < np.median(hu[labels > 0]) < -800
    assert abs(float(hu[:, :4].mean()) + 1000) < 5
    body = hu[(labels == 0) & (hu > -200)]
    assert ((body > -130) & (body < -80)).mean() > 0.05
    assert ((body > 20) & (body < 80)).mean() > 0.2
    assert (body > 300).mean() > 0.005
    assert hu.min() >= -1024


def test_trachea_and_stomach_gas_are_air_but_not_lung(phantom):
    volume, labels = phantom
    hu = volume.voxels_zyx
    middle = hu[:, 24:72, 32:64]
    outside = labels[:, 24:72, 32:64] == 0
    top, bottom = (middle[s][outside[s]] for s in (slice(36, 46), slice(0, 12)))
    assert (top < -800).sum() > 10
    assert (bottom < -800).sum() > 10


def test_lungs_end_inside_the_stack(phantom):
    _volume, labels = phantom
    assert not labels[0].any()
    assert not labels[-1].any()


def test_vessels_in_the_lungs_belong_to_them(phantom):
    volume, labels = phantom
    inner = labels[20:30] > 0
    assert (volume.voxels_zyx[20:30][inner] > -300).mean() > 0.005


def test_the_same_seed_gives_the_same_phantom_and_another_seed_another():
    small = {"slices": 8, "size": 48, "spacing_mm": (30.0, 8.0, 8.0)}
    first, second, other = (chest_phantom(**small, seed=s) for s in (4, 4, 5))
    assert np.array_equal(first[0].voxels_zyx, second[0].voxels_zyx)
    assert np.array_equal(first[1], second[1])
    assert (first[1] != other[1]).any()


@pytest.mark.parametrize("seed", range(1, 7))
def test_every_body_that_is_drawn_has_two_lungs_of_human_size(seed):
    volume, labels = chest_phantom(slices=24, size=48, spacing_mm=(12.0, 8.0, 8.0), seed=seed)
    for lung in (RIGHT_LUNG, LEFT_LUNG):
        assert 1000 < (labels == lung).sum() * volume.voxel_ml < 4500


def test_without_variation_every_seed_gives_the_reference_body():
    assert Physique.drawn(3, variation=0.0).width == Physique().width == 1.0
    assert Physique.drawn(3, variation=0.0).fat_mm == Physique().fat_mm


def test_noise_can_be_switched_off():
    volume, _labels = chest_phantom(slices=2, size=48, spacing_mm=(30.0, 8.0, 8.0), noise_hu=0.0)
    assert (volume.voxels_zyx[:, 0] == -1000).all()
