"""Where the patient is in the matrix: the body in each slice, and the box around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_node.tools.sheet import holes_of_slices, pieces_of_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRID_MM = 4.0  # the box is looked for on a coarse grid
_SLICES = 48  # and in so many slices at most
BODY_HU = -400.0
_SMALLEST_MM = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Rows top..bottom and columns left..right (ends excluded); square in mm, not in pixels.

    It may reach beyond the matrix.
    """

    top: int
    bottom: int
    left: int
    right: int


def body_box(voxels_zyx: NDArray[np.generic], spacing_yx_mm: tuple[float, float]) -> Box:
    """The square that holds the body in nearly all of these slices, and no table if that is easy.

    voxels_zyx: HU in canonical axes. A network is shown each slice in the box of that slice alone,
    whatever else there is of the Series.
    """
    steps = coarse_steps(spacing_yx_mm)
    chosen = np.unique(np.linspace(0, len(voxels_zyx) - 1, _SLICES).round().astype(int))
    coarse = np.greater(voxels_zyx[chosen, :: steps[0], :: steps[1]], BODY_HU)
    occupied = bodies_of(coarse).mean(axis=0)
    body = occupied > 0.05  # an arm in one slice does not make the box
    if not body.any():
        body = np.ones_like(body)
    limits = [_limits(body.any(axis=1 - a), steps[a], voxels_zyx.shape[1 + a]) for a in (0, 1)]
    sides_mm = [(limits[a][1] - limits[a][0]) * spacing_yx_mm[a] for a in (0, 1)]
    side_mm = max(*sides_mm, _SMALLEST_MM) * 1.03
    top, bottom = _square(limits[0], side_mm / spacing_yx_mm[0])
    left, right = _square(limits[1], side_mm / spacing_yx_mm[1])
    return Box(top=top, bottom=bottom, left=left, right=right)


def coarse_steps(spacing_yx_mm: tuple[float, float]) -> tuple[int, int]:
    """Every how many rows and columns `body_of` wants to see."""
    row, column = (max(1, round(_GRID_MM / s)) for s in spacing_yx_mm)
    return row, column


def bodies_of(planes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The body in each coarse slice, lungs too: the largest piece of what is not air, filled.

    planes: [slice, row, column]; no slice has a say in another. Thin shells, as those of a table,
    are taken away before.
    """
    dense = _opened(planes, crosses=0)
    dense |= holes_of_slices(dense) > 0
    numbers = pieces_of_slices(_opened(dense, crosses=2))
    found = np.zeros(planes.shape, bool)
    for plane, body in zip(numbers, found, strict=True):
        sizes = np.bincount(plane.ravel(), minlength=2)
        np.equal(plane, sizes[1:].argmax() + 1, out=body)
    return found


def body_of(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The body in one coarse slice; see `bodies_of`."""
    (body,) = bodies_of(plane[None])
    return np.asarray(body)


def _opened(planes: NDArray[np.bool_], *, crosses: int) -> NDArray[np.bool_]:
    """What is left when a square of 3 x 3 is moved about in it, grown by so many crosses of 5.

    With two crosses that is a disc of 7. An edge of the image takes nothing away.
    """
    left = _gathered(planes, np.logical_and, crosses)
    return _gathered(left, np.logical_or, crosses)


def _gathered(planes: NDArray[np.bool_], joined: np.ufunc, crosses: int) -> NDArray[np.bool_]:
    """Each pixel joined with those around it; beyond the image lies what changes nothing."""
    margin = 1 + crosses
    beyond = joined is np.logical_and
    around = ((0, 0), (margin, margin), (margin, margin))
    x: NDArray[np.bool_] = np.pad(planes, around, constant_values=beyond)
    x = joined(joined(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    x = joined(joined(x[:, :, :-2], x[:, :, 1:-1]), x[:, :, 2:])
    for _ in range(crosses):
        beside = joined(x[:, 1:-1, :-2], x[:, 1:-1, 2:])
        above = joined(x[:, :-2, 1:-1], x[:, 2:, 1:-1])
        x = joined(joined(beside, above), x[:, 1:-1, 1:-1])
    return x


def _limits(filled: NDArray[np.bool_], step: int, size: int) -> tuple[int, int]:
    found = np.flatnonzero(filled)
    return int(found[0]) * step, min((int(found[-1]) + 1) * step, size)


def _square(limits: tuple[int, int], side: float) -> tuple[int, int]:
    """Limits of the given length around the same centre."""
    start = round((limits[0] + limits[1] - side) / 2)
    return start, start + max(1, round(side))
