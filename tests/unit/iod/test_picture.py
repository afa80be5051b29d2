"""The contact sheet shows any patient the same way round."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from dicom_node.domain.tool import Code, Segment
from dicom_node.domain.volume import Volume
from dicom_node.iod.picture import BLUES, contact_sheet
from dicom_node.testing.series import STORED_AS, turned

LUNG = Code(value="39607008", scheme="SCT", meaning="Lung")


def segments(count: int) -> tuple[Segment, ...]:
    return tuple(
        Segment(
            number=n,
            label=f"Segment {n}",
            category=LUNG,
            type=LUNG,
            laterality=None,
            rgb=(200 + n, 40, 10 * n),
        )
        for n in range(1, count + 1)
    )


@pytest.fixture
def body() -> Volume:
    """Canonical axes: feet to head, front to back, right to left."""
    affine = np.array(
        [[0.0, 0.0, 2.0, -40.0], [0.0, 1.0, 0.0, -20.0], [3.0, 0.0, 0.0, 0.0], [0, 0, 0, 1]]
    )
    voxels = np.random.default_rng(0).integers(-1000, 400, (8, 30, 40), dtype=np.int16)
    return Volume(voxels_zyx=voxels, affine_lps_mm=affine)


@pytest.fixture
def labels(body: Volume) -> np.ndarray:
    """Segment 1 on the patient's right in front, segment 2 on the left behind."""
    made = np.zeros(body.voxels_zyx.shape, np.uint8)
    made[2:, 4:12, 4:16] = 1
    made[:6, 18:26, 24:36] = 2
    return made


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)))


@pytest.mark.parametrize("position", STORED_AS)
def test_every_position_gives_the_same_picture(
    body: Volume, labels: np.ndarray, position: str
) -> None:
    order = STORED_AS[position]
    picture = contact_sheet(turned(body, order), order.apply(labels), segments(2))
    assert picture == contact_sheet(body, labels, segments(2))


def test_the_right_lung_is_on_the_left_and_the_head_comes_first(
    body: Volume, labels: np.ndarray
) -> None:
    sheet = pixels(contact_sheet(body, labels, segments(2), columns=8, tiles=8, tile_px=80))
    first, last = sheet[4:34, 4:84], sheet[4:34, 4 + 7 * 84 : 84 + 7 * 84]
    right = np.argwhere((first == BLUES[0]).all(axis=2))
    left = np.argwhere((last == BLUES[1]).all(axis=2))
    assert right[:, 1].max() < 40  # the patient's right, on the highest slice
    assert left[:, 1].min() >= 40
    assert right[:, 0].mean() < left[:, 0].mean()  # the front on top
    assert not (first == BLUES[1]).all(axis=2).any()  # the lowest slice has no segment 1 ...
    assert not (last == BLUES[0]).all(axis=2).any()  # ... and the highest no segment 2


def test_tiles_have_the_shape_of_the_body(body: Volume, labels: np.ndarray) -> None:
    sheet = pixels(contact_sheet(body, labels, segments(2), columns=2, tiles=2, tile_px=160))
    footer = 2 * max(11, 160 // 14)
    assert sheet.shape == (4 + (60 + 4) + footer, 4 + 2 * (160 + 4), 3)  # 30 mm x 80 mm


def test_more_than_two_segments_have_their_own_colours(body: Volume, labels: np.ndarray) -> None:
    labels[3, 2:6, 20:30] = 3
    sheet = pixels(contact_sheet(body, labels, segments(3)))
    for segment in segments(3):
        assert (sheet == segment.rgb).all(axis=2).any()


def test_fewer_slices_than_tiles_are_all_shown(body: Volume, labels: np.ndarray) -> None:
    few = Volume(voxels_zyx=body.voxels_zyx[:1], affine_lps_mm=body.affine_lps_mm)
    sheet = pixels(contact_sheet(few, labels[:1], segments(2), tile_px=80))
    assert sheet.shape[1] == 4 + 84


def test_the_caption_changes_the_foot_only(body: Volume, labels: np.ndarray) -> None:
    plain = pixels(contact_sheet(body, labels, segments(2)))
    captioned = pixels(contact_sheet(body, labels, segments(2), caption="CHEST"))
    changed = np.argwhere((plain != captioned).any(axis=2))
    assert changed.size
    assert changed[:, 0].min() > plain.shape[0] - 2 * max(11, 192 // 14)
