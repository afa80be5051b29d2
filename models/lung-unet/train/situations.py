"""The same patients otherwise: lying otherwise, in a smaller field of view, with a full stomach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scores import distance_mm

from dicom_node.domain.volume import Volume

Mask = NDArray[np.bool_]

POSITIONS: dict[str, tuple[tuple[int, int, int], tuple[bool, bool, bool]]] = {
    "slices in reverse": ((0, 1, 2), (True, False, False)),
    "prone": ((0, 1, 2), (False, True, True)),
    "feet first": ((0, 1, 2), (True, False, True)),
    "feet first, prone": ((0, 1, 2), (True, True, False)),
    "coronal": ((1, 0, 2), (False, True, False)),
}
"""How the axes (slice, row, column) are exchanged, and which of them run backwards then."""


def stored_otherwise(volume: Volume, position: str) -> Volume:
    """The same voxels at the same places of the patient, in an array that runs otherwise."""
    axes, flips = POSITIONS[position]
    voxels, affine = volume.voxels_zyx.transpose(axes), volume.affine_lps_mm[:, [*axes, 3]].copy()
    for axis in np.flatnonzero(flips):
        voxels = np.flip(voxels, axis)
        affine[:, 3] += affine[:, axis] * (voxels.shape[axis] - 1)
        affine[:, axis] *= -1
    return Volume(voxels_zyx=np.ascontiguousarray(voxels), affine_lps_mm=affine)


def stored_back(labels: NDArray[np.uint8], position: str) -> NDArray[np.uint8]:
    """Labels of such an array in the order of the former."""
    axes, flips = POSITIONS[position]
    back = np.flip(labels, tuple(np.flatnonzero(flips)))
    return np.asarray(back.transpose(np.argsort(axes)))


Crop = Callable[[NDArray[np.uint8]], tuple[slice, slice, slice]]


def _between(truth: NDArray[np.uint8]) -> int:
    """The column between both lungs (canonical axes; 1 left, 2 right, as in the label files)."""
    right, left = (np.nonzero(truth == value)[2] for value in (2, 1))
    return int((np.median(right) + np.median(left)) / 2)


def _narrow(truth: NDArray[np.uint8]) -> tuple[slice, slice, slice]:
    """A field of view that leaves out the outer fifth of both lungs, and as much in front."""
    lung = (truth == 1) | (truth == 2)
    limits = [np.flatnonzero(lung.any(axis=(0, 3 - axis))) for axis in (1, 2)]
    (top, bottom), (first, last) = ((int(f[0]), int(f[-1]) + 1) for f in limits)
    y, x = (bottom - top) // 5, (last - first) // 5
    return slice(None), slice(top + y, None), slice(first + x, last - x)


def _thirds(truth: NDArray[np.uint8], upper: bool) -> tuple[slice, slice, slice]:
    held = np.flatnonzero(((truth == 1) | (truth == 2)).any(axis=(1, 2)))
    low, high = int(held[0]), int(held[-1]) + 1
    third = max(1, (high - low) // 3)
    chosen = slice(high - third, None) if upper else slice(None, low + third)
    return chosen, slice(None), slice(None)


FIELDS: dict[str, Crop] = {
    "right half": lambda truth: (slice(None), slice(None), slice(None, _between(truth))),
    "left half": lambda truth: (slice(None), slice(None), slice(_between(truth), None)),
    "narrow": _narrow,
    "upper third": lambda truth: _thirds(truth, True),
    "lower third": lambda truth: _thirds(truth, False),
}
"""Parts of a chest, by its label in canonical axes."""


def cropped(volume: Volume, window: tuple[slice, slice, slice]) -> Volume:
    """That part of a volume in canonical axes, where it is."""
    affine = volume.affine_lps_mm.copy()
    starts = [s.indices(n)[0] for s, n in zip(window, volume.voxels_zyx.shape, strict=True)]
    affine[:3, 3] += affine[:3, :3] @ np.array(starts)
    heights = volume.heights_mm[window[0]] if volume.heights_mm else ()
    return Volume(
        voxels_zyx=np.ascontiguousarray(volume.voxels_zyx[window]),
        affine_lps_mm=affine,
        heights_mm=tuple(h - heights[0] for h in heights),
        depth_known=volume.depth_known,
    )


def with_stomach_gas(
    volume: Volume, truth: NDArray[np.uint8], radius_mm: float = 20.0
) -> tuple[Volume, Mask] | None:
    """Gas over fluid in soft tissue close to the left lung's base; and where the gas is.

    Canonical axes; truth as in the label files. None where there is no room of 10 mm at least.
    """
    left, lung = truth == 1, truth > 0
    areas = np.count_nonzero(left, axis=(1, 2))
    widest = int(areas.argmax())
    under = np.flatnonzero(areas[:widest] < 0.5 * areas[widest])
    z = int(under[-1]) if len(under) else 0
    slice_mm, *in_plane = volume.spacing_zyx_mm
    spacing = (in_plane[0], in_plane[1])
    soft = (np.asarray(volume.voxels_zyx[z]) > -200) & ~lung[z]
    if not left[z].any() or soft.all():
        return None
    room = distance_mm(~soft, spacing)
    room[:, : _between(truth)] = 0
    radius = min(radius_mm, float(room.max()) - 3.0)
    if radius < 10.0:
        return None
    away = np.where(room >= radius + 3.0 - 1e-3, distance_mm(left[z], spacing), np.inf)
    y, x = np.unravel_index(int(away.argmin()), away.shape)
    zz, yy, xx = np.ogrid[tuple(slice(0, n) for n in truth.shape)]
    squares = (
        ((zz - z) * slice_mm) ** 2 + ((yy - y) * spacing[0]) ** 2 + ((xx - x) * spacing[1]) ** 2
    )
    ball = (squares < radius**2) & ~lung & (np.asarray(volume.voxels_zyx) > -200)
    gas = ball & ((yy - y) * spacing[0] < 0.3 * radius)
    voxels = volume.voxels_zyx.copy()
    voxels[ball] = 15
    voxels[gas] = -960
    return replace(volume, voxels_zyx=voxels, slice_keys=()), gas
