"""Signed distances, in millimetres: negative inside, positive outside, nearly so far away.

Arrays broadcast: x, y, z may have any shapes that go together; results are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]

Point = tuple[float, float, float]


def smooth_union(a: Field, b: Field, blend_mm: float) -> Field:
    """The union of two shapes, its inner corner rounded over `blend_mm`."""
    h = np.clip(0.5 + 0.5 * (b - a) / blend_mm, 0.0, 1.0)
    result: Field = b + (a - b) * h - blend_mm * h * (1.0 - h)
    return result


def smooth_cut(a: Field, b: Field, blend_mm: float) -> Field:
    """The part that two shapes share, its outer corner rounded over `blend_mm`."""
    return -smooth_union(-a, -b, blend_mm)


def ellipsoid(x: Field, y: Field, z: Field, centre: Point, radii: Point) -> Field:
    """An ellipsoid along the axes."""
    u, v, w = (x - centre[0]), (y - centre[1]), (z - centre[2])
    a, b, c = (1.0 / r for r in radii)
    f = np.sqrt((u * a) ** 2 + (v * b) ** 2 + (w * c) ** 2)
    g = np.sqrt((u * a * a) ** 2 + (v * b * b) ** 2 + (w * c * c) ** 2)
    result: Field = f * (f - 1.0) / np.maximum(g, 1e-6)
    return result


def superellipse(x: Field, y: Field, half: Field, depth: Field, power: float) -> Field:
    """An upright column |x/half|^power + |y/depth|^power = 1; half and depth may vary along z.

    The distance is taken along the ray from the axis: right at the edge, a little long elsewhere.
    """
    f = (np.abs(x / half) ** power + np.abs(y / depth) ** power) ** (1.0 / power)
    result: Field = np.hypot(x, y) * (f - 1.0) / np.maximum(f, 1e-3)
    return result


def tube(
    x: Field, y: Field, z: Field, points: Sequence[Point], radii: Sequence[float], reach_mm: float
) -> Field:
    """A bent tube through `points` with a radius at each; beyond `reach_mm` only "far" is known.

    z has shape (slices, 1, 1): slices out of reach of a piece are not computed for it.
    """
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    result = np.full(shape, reach_mm, np.float32)
    heights = z.reshape(-1)
    pieces = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    for p, q, r0, r1 in pieces:
        margin = max(r0, r1) + reach_mm
        near = (heights > min(p[2], q[2]) - margin) & (heights < max(p[2], q[2]) + margin)
        if near.any():
            pick = near if z.shape[0] == shape[0] else slice(None)
            part = capsule(_rows(x, pick), _rows(y, pick), z[pick], (p, q), (r0, r1))
            result[near] = np.minimum(result[near], part)
    return result


def capsule(
    x: Field, y: Field, z: Field, ends: tuple[Point, Point], radii: tuple[float, float]
) -> Field:
    """One straight piece of a tube, round at both ends."""
    (px, py, pz), (qx, qy, qz) = ends
    dx, dy, dz = qx - px, qy - py, qz - pz
    length_2 = max(dx * dx + dy * dy + dz * dz, 1e-6)
    t = np.clip(((x - px) * dx + (y - py) * dy + (z - pz) * dz) / length_2, 0.0, 1.0)
    u, v, w = x - px - t * dx, y - py - t * dy, z - pz - t * dz
    result: Field = np.sqrt(u * u + v * v + w * w) - (radii[0] + t * (radii[1] - radii[0]))
    return result


def profile(z: Field, knots: Sequence[tuple[float, float]]) -> Field:
    """A smooth curve through (height, value) pairs, read at the heights z."""
    heights = [k[0] for k in knots]
    values = [k[1] for k in knots]
    shifts = (-14.0, -7.0, 0.0, 7.0, 14.0)
    total = sum(np.interp(z + s, heights, values) for s in shifts)
    return np.asarray(total / len(shifts), np.float32)


def _rows(field: Field, pick: NDArray[np.bool_] | slice) -> Field:
    return field[pick] if field.shape[0] > 1 else field
