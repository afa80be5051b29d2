"""Branching vessels of the chest phantom's lungs, drawn as soft tubes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

LEAF_MM = 0.52  # radius of the last branches
MURRAY = 2.75  # radius to this power is kept where a vessel divides


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A tapered piece of vessel; ends are (z, y, x) in mm; depth counts divisions from the root."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    start_mm: float
    end_mm: float
    depth: int


def grow(root_zyx: tuple[float, float, float], leaves_zyx: Points) -> list[Branch]:
    """A tree from `root_zyx` that reaches every leaf, shape (leaves, 3), in mm.

    The leaves are halved across their longest direction again and again; each vessel runs towards
    the middle of the leaves that it feeds, and is as thick as their number asks.
    """
    branches: list[Branch] = []
    waiting = [(np.asarray(root_zyx, float), leaves_zyx, _radius(len(leaves_zyx)), 0)]
    while waiting:
        start, leaves, start_mm, depth = waiting.pop()
        end_mm = _radius(len(leaves))
        share = 1.0 if len(leaves) == 1 else 0.42
        end = start + share * (leaves.mean(axis=0) - start)
        branches.append(
            Branch(
                start=(start[0], start[1], start[2]),
                end=(end[0], end[1], end[2]),
                start_mm=start_mm,
                end_mm=end_mm,
                depth=depth,
            )
        )
        if len(leaves) > 1:
            waiting += [
                (end, half, min(end_mm, _radius(len(half)) * 1.15), depth + 1)
                for half in _halves(leaves)
            ]
    return branches


def draw(
    into: NDArray[np.uint8],
    branches: list[Branch],
    origin_zyx_mm: tuple[float, float, float],
    spacing_zyx_mm: tuple[float, float, float],
) -> None:
    """Add each branch to `into`, uint8 (slices, rows, columns): the share of the voxel, 0..255.

    A vessel thinner than a slice is paler, as in a real slice.
    """
    for b in branches:
        _draw_one(into, b, np.asarray(origin_zyx_mm), np.asarray(spacing_zyx_mm))


def _draw_one(into: NDArray[np.uint8], b: Branch, origin: Points, spacing: Points) -> None:
    p, q = np.asarray(b.start), np.asarray(b.end)
    reach = max(b.start_mm, b.end_mm) + spacing * (0.7, 1.0, 1.0)
    first = np.maximum(np.ceil((np.minimum(p, q) - reach - origin) / spacing), 0).astype(int)
    last = np.floor((np.maximum(p, q) + reach - origin) / spacing).astype(int) + 1
    last = np.minimum(last, into.shape)
    if (last <= first).any():
        return
    z, y, x = (
        (origin[a] + spacing[a] * np.arange(first[a], last[a]) - p[a]).astype(np.float32)
        for a in range(3)
    )
    z, y = z[:, None, None], y[:, None]
    d = q - p
    t = np.clip((z * d[0] + y * d[1] + x * d[2]) / max(float(d @ d), 1e-6), 0.0, 1.0)
    off_z = np.maximum(np.abs(z - t * d[0]) - 0.35 * spacing[0], 0.0)
    distance = np.sqrt(off_z**2 + (y - t * d[1]) ** 2 + (x - t * d[2]) ** 2)
    radius = b.start_mm + t * (b.end_mm - b.start_mm)
    edge = max(float(spacing[1]), 0.6)
    pale = np.minimum(1.0, (2.4 * radius / np.maximum(spacing[0], edge)) ** 0.8)
    share = np.clip(0.5 - (distance - radius) / (1.3 * edge), 0.0, 1.0) * pale
    part = into[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
    np.maximum(part, (share * 255).astype(np.uint8), out=part)


def _radius(leaves: int) -> float:
    return float(LEAF_MM * leaves ** (1.0 / MURRAY))


def _halves(leaves: Points) -> tuple[Points, Points]:
    centred = leaves - leaves.mean(axis=0)
    _values, vectors = np.linalg.eigh(centred.T @ centred)
    along = centred @ vectors[:, -1]
    order = np.argsort(along, kind="stable")
    middle = len(order) // 2
    return leaves[order[:middle]], leaves[order[middle:]]
