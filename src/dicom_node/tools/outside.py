"""What lies in the open air, and what is only cut off by the edge of the scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dicom_node.tools.body import BODY_HU
from dicom_node.tools.sheet import pieces_of_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOSTLY = 0.5


def open_air(voxels_zyx: NDArray[np.generic], lung_zyx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Air that reaches the edge of its slice, and is not mostly lung.

    voxels_zyx: HU, canonical axes; lung_zyx: of the same shape. A lung that the field of view cuts
    reaches the edge, too, and fills the air that it is in. The edge is that of the largest ellipse
    in the matrix: beyond it scanners write what they like.
    """
    disc, rim = _disc(voxels_zyx.shape[1:])
    numbers = pieces_of_slices(np.less_equal(voxels_zyx, BODY_HU) & disc)
    sizes = np.bincount(numbers.reshape(-1))
    lung = np.bincount(numbers[lung_zyx], minlength=len(sizes))
    found = reaching(numbers, rim) & (lung <= _MOSTLY * sizes)
    return np.asarray(found[numbers])


def reaching(
    numbers: NDArray[np.unsignedinteger[Any]], rim: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Of pieces of slices, by number: which have a pixel on the rim, [row, column]; 0 is none."""
    found = np.zeros(int(numbers.max(initial=0)) + 1, bool)
    found[numbers[:, rim].reshape(-1)] = True
    found[0] = False
    return found


def _disc(shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The largest ellipse in a slice, and its outermost pixels."""
    rows, columns = ((2 * np.arange(n) + 1.0 - n) / n for n in shape)
    disc = rows[:, None] ** 2 + columns**2 < 1.0
    padded = np.pad(disc, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return disc, disc & ~inner
