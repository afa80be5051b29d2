"""Spine, ribs, breastbone and shoulder blades of the chest phantom, as signed distances in mm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dicom_node.testing.anatomy import LEFT, RIGHT, Grid
from dicom_node.testing.shapes import profile, smooth_union

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]

LEVEL_MM = 27.0  # from one vertebra, and one pair of ribs, to the next


def _spine_y(g: Grid) -> Field:
    return profile(g.z, [(-60, 60), (0, 63), (100, 69), (170, 68), (230, 56), (280, 36), (330, 20)])


def vertebrae(g: Grid) -> tuple[Field, Field]:
    """The bodies with arch and processes, and the discs between them."""
    y = g.y - _spine_y(g)
    level = np.mod(g.z, LEVEL_MM) - LEVEL_MM / 2  # 0 in the middle of a body
    waist = 1.0 - 0.09 * np.cos(level / LEVEL_MM * 6.2832)
    size = profile(g.z, [(-60, 1.1), (100, 1.0), (220, 0.88), (300, 0.72)])
    column = (np.hypot(g.x / (19.0 * waist * size), y / (15.5 * waist * size)) - 1.0) * 15.0 * size
    column = np.maximum(column, -(y - 19.0) * 1.5 + 0.0 * g.x - 60.0)
    disc = np.maximum(column, np.abs(np.abs(level) - LEVEL_MM / 2) - 2.6)
    whole = np.maximum(column, 2.6 - np.abs(np.abs(level) - LEVEL_MM / 2))
    ring = np.abs(np.hypot(g.x / 1.12, y - 23.5 * size) - 11.5) - 2.6
    ring = np.maximum(ring, np.abs(level) - 10.0)
    spike_y = y - 36.0 - level * 0.25
    spike = np.maximum(np.abs(g.x) - 3.0, np.abs(spike_y + 4.0) - 15.0)
    spike = np.maximum(spike, np.abs(level + (y - 30.0) * 0.4) - 8.0)
    wings = np.maximum(np.abs(y - 19.0 - np.abs(g.x) * 0.30) - 4.0, np.abs(g.x) - 31.0)
    wings = np.maximum(wings, np.maximum(np.abs(level - 3.0) - 5.5, 11.0 - np.abs(g.x)))
    arch = np.minimum(ring, np.minimum(spike, wings))
    canal = np.hypot(g.x / 1.12, y - 23.5 * size) - 8.8
    bones = np.maximum(smooth_union(whole, arch.astype(np.float32), 3.0), -canal)
    return bones.astype(np.float32), disc.astype(np.float32)


def spinal_canal(g: Grid) -> Field:
    """The dural sac."""
    size = profile(g.z, [(-60, 1.1), (100, 1.0), (220, 0.88), (300, 0.72)])
    sac: Field = (np.hypot(g.x / 1.12, g.y - _spine_y(g) - 23.5 * size) - 7.5).astype(np.float32)
    return sac


def ribs(inside: Field, g: Grid) -> tuple[Field, Field]:
    """The bony ribs and their cartilage: bands on the cavity that fall from back to front."""
    around = np.arctan2(np.abs(g.x), g.y - 42.0) / np.pi  # 0 at the spine, 1 at the breastbone
    fall = 122.0 * np.clip(around, 0.0, 1.0) ** 1.1 - 9.0 * np.clip(around * 5 - 3.6, 0, 1.4) ** 2
    phase = np.mod(g.z + fall - 6.0, LEVEL_MM) - LEVEL_MM / 2
    steep = 1.0 + 0.30 * np.sin(np.pi * around)
    upright, flat = phase / steep / 6.0, (inside - 6.0) / 4.2
    f = np.sqrt(upright * upright + flat * flat)
    band = ((f - 1.0) * 4.6).astype(np.float32)
    end = (around - 0.80) * 90.0
    lowest = np.maximum(-(g.z + fall + 8.0), g.z - 256.0)  # no ribs below the twelfth
    band = np.maximum(band, np.maximum(lowest, 13.0 - np.abs(g.x)))
    return np.maximum(band, end), np.maximum(band, -end)


def breastbone(inside: Field, g: Grid) -> Field:
    """Body and manubrium of the sternum."""
    half = profile(g.z, [(60, 9), (90, 16), (150, 15), (185, 19), (215, 30), (230, 24)])
    plate = np.maximum(np.abs(inside - 7.5) - 5.0, np.abs(g.x) - half)
    plate = np.maximum(plate, np.maximum(80.0 - g.z, g.z - 222.0))
    front: Field = np.maximum(plate, g.y + 10.0).astype(np.float32)
    return front


def shoulder_blades(inside: Field, g: Grid) -> Field:
    """Thin plates behind the ribs, turned outwards by the raised arms."""
    result = np.full(g.x.shape, 40.0, np.float32)
    for side in (RIGHT, LEFT):
        aside = np.arctan2(side * g.x, g.y - 10.0)  # 0 towards the back, pi/2 to the side
        middle = 0.62 + (g.z - 150.0) * 0.0035
        width = profile(g.z, [(100, 0.02), (130, 0.14), (200, 0.34), (260, 0.24)])
        plate = np.maximum(np.abs(inside - 21.0) - 2.4, (np.abs(aside - middle) - width) * 95.0)
        plate = np.maximum(plate, np.maximum(118.0 - g.z, g.z - 258.0))
        result = np.minimum(result, plate.astype(np.float32))
    return result
