"""The guard doubts what is wrong, in words for a radiologist, and leaves the rest alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicom_node.domain.volume import Volume
from dicom_node.testing.phantom import chest_phantom
from dicom_node.tools.evidence import Evidence, measure
from dicom_node.tools.guard import doubts, judged
from dicom_node.tools.lungs import LEFT, RIGHT

GOOD = Evidence(
    slices=64,
    ml={RIGHT: 2500.0, LEFT: 2100.0},
    pieces={RIGHT: 1.0, LEFT: 0.99},
    jump=(RIGHT, 20, 0.1),
    misfit=(31, 0.7),
    aerated=0.93,
    solid=0.7,
    lung_hu=-840.0,
    missed_ml=30.0,
    covered=0.99,
    air_ml=4500.0,
    tissue_hu=20.0,
    tissue=0.92,
    outside_hu=-1010.0,
    spine_mm=30.0,
    front=0.4,
    heart_mm=10.0,
    unsure=0.03,
)
NOTHING = replace(
    GOOD, ml={}, pieces={}, aerated=float("nan"), lung_hu=float("nan"), air_ml=300.0, unsure=0.0
)

UNUSUAL = {
    "expiration, a small woman": {"ml": {RIGHT: 700.0, LEFT: 600.0}, "lung_hu": -690.0},
    "emphysema, a large man": {"ml": {RIGHT: 5000.0, LEFT: 4600.0}, "lung_hu": -920.0},
    "a lobe was taken out": {"ml": {RIGHT: 1300.0, LEFT: 1950.0}},
    "bowel gas at the height of the lungs": {"missed_ml": 190.0, "covered": 0.9},
    "a pneumothorax": {"air_ml": 9000.0},
    "a chest scanned in part": {"ends": (True, True), "ml": {RIGHT: 130.0, LEFT: 120.0}},
    "bases at the top of an abdomen": {"ends": (False, True), "ml": {RIGHT: 90.0, LEFT: 210.0}},
    "a base of one side": {"ends": (False, True), "ml": {RIGHT: 40.0}, "pieces": {RIGHT: 1.0}},
    "much fat": {"tissue_hu": -95.0},
    "contrast": {"tissue_hu": 85.0, "spine_mm": -30.0},
    "blankets": {"outside_hu": -930.0},
    "an aneurysm": {"heart_mm": -2.0},
    "thick slices": {"jump": (LEFT, 3, 0.3), "misfit": (3, 0.85)},
    "pneumonia": {"aerated": 0.6, "unsure": 0.12},
    "lungs that meet in front of the heart": {"joint": 0.3},
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_what_is_unusual_is_not_doubted(case: str) -> None:
    assert judged(replace(GOOD, **UNUSUAL[case])) == ()
    assert judged(GOOD) == judged(Evidence()) == judged(NOTHING) == ()


WRONG = [
    ({"tissue_hu": 240.0}, "Soft tissue has 240 HU: the values are shifted or scaled."),
    ({"tissue_hu": -140.0}, "Soft tissue has -140 HU"),
    ({"outside_hu": -800.0}, "The air around the body has -800 HU"),
    ({"lung_hu": -1000.0}, "The lungs have -1000 HU in the mean"),
    ({"misfit": (31, 1.4)}, "Slice 32 of 64, counted from the feet, does not fit"),
    ({"spine_mm": -40.0, "front": 0.6}, "The spine seems to be in front"),
    ({"heart_mm": -12.0}, "What lies between the lungs is shifted to the right"),
    ({"missed_ml": 700.0, "covered": 0.85}, "700 ml that look like lung were not called lung"),
    ({"tissue": 0.5}, "Only 50 % of the body are soft tissue: the values are shifted or scaled."),
    ({"solid": 0.05}, "In some slices a lung holds hardly any air"),
    ({"bare_cm2": 200.0}, "Lung reaches the edge of the images"),
    ({"aerated": 0.3}, "Only 30 % of what is called lung holds air"),
    ({"ml": {RIGHT: 6000.0, LEFT: 5000.0}}, "implausibly large, 11000 ml: is the spacing right?"),
    ({"ml": {RIGHT: 200.0, LEFT: 180.0}}, "implausibly small, 380 ml"),
    ({"ml": {RIGHT: 4.0, LEFT: 5.0}, "ends": (True, False)}, "Only 9 ml of lung were found"),
    ({"ml": {RIGHT: 1500.0}}, "Only the right lung was found: the left one may be missed."),
    ({"ml": {LEFT: 1500.0}, "ends": (True, True)}, "Only the left lung was found: the right"),
    ({"ml": {RIGHT: 900.0, LEFT: 2100.0}}, "30 % of both: part of the right lung may be missing."),
    ({"ml": {RIGHT: 2400.0, LEFT: 600.0}}, "80 % of both: part of the left lung may be missing."),
    ({"ml": {RIGHT: 1170.0, LEFT: 7.0}, "ends": (True, True)}, "The right lung is 99 % of both"),
    ({"pieces": {RIGHT: 0.7, LEFT: 1.0}}, "The right lung is in pieces: the largest is 70 % of it"),
    ({"jump": (LEFT, 9, 0.5)}, "The left lung changes its size abruptly at slice 10 of 64"),
    ({"edge_cm2": 12.0}, "Lung reaches the edge of the images"),
    ({"joint": 4.0}, "are one, with nothing between them: which side it is cannot be told."),
    ({"joint": 4.0, "ml": {RIGHT: 700.0, LEFT: 90.0}, "ends": (True, True)}, "are one, with"),
    ({"unsure": 0.4}, "For every 100 pixels of lung the network was in two minds about 40 pixels."),
    ({"unsure": 1.06}, "in two minds about 106 pixels."),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[next(iter(c)) + w[:20] for c, w in WRONG])
def test_each_mistake_has_its_sentence(change: dict[str, object], words: str) -> None:
    (said,) = judged(replace(GOOD, **change))
    assert words in said
    assert said.endswith((".", "?"))


def test_air_without_lung_is_doubted_only_where_it_is_much() -> None:
    (said,) = judged(replace(NOTHING, air_ml=3000.0))
    assert said == "No lung was found, although the body holds 3000 ml of air."
    assert judged(replace(NOTHING, air_ml=400.0)) == (), "an abdomen holds gas"


@pytest.fixture(scope="module")
def chest() -> tuple[Volume, np.ndarray]:
    return chest_phantom(slices=56, size=96, spacing_mm=(5.0, 4.0, 4.0), seed=3)


def test_the_lungs_of_a_whole_chest_are_not_doubted(chest: tuple[Volume, np.ndarray]) -> None:
    assert doubts(chest[1], chest[0]) == ()


def erased(labels: np.ndarray) -> np.ndarray:
    out = labels.copy()
    out[:, : labels.shape[1] // 2][out[:, : labels.shape[1] // 2] == LEFT] = 0
    return out


def one_slice_short(labels: np.ndarray) -> np.ndarray:
    out = labels.copy()
    out[int(np.count_nonzero(labels, axis=(1, 2)).argmax())] = 0
    return out


def one_lung_in_two(labels: np.ndarray) -> np.ndarray:
    """The right lung alone, its lower half called left."""
    out = np.where(labels == RIGHT, labels, 0).astype(np.uint8)
    slices = np.flatnonzero(out.any(axis=(1, 2)))
    low = out[: int(np.median(slices))]
    low[low == RIGHT] = LEFT
    return out


MASKS = {
    "nothing": (np.zeros_like, "No lung was found, although the body holds"),
    "one side": (lambda labels: np.where(labels == RIGHT, labels, 0), "Only the right lung"),
    "half of a side": (erased, "look like lung were not called lung"),
    "a slice is lacking": (one_slice_short, "abruptly"),
    "one lung has two names": (one_lung_in_two, "which side it is cannot be told"),
    "all is lung": (lambda labels: np.full_like(labels, RIGHT), "edge of the images"),
}


@pytest.mark.parametrize("case", MASKS)
def test_a_mask_that_is_wrong_is_doubted(chest: tuple[Volume, np.ndarray], case: str) -> None:
    volume, labels = chest
    wrong, words = MASKS[case]
    said = doubts(np.ascontiguousarray(wrong(labels), np.uint8), volume)
    assert any(words in sentence for sentence in said), said


IMAGES = {
    "shifted upwards": (lambda hu: hu + 200, "Soft tissue has"),
    "shifted downwards": (lambda hu: np.maximum(hu - 200, -1024), "shifted or scaled"),
    "too small a slope": (lambda hu: (hu + 1024) * 0.7 - 1024, "shifted or scaled"),
    "scaled": (lambda hu: (hu + 1024) * 1.3 - 1024, "Soft tissue has"),
    "two slices exchanged": (lambda hu: hu[[*range(15), 35, *range(16, 35), 15, *range(36, 56)]],
                             "does not fit between its neighbours"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMAGES)
def test_images_that_are_wrong_are_doubted(chest: tuple[Volume, np.ndarray], case: str) -> None:
    volume, labels = chest
    wrong, words = IMAGES[case]
    hu = np.asarray(wrong(volume.voxels_zyx.astype(np.float32)), np.int16)
    said = doubts(labels, replace(volume, voxels_zyx=hu))
    assert any(words in sentence for sentence in said), said


def test_posture_is_told_from_the_images(chest: tuple[Volume, np.ndarray]) -> None:
    volume, labels = chest
    as_it_is = measure(labels, volume, None)
    assert as_it_is.spine_mm > 10
    assert as_it_is.heart_mm > 0
    turned = replace(volume, voxels_zyx=np.ascontiguousarray(volume.voxels_zyx[:, ::-1]))
    assert measure(np.ascontiguousarray(labels[:, ::-1]), turned, None).spine_mm < -10
    mirrored = replace(volume, voxels_zyx=np.ascontiguousarray(volume.voxels_zyx[:, :, ::-1]))
    other = np.array([0, LEFT, RIGHT], np.uint8)[labels[:, :, ::-1]]
    assert measure(other, mirrored, None).heart_mm < 0


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 1, 1), (2, 3, 64), (5, 8, 8)])
@pytest.mark.parametrize("value", [-1024, 0, 40, 32767])
def test_no_volume_is_too_strange_to_be_looked_at(shape: tuple[int, ...], value: int) -> None:
    volume = Volume(voxels_zyx=np.full(shape, value, np.int16), affine_lps_mm=np.eye(4))
    for labels in (np.zeros(shape, np.uint8), np.full(shape, LEFT, np.uint8)):
        assert all(isinstance(said, str) for said in doubts(labels, volume))


def test_voxels_that_are_no_numbers_are_looked_at() -> None:
    voxels = np.full((6, 16, 16), np.nan, np.float32)
    volume = Volume(voxels_zyx=voxels, affine_lps_mm=np.eye(4))
    assert isinstance(doubts(np.full(voxels.shape, RIGHT, np.uint8), volume), tuple)


def test_three_thousand_slices_are_looked_at() -> None:
    hu = np.full((1, 48, 48), -1000, np.int16)
    hu[:, 4:44, 4:44] = 40
    hu[:, 12:36, 8:22] = hu[:, 12:36, 26:40] = -850
    labels = np.zeros((1, 48, 48), np.uint8)
    labels[:, 12:36, 8:22], labels[:, 12:36, 26:40] = RIGHT, LEFT
    whole = (3000, 48, 48)
    volume = Volume(
        voxels_zyx=np.broadcast_to(hu, whole), affine_lps_mm=np.diag([0.1, 5.0, 5.0, 1.0])
    )
    assert doubts(np.broadcast_to(labels, whole), volume) == ()
