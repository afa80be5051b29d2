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
        self.spacing = volume.spacing_zyx_mm
        self.cm2 = self.spacing[1] * self.spacing[2] / 100
        self.first = int(labels.any(axis=(0, 2)).argmax())  # the first row that holds any
        self.pieces = {side: self.pieces_of(labels == side) for side in (RIGHT, LEFT)}
        if self.joined_up(labels := labels.copy()):
            self.pieces = {side: self.pieces_of(labels == side) for side in (RIGHT, LEFT)}

    def pieces_of(self, mask):
        numbers = sitk.GetArrayFromImage(sitk.ConnectedComponent(image(mask)))
        return [numbers == k for k in range(1, int(numbers.max()) + 1)]

    def ml_of(self, mask):
        return np.count_nonzero(mask, axis=(1, 2)) @ self.ml

    def joined_up(self, labels):
        largest = {s: max(p, key=np.count_nonzero) for s, p in self.pieces.items() if p}
        most = {s: self.ml_of(largest[s]) if s in largest else 0.0 for s in self.pieces}
        side, other = sorted(most, key=most.get)
        if not most[side] or most[side] > self.limits.part * most[other]:
            return False
        pieces, whole = self.pieces[side], labels == other
        wide = [
            self.touching(p, whole) > self.limits.joined * self.ml_of(p) ** (2 / 3) for p in pieces
        ]
        if not any(w and p is largest[side] for w, p in zip(wide, pieces, strict=True)):
            return False
        for piece, joined in zip(pieces, wide, strict=True):
            if joined:
                labels[piece] = other
        return True

    def touching(self, a, b):
        """cm² that two masks share, looked at in every so many rows."""
        rows = max(1, round(4 / self.spacing[1]))
        cm2 = 0.0
        for axis in range(3):
            face = rows * np.prod(self.spacing) / self.spacing[axis] / 100
            ahead = [slice(None), slice(None), slice(None)]
            behind = list(ahead)
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            for one, two in ((a, b), (b, a)):
                shared = one[tuple(behind)] & two[tuple(ahead)]
                cm2 += face * np.count_nonzero(shared[:, self.first :: rows])
        return cm2

    def run(self, out):
        largest = {s: max(p, key=np.count_nonzero) for s, p in self.pieces.items() if p}
        centre = {s: np.nonzero(mask)[2].mean() for s, mask in largest.items()}
        middle = sum(centre.values()) / 2 if len(largest) == 2 else None
        if len(largest) == 2 and centre[RIGHT] > centre[LEFT]:
            small, large = sorted(self.ml_of(mask) for mask in largest.values())
            if small >= self.limits.whole_ml and small >= self.limits.alike * large:
                self.pieces = {RIGHT: self.pieces[LEFT], LEFT: self.pieces[RIGHT]}
                largest = {RIGHT: largest[LEFT], LEFT: largest[RIGHT]}
            else:
                middle = None
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


LIMITS = st.builds(
    CleanUp,
    hole_cm2=st.floats(0.05, 2.0),
    piece_ml=st.floats(0.01, 1.5),
    lung_ml=st.floats(0.0, 2.0),
    whole_ml=st.sampled_from((0.0131, 0.213, 1.17)),  # no ratios of whole numbers: they may be met
    alike=st.sampled_from((0.217, 0.613)),
    joined=st.sampled_from((0.713, 1.37, 2.91)),
    part=st.sampled_from((0.317, 0.517, 0.971)),
)


@settings(max_examples=150)
@given(
    blobs(classes=3, shapes=st.tuples(st.integers(1, 7), st.integers(2, 16), st.integers(2, 16))),
    LIMITS, st.booleans(),
)  # fmt: skip
def test_the_clean_up_is_that_of_its_plain_version(labels, limits, uneven):
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 3.0, 2.0, 2.5, 1.0
    heights = tuple(2.0 * z * (z + 1) / 2 for z in range(len(labels))) if uneven else ()
    volume = Volume(
        voxels_zyx=np.zeros(labels.shape, np.int16), affine_lps_mm=affine,
        heights_mm=heights if len(labels) > 1 else (),
    )  # fmt: skip
    plain = PlainCleanUp(labels, volume, limits).run(np.zeros_like(labels))
    assert np.array_equal(cleaned(labels, volume, limits), plain)


@st.composite
def one_lung(draw):
    """A lung of 150 ml and more anywhere in the matrix; a box in it that has the other name."""
    at = [draw(st.integers(0, 8)) for _ in range(3)]
    size = [draw(st.integers(16, 24)) for _ in range(3)]
    side = draw(st.sampled_from((RIGHT, LEFT)))
    labels = np.zeros((32, 32, 32), np.uint8)
    lung = tuple(slice(a, a + n) for a, n in zip(at, size, strict=True))
    labels[lung] = side
    first = [draw(st.integers(0, n - 1)) for n in size]
    most = [draw(st.integers(1, n)) for n in size]
    most[draw(st.integers(0, 2))] //= 4  # at most a fourth of the lung
    inner = tuple(slice(f, f + max(1, m)) for f, m in zip(first, most, strict=True))
    labels[lung][inner] = RIGHT + LEFT - side
    return labels, side


@given(one_lung())
def test_a_small_part_of_one_lung_never_takes_the_rest_to_the_other_side(drawn):
    labels, side = drawn
    affine = np.diag([4.0, 4.0, 4.0, 1.0])[[2, 1, 0, 3]]
    found = cleaned(labels, Volume(voxels_zyx=labels, affine_lps_mm=affine))
    rest = labels == side
    assert np.count_nonzero(found[rest] == side) >= 0.9 * np.count_nonzero(rest)
    assert np.count_nonzero(found == side) >= 0.7 * np.count_nonzero(labels)
