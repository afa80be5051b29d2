"""The quick ways of finding bodies, holes and pieces find what the plain ones find."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.domain.volume import Volume
from dicom_node.tools.body import bodies_of, body_of
from dicom_node.tools.lungs import LEFT, RIGHT, CleanUp, cleaned
from dicom_node.tools.sheet import holes_of_slices, pieces_of_slices

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 24), st.integers(1, 24))


@st.composite
def blobs(draw, classes=2, shapes=SHAPES):
    """Random fields, smoothed or not: specks, blobs, holes, and things at the edges."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.floats(0.2, 0.97))
    field = rng.integers(1, classes, shape) * (rng.random(shape) < share)
    for _ in range(draw(st.integers(0, 2))):
        field = sitk.GetArrayFromImage(
            sitk.Median(sitk.GetImageFromArray(field.astype(np.uint8)), (1, 1, 0))
        )
    return field.astype(np.uint8)


def image(plane):
    return sitk.GetImageFromArray(plane.astype(np.uint8))


def plain_body(plane):
    opened = sitk.BinaryMorphologicalOpening(image(plane), (1, 1))
    opened = sitk.BinaryMorphologicalOpening(sitk.BinaryFillhole(opened), (3, 3))
    return sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(opened))) == 1


@settings(max_examples=150)
@given(blobs())
def test_bodies_of_all_slices_are_those_of_each(field):
    planes = field > 0
    plain = np.array([plain_body(plane) for plane in planes])
    assert np.array_equal(bodies_of(planes), plain)
    assert np.array_equal(body_of(planes[-1]), plain[-1])


@given(blobs())
def test_holes_are_what_filling_fills(field):
    planes = field > 0
    filled = [sitk.GetArrayFromImage(sitk.BinaryFillhole(image(plane))) > 0 for plane in planes]
    assert np.array_equal(planes | (holes_of_slices(planes) > 0), np.array(filled))


@given(blobs())
def test_pieces_are_those_of_each_slice(field):
    planes = field > 0
    found = pieces_of_slices(planes)
    before = 0
    for plane, numbers in zip(planes, found, strict=True):
        plain = sitk.GetArrayFromImage(sitk.ConnectedComponent(image(plane)))
        assert np.array_equal(numbers, np.where(plain > 0, plain + before, 0))
        before += int(plain.max())


class PlainCleanUp:
    """The clean-up, written for the reader and not for the clock; see tools.lungs for why."""

    def __init__(self, labels, volume, limits):
        self.ml, self.limits = volume.voxel_ml_of_slices, limits
        self.cm2 = volume.spacing_zyx_mm[1] * volume.spacing_zyx_mm[2] / 100
        self.pieces = {side: self.pieces_of(labels == side) for side in (RIGHT, LEFT)}

    def pieces_of(self, mask):
        numbers = sitk.GetArrayFromImage(sitk.ConnectedComponent(image(mask)))
        return [numbers == k for k in range(1, int(numbers.max()) + 1)]

    def ml_of(self, mask):
        return np.count_nonzero(mask, axis=(1, 2)) @ self.ml

    def run(self, out):
        largest = {s: max(p, key=np.count_nonzero) for s, p in self.pieces.items() if p}
        centre = {s: np.nonzero(mask)[2].mean() for s, mask in largest.items()}
        middle = None
        if len(largest) == 2:
            middle = sum(centre.values()) / 2
            if centre[RIGHT] > middle:
                self.pieces = {RIGHT: self.pieces[LEFT], LEFT: self.pieces[RIGHT]}
                largest = {RIGHT: largest[LEFT], LEFT: largest[RIGHT]}
        kept = {
            side: [p for p in pieces if p is largest[side] or self.ml_of(p) >= self.limits.piece_ml]
            for side, pieces in self.pieces.items()
        }
        for side, other in ((RIGHT, LEFT), (LEFT, RIGHT)):
            beside = np.any([grown(p) for p in kept[other]], axis=0) if kept[other] else False
            for piece in self.pieces[side]:
                is_kept = any(p is piece for p in kept[side])
                x = np.nonzero(piece)[2].mean()
                beyond = middle is not None and (x > middle if side == RIGHT else x < middle)
                moves = piece is not largest[side] and np.any(piece & beside)
                moves = moves and (not is_kept or beyond)
                out[piece] = other if moves else side if is_kept else 0
        for side in (RIGHT, LEFT):
            if self.ml_of(out == side) < self.limits.lung_ml:
                out[out == side] = 0
                continue
            for plane in out:
                self.fill(plane, side)
        return out

    def fill(self, plane, side):
        ring = plane == side
        filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(image(ring))) > 0
        numbers = sitk.GetArrayFromImage(sitk.ConnectedComponent(image(filled & ~ring)))
        for k in range(1, int(numbers.max()) + 1):
            hole = numbers == k
            if np.count_nonzero(hole) < self.limits.hole_cm2 / self.cm2:
                plane[hole & (plane == 0)] = side


def grown(mask):
    """By one voxel through each face."""
    padded = np.pad(mask, 1)
    out = padded.copy()
    for axis in range(3):
        out |= np.roll(padded, 1, axis) | np.roll(padded, -1, axis)
    return out[1:-1, 1:-1, 1:-1]


@settings(max_examples=150)
@given(
    blobs(classes=3, shapes=st.tuples(st.integers(1, 7), st.integers(2, 16), st.integers(2, 16))),
    st.floats(0.05, 2.0), st.floats(0.01, 1.5), st.floats(0.0, 2.0), st.booleans(),
)  # fmt: skip
def test_the_clean_up_is_that_of_its_plain_version(labels, hole_cm2, piece_ml, lung_ml, uneven):
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 3.0, 2.0, 2.5, 1.0
    heights = tuple(2.0 * z * (z + 1) / 2 for z in range(len(labels))) if uneven else ()
    volume = Volume(
        voxels_zyx=np.zeros(labels.shape, np.int16), affine_lps_mm=affine,
        heights_mm=heights if len(labels) > 1 else (),
    )  # fmt: skip
    limits = CleanUp(hole_cm2=hole_cm2, piece_ml=piece_ml, lung_ml=lung_ml)
    plain = PlainCleanUp(labels, volume, limits).run(np.zeros_like(labels))
    assert np.array_equal(cleaned(labels, volume, limits), plain)
