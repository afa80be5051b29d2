"""A stack that is no regular grid, as one that is; and labels back onto the planes they came from.

A tilted gantry shears the stack: the planes are parallel and rectangular, but not stacked along
their normal. That is an affine map, so nothing has to be guessed; only uneven spacing asks for
values between planes that were not scanned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)

from dicom_node.domain.errors import NotAVolume
from dicom_node.domain.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_GRID_BYTES = 4 << 30
_MARGIN = 1  # voxels around a label, where the distance to it is negative


def regular(volume: Volume, *, max_bytes: int = MAX_GRID_BYTES) -> Volume:
    """The same body on an orthogonal grid of even spacing that holds all of `volume`.

    The slice axis stays where the table moved, so slices of a tilted gantry become axial ones; rows
    stay as parallel to the old ones as they can. Voxels keep their size and data type; between old
    ones values are linear. Outside the stack the nearest old voxel is continued: a model sees whole
    bodies at the slanting ends, and no label from there comes back to a plane of the source.
    Raises NotAVolume where the grid is too large.
    """
    even = _even(volume, max_bytes)
    affine, shape = _grid_around(even)
    if shape[0] * shape[1] * shape[2] * 4 > max_bytes:
        named = " x ".join(str(n) for n in shape)
        raise NotAVolume(f"the regular grid around the stack has {named} voxels: too many")
    into = np.linalg.inv(even.affine_lps_mm) @ affine
    voxels = _resampled(
        np.ascontiguousarray(even.voxels_zyx, np.float32), into, shape, sitk.sitkLinear, None
    )
    return Volume(voxels_zyx=_as_type(voxels, volume.voxels_zyx.dtype), affine_lps_mm=affine)


def mapped_back(labels_zyx: NDArray[np.uint8], grid: Volume, source: Volume) -> NDArray[np.uint8]:
    """Labels on `grid` as labels of the planes of `source`: uint8, the shape of its voxels.

    What is interpolated is the distance to the border of each label: a plane that lies between two
    of the grid gets a border between theirs. What lies outside the grid is 0.
    """
    out = np.zeros(source.voxels_zyx.shape, np.uint8)
    best = np.zeros(source.voxels_zyx.shape, np.float32)
    into = np.linalg.inv(grid.affine_lps_mm) @ source.affine_lps_mm
    for number in (int(n) for n in np.unique(labels_zyx) if n):
        found = labels_zyx == number
        box = _box(found)
        first = np.array([ends[0] for ends in box], np.float64)
        depth = _depth(found, box, grid.spacing_zyx_mm)
        _paint(out, best, number, depth, _moved(into, -first), source.slice_indices)
    return out


def _box(found: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where it is true, in each axis, with a margin that may reach beyond the array."""
    ranges = []
    for axis in range(3):
        rest = tuple(a for a in range(3) if a != axis)
        at = np.flatnonzero(found.any(axis=rest))
        ranges.append((int(at[0]) - _MARGIN, int(at[-1]) + 1 + _MARGIN))
    return ranges


def _depth(
    found: NDArray[np.bool_], box: Sequence[tuple[int, int]], spacing_zyx_mm: Sequence[float]
) -> NDArray[np.float32]:
    """Within the box: mm to the nearest voxel outside, negative outside to the nearest inside."""
    shown = np.zeros([high - low for low, high in box], np.uint8)
    inner = tuple(slice(_MARGIN, size - _MARGIN) for size in shown.shape)
    shown[inner] = found[tuple(slice(low + _MARGIN, high - _MARGIN) for low, high in box)]
    return _mm_to(1 - shown, spacing_zyx_mm) - _mm_to(shown, spacing_zyx_mm)


def _mm_to(mask: NDArray[np.uint8], spacing_zyx_mm: Sequence[float]) -> NDArray[np.float32]:
    """From each voxel to the nearest one of the mask; 0 in the mask."""
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing([float(s) for s in reversed(spacing_zyx_mm)])
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    far: NDArray[np.float32] = sitk.GetArrayFromImage(distance)
    return np.maximum(far, 0, out=far)


def _paint(  # in place: `out` where `depth` is deeper than `best`
    out: NDArray[np.uint8],
    best: NDArray[np.float32],
    number: int,
    depth: NDArray[np.float32],
    into: NDArray[np.float64],
    slice_indices: NDArray[np.float64],
) -> None:
    ends = [(0.0, size - 1.0) for size in depth.shape]
    reach = (np.linalg.inv(into) @ np.vstack((_corners(ends), np.ones(8))))[:3]
    low, high = np.floor(reach.min(axis=1)), np.ceil(reach.max(axis=1)) + 1
    (top, left), (bottom, right) = (
        np.clip(e[1:], 0, out.shape[1:]).astype(int) for e in (low, high)
    )
    if top >= bottom or left >= right:
        return
    shape = (1, int(bottom - top), int(right - left))
    for k in np.flatnonzero((slice_indices > low[0]) & (slice_indices < high[0])):
        here = _moved(into, into[:3, :3] @ (slice_indices[k], top, left))
        plane = _resampled(depth, here, shape, sitk.sitkLinear, -1.0)[0]
        shown = best[k, top:bottom, left:right]
        deeper = plane > shown
        out[k, top:bottom, left:right][deeper] = number
        shown[deeper] = plane[deeper]


def _moved(affine: NDArray[np.floating[Any]], by: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    moved = np.array(affine, np.float64)
    moved[:3, 3] += by
    return moved


def _corners(ranges: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """The eight corners of a box, as columns."""
    return np.array(np.meshgrid(*ranges), np.float64).reshape(3, -1)


def _even(volume: Volume, max_bytes: int) -> Volume:
    """The planes at even distances, along the line on which they are stacked."""
    if not volume.heights_mm:
        return volume
    heights = np.array(volume.heights_mm)
    steps = max(1, round(float(heights[-1] / np.median(np.diff(heights)))))
    count = steps + 1
    plane = volume.voxels_zyx.shape[1:]
    if count * plane[0] * plane[1] * 4 > max_bytes:
        raise NotAVolume(f"an even stack of these planes has {count} of them: too many")
    wanted = np.linspace(0.0, heights[-1], count)
    voxels = np.empty((count, *plane), np.float32)
    for out, height in zip(voxels, wanted, strict=True):
        upper = int(np.clip(np.searchsorted(heights, height), 1, len(heights) - 1))
        share = (height - heights[upper - 1]) / (heights[upper] - heights[upper - 1])
        out[...] = volume.voxels_zyx[upper - 1] * (1 - share) + volume.voxels_zyx[upper] * share
    affine = volume.affine_lps_mm.copy()
    affine[:3, 0] *= (len(heights) - 1) / steps
    return replace(
        volume,
        voxels_zyx=voxels,
        affine_lps_mm=affine,
        instance_uids=(),
        heights_mm=(),
        slice_keys=(),
    )


def _grid_around(volume: Volume) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Affine and shape of the orthogonal grid."""
    step, down, along = volume.affine_lps_mm[:3, :3].T
    slices = step / np.linalg.norm(step)
    columns = along - slices * (along @ slices)
    columns /= np.linalg.norm(columns)
    rows = np.cross(slices, columns)
    rows *= np.sign(rows @ down)
    spacing = volume.spacing_zyx_mm
    axes = np.stack((slices, rows, columns), axis=1) * spacing
    last = np.array(volume.voxels_zyx.shape) - 1
    corners = volume.affine_lps_mm[:3, :3] @ _corners([(0.0, float(n)) for n in last])
    there = np.linalg.inv(axes) @ corners
    low = np.floor(there.min(axis=1) + 1e-6)
    high = np.ceil(there.max(axis=1) - 1e-6)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = volume.affine_lps_mm[:3, 3] + axes @ low
    depth, height, width = (int(n) for n in high - low + 1)
    return affine, (depth, height, width)


def _resampled(
    array: NDArray[Any],
    into: NDArray[np.float64],
    shape: tuple[int, ...],
    interpolator: int,
    outside: float | None,
) -> NDArray[Any]:
    """`array` at into @ (slice, row, column, 1) for each index of an array of that shape.

    outside: the value where the array does not reach, None for that of its nearest voxel.
    """
    turn = np.eye(3)[::-1]  # to x, y, z
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((turn @ into[:3, :3] @ turn).ravel().tolist())
    transform.SetTranslation((turn @ into[:3, 3]).tolist())
    image = sitk.Resample(
        sitk.GetImageFromArray(array),
        [int(n) for n in reversed(shape)],
        transform,
        interpolator,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        np.eye(3).ravel().tolist(),
        0.0 if outside is None else float(outside),
        sitk.sitkUnknown,
        outside is None,
    )
    found: NDArray[Any] = sitk.GetArrayFromImage(image)
    return found


def _as_type(voxels: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[np.generic]:
    if dtype.kind == "f":
        return voxels
    return np.rint(voxels, out=voxels).astype(dtype)
