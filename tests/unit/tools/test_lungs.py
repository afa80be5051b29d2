"""The clean-up knows anatomy: pieces, holes, sides."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.domain.volume import Volume
from dicom_node.tools import lungs
from dicom_node.tools.lungs import LEFT, RIGHT, measured, remarks

SPACING = (5.0, 2.0, 2.0)  # a voxel is 0.02 ml, a pixel 0.04 cm²


def on_grid(labels: np.ndarray, heights_mm: tuple[float, ...] = ()) -> Volume:
    """A volume with the shape of the labels; the values do not matter."""
    affine = np.diag((*SPACING, 1.0))[[2, 1, 0, 3]]
    if heights_mm:
        affine[2, 0] = heights_mm[-1] / (len(heights_mm) - 1)
    return Volume(voxels_zyx=labels, affine_lps_mm=affine, heights_mm=heights_mm)


def cleaned(labels: np.ndarray) -> np.ndarray:
    return lungs.cleaned(labels, on_grid(labels))


def two_lungs() -> np.ndarray:
    """A box a side: right 30 x 40 x 25 voxels (600 ml), left 30 x 40 x 20 (480 ml)."""
    labels = np.zeros((50, 80, 100), np.uint8)
    labels[5:35, 20:60, 10:35] = RIGHT
    labels[5:35, 20:60, 60:80] = LEFT
    return labels


def test_two_whole_lungs_stay_as_they_are() -> None:
    labels = two_lungs()
    assert np.array_equal(cleaned(labels), labels)


def test_an_apex_that_was_cut_off_is_kept() -> None:
    labels = two_lungs()
    labels[40:45, 30:45, 15:30] = RIGHT  # 22 ml
    assert np.array_equal(cleaned(labels), labels)


def test_a_speck_goes() -> None:
    labels = two_lungs()
    labels[45, 30:40, 15:30] = RIGHT  # 3 ml
    assert np.array_equal(cleaned(labels), two_lungs())


def test_a_small_hole_is_filled() -> None:
    labels = two_lungs()
    labels[10, 30:39, 15:25] = 0  # 3.6 cm²
    assert np.array_equal(cleaned(labels), two_lungs())


def test_the_dome_of_the_diaphragm_is_no_hole() -> None:
    labels = two_lungs()
    labels[10, 30:45, 15:30] = 0  # 9 cm²
    assert np.array_equal(cleaned(labels), labels)


def test_a_notch_at_the_border_is_no_hole() -> None:
    labels = two_lungs()
    labels[10, 30:34, 10:14] = 0
    assert np.array_equal(cleaned(labels), labels)


def test_a_small_piece_inside_the_other_lung_changes_side() -> None:
    labels = two_lungs()
    labels[10:12, 30:40, 10:20] = LEFT  # 4 ml, touches only the right lung
    assert np.array_equal(cleaned(labels), two_lungs())


def test_a_large_piece_in_the_other_half_changes_side() -> None:
    labels = two_lungs()
    labels[5:15, 20:60, 10:35] = LEFT  # 200 ml of the right lung called left
    assert np.array_equal(cleaned(labels), two_lungs())


def test_a_large_piece_in_its_own_half_stays_where_the_lungs_touch() -> None:
    labels = two_lungs()
    labels[38:44, 30:45, 60:75] = LEFT  # 27 ml of the left apex, apart from the left lung,
    labels[35:44, 30:45, 20:30] = RIGHT  # and the right apex reaches over to it
    labels[40:44, 30:45, 20:60] = RIGHT
    assert np.array_equal(cleaned(labels), labels)


def test_sides_are_those_of_the_patient_whatever_they_were_called() -> None:
    labels = two_lungs()
    exchanged = np.array([0, LEFT, RIGHT], np.uint8)[labels]
    assert np.array_equal(cleaned(exchanged), labels)


SPECKS = {  # slices, rows, columns of what is called left in the right lung
    "a voxel at the outer side": np.s_[20:21, 40:41, 10:11],
    "a voxel at the inner side": np.s_[20:21, 40:41, 34:35],
    "2 ml at the outer side": np.s_[20:25, 40:50, 10:12],
    "8 ml at the outer side": np.s_[18:26, 30:50, 10:12],
    "16 ml in the middle": np.s_[18:26, 30:40, 20:30],
    "60 ml at the inner side": np.s_[5:35, 20:40, 30:35],
}


@pytest.mark.parametrize("case", SPECKS)
def test_one_lung_stays_one_however_little_of_it_has_the_other_name(case: str) -> None:
    labels = two_lungs()
    labels[labels == LEFT] = 0
    right = labels.copy()
    labels[SPECKS[case]] = LEFT
    out = cleaned(labels)
    assert not np.any(out == LEFT)
    assert np.count_nonzero(out != right) <= np.count_nonzero(labels == LEFT)
    if "ml" in case:
        assert np.array_equal(out, right)


def test_a_third_of_one_lung_has_the_side_of_the_rest() -> None:
    labels = two_lungs()
    labels[labels == RIGHT] = 0
    whole = labels.copy()
    labels[5:15] = np.where(labels[5:15] == LEFT, RIGHT, labels[5:15])
    assert np.array_equal(cleaned(labels), whole)


def test_halves_of_one_lung_are_left_to_be_doubted() -> None:
    labels = two_lungs()
    labels[labels == LEFT] = 0
    labels[20:, :, :] = np.where(labels[20:] == RIGHT, LEFT, 0)
    out = cleaned(labels)
    assert np.array_equal(out, labels)
    assert lungs.joint(out, on_grid(out)) > 0.8


def test_lungs_that_touch_at_a_line_are_two() -> None:
    labels = two_lungs()
    labels[10:30, 20:26, 35:60] = LEFT  # in front of the heart: 12 cm² at the right lung
    assert np.array_equal(cleaned(labels), labels)
    assert 0 < lungs.joint(labels, on_grid(labels)) < 0.5
    assert lungs.joint(two_lungs(), on_grid(labels)) == 0


def test_a_remnant_beside_a_whole_lung_keeps_the_sides_as_they_are_called() -> None:
    labels = two_lungs()
    labels[labels == LEFT] = 0
    labels[5:25, 22:32, 0:6] = LEFT  # 24 ml apart from it, and on the wrong side
    assert np.array_equal(cleaned(labels), labels)


def test_a_single_lung_keeps_its_side() -> None:
    labels = two_lungs()
    labels[labels == RIGHT] = 0
    out = cleaned(labels)
    assert np.array_equal(out, labels)
    assert remarks(out) == ("Only the left lung was found; no right lung was recognised.",)


def test_a_side_with_next_to_nothing_goes() -> None:
    labels = np.zeros((50, 80, 100), np.uint8)
    labels[10:12, 30:40, 15:25] = RIGHT  # 4 ml
    out = cleaned(labels)
    assert not out.any()
    assert remarks(out) == ("No lung was found in this series.",)


def test_an_empty_map_stays_empty() -> None:
    assert not cleaned(np.zeros((3, 4, 5), np.uint8)).any()


def test_the_input_is_left_alone() -> None:
    labels = two_lungs()
    labels[45, 30, 15] = RIGHT
    before = labels.copy()
    cleaned(labels)
    assert np.array_equal(labels, before)


def test_volumes_are_millilitres_a_side() -> None:
    labels = two_lungs()
    found = {
        m.segment: (m.value, m.unit.value, m.name.value) for m in measured(labels, on_grid(labels))
    }
    assert found == {RIGHT: (600.0, "mL", "118565006"), LEFT: (480.0, "mL", "118565006")}


def test_a_lung_that_reaches_the_last_slice_is_said_to_be_cut() -> None:
    labels = two_lungs()[5:20]
    assert any("reaches the" in note for note in remarks(labels))
    assert remarks(two_lungs()) == ()


def test_uneven_slices_count_with_what_each_stands_for() -> None:
    labels = np.zeros((4, 80, 100), np.uint8)
    labels[:, 0:10, 0:10] = RIGHT  # 100 pixels of 0.04 cm² in each slice
    (found,) = measured(labels, on_grid(labels, (0.0, 5.0, 10.0, 30.0)))
    assert found.value == 0.4 * (5 + 5 + 12.5 + 20)


def test_a_piece_is_as_large_as_its_slices_are_thick() -> None:
    labels = np.zeros((6, 80, 100), np.uint8)
    labels[:4, 20:60, 10:35] = RIGHT  # 40 cm² in each slice
    labels[5, 20:40, 60:80] = RIGHT  # 16 cm²: 8 ml at 5 mm, 16 ml at 10 mm
    heights = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)
    assert not lungs.cleaned(labels, on_grid(labels, heights))[5].any()
    assert lungs.cleaned(labels, on_grid(labels, (*heights[:-1], 30.0)))[5].any()
