"""What is known of lungs and not of pixels: two sides, few pieces, no small holes, a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)

from dicom_node.domain.tool import MILLILITRE, VOLUME, Measurement
from dicom_node.domain.volume import Volume
from dicom_node.tools.outside import open_air
from dicom_node.tools.sheet import holes_of_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIGHT, LEFT = 1, 2
_WALL_MM = 2.0  # of a chest wall is not overlooked
_ROWS_MM = 4.0  # between rows in which it is looked where both sides touch


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanUp:
    """Limits of the clean-up.

    hole_cm2: a larger hole in a slice may be the dome of the diaphragm, ringed by lung.
    piece_ml: a smaller piece is not lung, unless it is the largest of its side.
    lung_ml: a side with less in total was not there at all.
    whole_ml, alike: pieces of so much each, the smaller with this share of the larger at least, are
    two lungs, and tell which is which by where they lie.
    outside_ml: a piece of less than that which lies in the open air for the most part is a cloth or
    the streaks of metal; a larger one is left to doubts.
    joined, part: what touches the other side more widely (see `joint`), and has at most this share
    of what it touches, is a part of it: two lungs have the mediastinum between them.
    """

    hole_cm2: float = 4.0
    piece_ml: float = 10.0
    lung_ml: float = 5.0
    whole_ml: float = 100.0
    alike: float = 0.2
    outside_ml: float = 250.0
    joined: float = 0.8
    part: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pieces:
    """The pieces of one side.

    numbers: 0 = none, else 1.. [slice, row, column]; ml, centre_x (column index): by number.
    largest: the number of the largest piece, 0 when there is none. rest: where the others are,
    indices of the flat array.
    """

    numbers: NDArray[np.unsignedinteger[Any]]
    ml: NDArray[np.float64]
    centre_x: NDArray[np.float64]
    largest: int
    rest: NDArray[np.intp]


def cleaned(
    labels_zyx: NDArray[np.uint8],
    volume: Volume,
    limits: CleanUp | None = None,
) -> NDArray[np.uint8]:
    """RIGHT and LEFT as anatomy has them: uint8, a new array of the same shape.

    labels_zyx: 0, RIGHT, LEFT, the shape of `volume`, which has canonical axes and HU. What is
    joined to a larger other side, and pieces that only touch the other side, change to it; small
    ones go, and those outside the body; small holes of a slice are filled; a side with next to
    nothing goes.
    """
    limits = limits or CleanUp()
    window = _window(labels_zyx)
    if window is None:
        return np.zeros_like(labels_zyx)
    voxel_ml = volume.voxel_ml_of_slices[window[0]]
    shown = np.array(labels_zyx[window], order="C")
    sides = _sides(shown, voxel_ml)
    if _bared(shown, sides, volume, window, limits):
        sides = _sides(shown, voxel_ml)
    if _joined_up(shown, sides, volume.spacing_zyx_mm, limits):
        sides = _sides(shown, voxel_ml)
    shown = _anatomical(shown, sides, limits)
    del sides
    pixel_cm2 = volume.spacing_zyx_mm[1] * volume.spacing_zyx_mm[2] / 100.0
    for side in (RIGHT, LEFT):
        if np.count_nonzero(shown == side, axis=(1, 2)) @ voxel_ml < limits.lung_ml:
            shown[shown == side] = 0
        else:
            _fill_small_holes(shown, side, limits.hole_cm2 / pixel_cm2)
    out = np.zeros(labels_zyx.shape, np.uint8)  # not before: the pieces take much memory
    out[window] = shown
    return out


def joint(labels_zyx: NDArray[np.uint8], volume: Volume) -> float:
    """How widely both sides touch: in cm², for each ml of the smaller one to the power of 2/3.

    0 where they do not touch. The lungs of chests gave at most 0.4, parts of one lung 3 and more; a
    box that is cut across its long side gives 0.9, a cube 1.6.
    """
    window = _window(labels_zyx)
    if window is None:
        return 0.0
    _, _, cm2 = _touch(labels_zyx[window], volume.spacing_zyx_mm)
    if not len(cm2):
        return 0.0
    ml = volume.ml_of(labels_zyx)
    return float(cm2.sum() / min(ml[RIGHT], ml[LEFT]) ** (2 / 3)) if len(ml) == 2 else 0.0


def measured(labels_zyx: NDArray[np.uint8], volume: Volume) -> tuple[Measurement, ...]:
    """The volume of each lung that was found, on the grid of `volume`.

    Uneven slices count with the part of the body that each stands for.
    """
    ml = volume.ml_of(labels_zyx)
    return tuple(
        Measurement(name=VOLUME, value=round(ml[side], 2), unit=MILLILITRE, segment=side)
        for side in (RIGHT, LEFT)
        if side in ml
    )


def remarks(labels_zyx: NDArray[np.uint8]) -> tuple[str, ...]:
    """What a reader of the result should know; canonical axes."""
    names = {RIGHT: "right", LEFT: "left"}
    found = [name for side, name in names.items() if np.any(labels_zyx == side)]
    if not found:
        return ("No lung was found in this series.",)
    notes = []
    if len(found) == 1:
        other = "left" if found == ["right"] else "right"
        notes.append(f"Only the {found[0]} lung was found; no {other} lung was recognised.")
    ends = [name for at, name in ((0, "lowest"), (-1, "highest")) if labels_zyx[at].any()]
    if ends:
        notes.append(
            f"Lung reaches the {' and the '.join(ends)} slice: the lungs were scanned in part, and "
            "the volumes are those of that part."
        )
    return tuple(notes)


def _anatomical(
    labels: NDArray[np.uint8], sides: dict[int, _Pieces], limits: CleanUp
) -> NDArray[np.uint8]:
    """Every piece on its side, or nowhere."""
    out = labels
    if _mirrored(sides, limits):
        sides = {RIGHT: sides[LEFT], LEFT: sides[RIGHT]}
        out = np.array((0, LEFT, RIGHT), np.uint8)[out]
    chosen = {side: _kept(sides[side], limits.piece_ml) for side in sides}
    middle = _middle(sides)
    for side, other in ((RIGHT, LEFT), (LEFT, RIGHT)):
        goes_to = np.where(chosen[side], side, 0).astype(np.uint8)
        for piece in _touching(sides[side], sides[other].numbers, chosen[other]):
            if not chosen[side][piece] or _beyond(sides[side].centre_x[piece], middle, side):
                goes_to[piece] = other
        rest = sides[side].rest
        out.reshape(-1)[rest] = goes_to[sides[side].numbers.reshape(-1)[rest]]
    return out


def _sides(labels: NDArray[np.uint8], voxel_ml: NDArray[np.float64]) -> dict[int, _Pieces]:
    return {side: _pieces(labels == side, voxel_ml) for side in (RIGHT, LEFT)}


def _bared(
    labels: NDArray[np.uint8],
    sides: dict[int, _Pieces],
    volume: Volume,
    window: tuple[slice, slice, slice],
    limits: CleanUp,
) -> bool:
    """Take away, in place, what is outside the body. Returns whether there was any.

    labels: those of `window`. Looked at are the pieces that would stay otherwise.
    """
    found = False
    for pieces in sides.values():
        chosen = _kept(pieces, limits.piece_ml) & (pieces.ml < limits.outside_ml) & (pieces.ml > 0)
        for number in np.flatnonzero(chosen):
            piece = pieces.numbers == number
            if _in_open_air(piece, labels, volume, window):
                labels[piece] = 0
                found = True
    return found


def _in_open_air(
    piece: NDArray[np.bool_],
    labels: NDArray[np.uint8],
    volume: Volume,
    window: tuple[slice, slice, slice],
) -> bool:
    """Whether most of a piece is; both are those of `window`."""
    levels = np.flatnonzero(piece.any(axis=(1, 2)))
    slices = slice(int(levels[0]), int(levels[-1]) + 1)
    seen = np.asarray(volume.voxels_zyx)[window[0]][slices]
    steps = tuple(
        slice(None, None, max(1, int(_WALL_MM // mm))) for mm in volume.spacing_zyx_mm[1:]
    )
    shown = np.zeros(seen.shape, np.uint8)
    shown[:, *window[1:]] = np.greater(labels[slices], 0) + np.asarray(piece[slices], np.uint8)
    shown = shown[:, *steps]
    bare = open_air(seen[:, *steps], shown > 0)[shown > 1]
    return bool(np.count_nonzero(bare) > bare.size / 2)


def _joined_up(
    labels: NDArray[np.uint8],
    sides: dict[int, _Pieces],
    spacing_zyx_mm: tuple[float, float, float],
    limits: CleanUp,
) -> bool:
    """Give what is a part of the other lung to it, in place. Returns whether there was any."""
    most = {side: sides[side].ml[sides[side].largest] for side in sides}
    side, other = sorted(most, key=lambda s: float(most[s]))
    if not most[side] or most[side] > limits.part * most[other]:
        return False
    *at, cm2 = _touch(labels, spacing_zyx_mm)
    pieces = sides[side]
    touching = np.bincount(
        pieces.numbers.reshape(-1)[at[side - RIGHT]], weights=cm2, minlength=len(pieces.ml)
    )
    wide = touching > limits.joined * pieces.ml ** (2 / 3)
    if not wide[pieces.largest]:
        return False
    labels[wide[pieces.numbers]] = other
    return True


def _touch(
    labels: NDArray[np.uint8], spacing_zyx_mm: tuple[float, float, float]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The faces that both sides share: which voxel of RIGHT, and of LEFT, and how many cm² each.

    Voxels are indices of the flat array. The faces are those in every so many rows, and each stands
    for as many more.
    """
    rows = max(1, round(_ROWS_MM / spacing_zyx_mm[1]))
    every = (1, rows, 1)
    found: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]] = []
    for axis in range(3):
        near, far = (
            labels[tuple(slice(by if a == axis else 0, None, every[a]) for a in range(3))]
            for by in (0, 1)
        )
        near = near[tuple(slice(n) for n in far.shape)]
        both = np.bitwise_xor(near, far) == RIGHT ^ LEFT
        at = np.unravel_index(np.flatnonzero(both), both.shape)
        places = [indices * step for indices, step in zip(at, every, strict=True)]
        first = np.ravel_multi_index(places, labels.shape)
        places[axis] = places[axis] + 1
        second = np.ravel_multi_index(places, labels.shape)
        is_right = near[at] == RIGHT
        cm2 = rows * float(np.prod(spacing_zyx_mm)) / spacing_zyx_mm[axis] / 100.0
        right, left = np.where(is_right, first, second), np.where(is_right, second, first)
        found.append((right, left, np.full(len(first), cm2)))
    right, left, areas = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return right, left, areas


def _pieces(mask: NDArray[np.bool_], voxel_ml: NDArray[np.float64]) -> _Pieces:
    numbers = _numbered(mask)
    sizes, sums = _sizes(mask, numbers)
    ml = sizes * voxel_ml[0]
    if np.any(voxel_ml != voxel_ml[0]):
        planes = zip(numbers, voxel_ml, strict=True)
        ml = sum((np.bincount(p.ravel(), minlength=len(sizes)) * v for p, v in planes), 0 * ml)
        ml[0] = 0.0
    largest = int(sizes.argmax())
    return _Pieces(
        numbers=numbers,
        ml=ml,
        centre_x=sums / np.maximum(sizes, 1),
        largest=largest,
        rest=np.flatnonzero(mask & (numbers != largest)),
    )


def _numbered(mask: NDArray[np.bool_]) -> NDArray[np.unsignedinteger[Any]]:
    """The number of the piece of each voxel, in as few bytes as the numbers need."""
    joined = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.view(np.uint8)))
    found = sitk.GetArrayViewFromImage(joined)
    return np.array(found, np.min_scalar_type(int(found.max(initial=0))))


def _sizes(
    mask: NDArray[np.bool_], numbers: NDArray[np.unsignedinteger[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Voxels of each piece, and the sum of their column indices.

    Counted in all pieces but one, which is what they leave: one is nearly the whole of a lung.
    """
    count = int(numbers.max()) + 1
    some = np.bincount(numbers[::2, ::8, ::8].ravel(), minlength=count)
    some[0] = 0
    main = int(some.argmax())
    others = np.flatnonzero(mask & (numbers != main))
    of = numbers.reshape(-1)[others]
    columns = np.count_nonzero(mask, axis=(0, 1))
    sizes = np.bincount(of, minlength=count).astype(np.int64)
    sums = np.bincount(of, weights=others % mask.shape[2], minlength=count).astype(np.float64)
    sizes[main] = columns.sum() - sizes.sum()
    sums[main] = columns @ np.arange(len(columns)) - sums.sum()
    return sizes, sums


def _kept(pieces: _Pieces, piece_ml: float) -> NDArray[np.bool_]:
    """Which pieces stay: the largest, and all that are large; number 0 is no piece."""
    kept = pieces.ml >= piece_ml
    kept[pieces.largest] = True
    kept[0] = False
    return kept


def _touching(
    pieces: _Pieces, other: NDArray[np.unsignedinteger[Any]], chosen: NDArray[np.bool_]
) -> list[int]:
    """Numbers of the pieces, but the largest, that have a face in common with chosen others."""
    found: set[int] = set()
    places = np.unravel_index(pieces.rest, other.shape)
    numbers = pieces.numbers.reshape(-1)[pieces.rest]
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)):
        at = list(places)
        at[axis] = np.clip(at[axis] + step, 0, other.shape[axis] - 1)
        found.update(np.unique(numbers[chosen[other[at[0], at[1], at[2]]]]).tolist())
    return sorted(found)


def _middle(sides: dict[int, _Pieces]) -> float | None:
    """The column between the largest pieces of both sides, where they lie the right way round."""
    right, left = _centres(sides)
    return (right + left) / 2 if right <= left else None


def _centres(sides: dict[int, _Pieces]) -> tuple[float, float]:
    """The columns of the largest pieces of RIGHT and LEFT; nan for a side that has none."""
    right, left = (
        float(sides[side].centre_x[sides[side].largest]) if sides[side].largest else float("nan")
        for side in (RIGHT, LEFT)
    )
    return right, left


def _beyond(centre_x: float, middle: float | None, side: int) -> bool:
    """Whether a piece lies in the other half: the patient's right is at low columns."""
    if middle is None:
        return False
    return centre_x > middle if side == RIGHT else centre_x < middle


def _mirrored(sides: dict[int, _Pieces], limits: CleanUp) -> bool:
    """Whether there are two lungs, and they lie the wrong way round."""
    small, large = sorted(float(pieces.ml[pieces.largest]) for pieces in sides.values())
    right, left = _centres(sides)
    return right > left and small >= max(limits.whole_ml, limits.alike * large)


def _fill_small_holes(labels: NDArray[np.uint8], side: int, most_pixels: float) -> None:
    """In each slice, in place: background ringed by this side, if it is smaller than that."""
    window = _window(labels == side)
    if window is None:
        return
    shown = labels[window]
    holes = holes_of_slices(shown == side)
    at = np.nonzero(holes)
    numbers = holes[at]
    small = np.less(np.bincount(numbers), most_pixels)[numbers] & (shown[at] == 0)
    shown[tuple(axis[small] for axis in at)] = side


def _window(labels: NDArray[np.generic]) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds all labels."""
    ranges: list[Any] = []
    for axis in range(3):
        rest = tuple(a for a in range(3) if a != axis)
        found = np.flatnonzero(labels.any(axis=rest))
        if not len(found):
            return None
        ranges.append(slice(int(found[0]), int(found[-1]) + 1))
    return ranges[0], ranges[1], ranges[2]
