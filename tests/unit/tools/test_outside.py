"""What a network calls lung outside the body goes; lung that the field of view cuts stays."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.domain.volume import Volume
from dicom_node.tools import lungs
from dicom_node.tools.lungs import LEFT, RIGHT

AIR, BODY, LUNG, CLOTH, PADDING = -1000, 40, -850, -740, -2000
SHAPE = (20, 100, 120)  # at 5 x 2.5 x 2.5 mm: 31 ml in a thousand voxels


def chest() -> tuple[np.ndarray, np.ndarray]:
    """HU and labels: a body in the lower half of the image, with two lungs in it."""
    hu = np.full(SHAPE, AIR, np.int16)
    hu[:, 35:90, 15:105] = BODY
    labels = np.zeros(SHAPE, np.uint8)
    labels[:12, 45:80, 25:50] = RIGHT
    labels[:12, 45:80, 70:95] = LEFT
    hu[labels > 0] = LUNG
    return hu, labels


def cleaned(hu: np.ndarray, labels: np.ndarray) -> np.ndarray:
    affine = np.diag((2.5, 2.5, 5.0, 1.0))[:, [2, 1, 0, 3]]
    return lungs.cleaned(labels, Volume(voxels_zyx=hu, affine_lps_mm=affine))


def with_cloth(depth: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Folds in the air before the body, above the lungs: 10 ml for each of `depth`."""
    hu, labels = chest()
    hu[14:18, 12 : 12 + 2 * depth : 2, 40:80] = CLOTH
    labels[14:18, 12 : 12 + 2 * depth, 40:80] = LEFT
    return hu, labels


def test_cloth_before_the_body_is_no_lung() -> None:
    hu, labels = with_cloth()
    assert np.array_equal(cleaned(hu, labels), chest()[1])


def test_nor_is_it_where_there_is_no_other() -> None:
    hu, labels = with_cloth()
    assert not cleaned(hu[13:], labels[13:]).any()


def test_the_same_inside_the_body_is_lung() -> None:
    hu, labels = chest()
    hu[14:18, 45:55, 30:70] = LUNG
    labels[14:18, 45:55, 30:70] = LEFT
    assert cleaned(hu, labels)[14:18].any()


def test_so_much_is_left_for_the_guard_to_doubt() -> None:
    hu, labels = with_cloth(10)
    hu[14:20, 2:30, 20:100] = AIR
    labels[14:20, 2:30, 20:100] = LEFT
    assert np.count_nonzero(labels[14:]) * 0.03125 > lungs.CleanUp().outside_ml
    assert cleaned(hu, labels)[14:].any()


@pytest.mark.parametrize("what", ["by the matrix", "by the circle of the scan"])
def test_a_lung_that_the_field_of_view_cuts_stays(what: str) -> None:
    hu, labels = chest()
    if what == "by the matrix":
        hu, labels = hu[:3, 50:75, 30:90], labels[:3, 50:75, 30:90]
    else:
        rows, columns = np.mgrid[-1:1:60j, -1:1:60j]
        beyond = rows**2 + columns**2 >= 1
        hu, labels = hu[:3, 33:93, 30:90].copy(), labels[:3, 33:93, 30:90].copy()
        hu[:, beyond], labels[:, beyond] = PADDING, 0
    assert 5 < np.count_nonzero(labels == LEFT) * 0.03125 < lungs.CleanUp().outside_ml
    found = cleaned(hu, labels)
    assert np.array_equal(found, labels)
