"""Disease to test with: other shapes and other textures than those that the training paints.

Everything works on whole volumes in canonical axes (slices feet to head, rows front to back,
columns right to left): lung bool (slices, rows, columns), spacing in mm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def level(lung: Mask, spacing: Spacing) -> Mask:
    """The dependent 40 % of a lung, with a horizontal level."""
    del spacing
    rows = np.count_nonzero(lung, axis=(0, 2)).cumsum()
    top = int(np.searchsorted(rows, 0.6 * rows[-1]))
    return lung & (np.arange(lung.shape[1])[None, :, None] > top)


def ball(lung: Mask, spacing: Spacing) -> Mask:
    """30 mm around the most lateral voxel of the slice with the most lung."""
    z = _widest(lung)
    y, x = np.nonzero(lung[z])
    outermost = x.argmin() if x.mean() < lung.shape[2] / 2 else x.argmax()
    return lung & _within((z, int(y[outermost]), int(x[outermost])), 30.0, lung.shape, spacing)


def ball_in_front(lung: Mask, spacing: Spacing) -> Mask:
    """30 mm around the foremost voxel of the slice with the most lung."""
    z = _widest(lung)
    y, x = np.nonzero(lung[z])
    return lung & _within((z, int(y.min()), int(x[y.argmin()])), 30.0, lung.shape, spacing)


def cube(lung: Mask, spacing: Spacing) -> Mask:
    """A cube of 40 mm in the middle of a lung."""
    z = _widest(lung)
    y, x = (int(np.median(a)) for a in np.nonzero(lung[z]))
    axes = np.ogrid[tuple(slice(0, n) for n in lung.shape)]
    inside = np.ones((1, 1, 1), bool)
    for axis, at, mm in zip(axes, (z, y, x), spacing, strict=True):
        inside = inside & (np.abs(axis - at) * mm < 20.0)
    return lung & inside


TRIALS: dict[str, Callable[[Mask, Spacing], Mask]] = {
    "level": level,
    "ball": ball,
    "ball_in_front": ball_in_front,
    "cube": cube,
}


def filled(
    hu: NDArray[np.float32], where: Mask, texture: str, seed: int = 7
) -> NDArray[np.float32]:
    """Opaque there: "grain" is 35 HU with 18 HU of noise, "stripes" 20 to 70 HU in waves."""
    out = hu.copy()
    if texture == "grain":
        out[where] = np.random.default_rng(seed).normal(35, 18, int(where.sum()))
    else:
        rows, columns = np.arange(hu.shape[1])[:, None], np.arange(hu.shape[2])[None, :]
        waves = 45 + 25 * np.sin(rows / 5.0) * np.cos(columns / 7.0)
        out[where] = np.broadcast_to(waves, hu.shape)[where]
    return out


def _widest(lung: Mask) -> int:
    return int(np.count_nonzero(lung, axis=(1, 2)).argmax())


def _within(
    at: tuple[int, int, int], radius: float, shape: tuple[int, ...], spacing: Spacing
) -> Mask:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    squares = [((a - c) * mm) ** 2 for a, c, mm in zip(axes, at, spacing, strict=True)]
    return np.asarray(squares[0] + squares[1] + squares[2] < radius**2)
