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

OUTSIDE_HU = -1024
MAX_GRID_BYTES = 4 << 30


def regular(volume: Volume, *, max_bytes: int = MAX_GRID_BYTES) -> Volume:
    """The same body on an orthogonal grid of even spacing that holds all of `volume`.

    The slice axis stays where the table moved, so slices of a tilted gantry become axial ones; rows
    stay as parallel to the old ones as they can. Voxels keep their size and data type; between old
    ones values are linear, outside them OUTSIDE_HU. Raises NotAVolume where the grid is too large.
    """
    even = _even(volume, max_bytes)
    affine, shape = _grid_around(even)
    if shape[0] * shape[1] * shape[2] * 4 > max_bytes:
        named = " x ".join(str(n) for n in shape)
        raise NotAVolume(f"the regular grid around the stack has {named} voxels: too many")
    into = np.linalg.inv(even.affine_lps_mm) @ affine
    voxels = _resampled(
        np.ascontiguousarray(even.voxels_zyx, np.float32), into, shape, sitk.sitkLinear, OUTSIDE_HU
    )
    return Volume(voxels_zyx=_as_type(voxels, volume.voxels_zyx.dtype), affine_lps_mm=affine)


def mapped_back(labels_zyx: NDArray[np.uint8], grid: Volume, source: Volume) -> NDArray[np.uint8]:
    """Labels on `grid` as labels of the planes of `source`: uint8, the shape of its voxels.

    Each plane is cut out of the labels where it lies; borders between labels are smooth, so that
    the steps of the grid do not show. What lies outside the grid is 0.
    """
    out = np.zeros(source.voxels_zyx.shape, np.uint8)
    if not labels_zyx.any():
        return out
    into = np.linalg.inv(grid.affine_lps_mm) @ source.affine_lps_mm
    low, high = _reach(labels_zyx, np.linalg.inv(into))
    (top, left), (bottom, right) = (
        np.clip(np.rint(ends[1:]).astype(int), 0, out.shape[1:]) for ends in (low, high)
    )
    if top >= bottom or left >= right:
        return out
    shape = (1, int(bottom - top), int(right - left))
    for k, index in enumerate(source.slice_indices):
        if low[0] < index < high[0]:
            here = into.copy()
            here[:3, 3] = (into @ (index, top, left, 1.0))[:3]
            out[k, top:bottom, left:right] = _cut(labels_zyx, here, shape)
    return out


def _reach(
    labels_zyx: NDArray[np.uint8], outof: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest index (slice, row, column) of the source that a label can reach."""
    ranges = []
    for axis in range(3):
        rest = tuple(a for a in range(3) if a != axis)
        found = np.flatnonzero(labels_zyx.any(axis=rest))
        ranges.append((found[0] - 1, found[-1] + 1))
    there = outof[:3] @ np.vstack((_corners(ranges), np.ones(8)))
    return np.floor(there.min(axis=1)), np.ceil(there.max(axis=1)) + 1


def _cut(
    labels_zyx: NDArray[np.uint8], into: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """One plane of the labels; only the slices that it cuts through are looked at."""
    ends = into[0, 3] + _corners([(0, 0), (0, shape[1]), (0, shape[2])]).T @ into[0, :3]
    first = max(int(np.floor(ends.min())) - 1, 0)
    last = min(int(np.ceil(ends.max())) + 2, len(labels_zyx))
    if first >= last:
        return np.zeros(shape[1:], np.uint8)
    into[0, 3] -= first
    part = np.ascontiguousarray(labels_zyx[first:last])
    found: NDArray[np.uint8] = _resampled(part, into, shape, sitk.sitkLabelLinear, 0)[0]
    return found


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
    return replace(volume, voxels_zyx=voxels, affine_lps_mm=affine, instance_uids=(), heights_mm=())


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
    outside: float,
) -> NDArray[Any]:
    """`array` at into @ (slice, row, column, 1) for each index of an array of that shape."""
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
        float(outside),
    )
    found: NDArray[Any] = sitk.GetArrayFromImage(image)
    return found


def _as_type(voxels: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[np.generic]:
    if dtype.kind == "f":
        return voxels
    return np.rint(voxels, out=voxels).astype(dtype)
