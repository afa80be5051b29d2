"""Lungs without a network: air inside the body, parted into two sides.

A plausibility estimate and a tool for tests. It misses what is dense, and takes bowel gas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)

from dicom_node.domain.tool import ToolContext
from dicom_node.tools.body import BODY_HU, body_of, coarse_steps
from dicom_node.tools.lung_tool import Segmented
from dicom_node.tools.lungs import LEFT, RIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dicom_node.domain.volume import Volume

LUNG_HU = -400.0
_WORTH = 0.05  # a piece smaller than this share of the largest is airway or bowel
_TWO = 0.15  # two lungs are at least so alike in size
_EROSIONS_MM = (3.0, 6.0, 10.0, 15.0)  # until the sides come apart


def segment(volume: Volume, context: ToolContext) -> Segmented:
    """0, RIGHT, LEFT for a volume in canonical axes, HU."""
    return Segmented(labels_zyx=labels_of(volume, context.progress))


def labels_of(volume: Volume, progress: Callable[[int, int], None]) -> NDArray[np.uint8]:
    """The same as an array: uint8 [slice, row, column]."""
    inside = np.zeros(volume.voxels_zyx.shape, np.uint8)
    _, row_mm, column_mm = volume.spacing_zyx_mm
    steps = coarse_steps((row_mm, column_mm))
    for z, plane in enumerate(volume.voxels_zyx):
        inside[z] = _inside_body(plane, steps)
        progress(z + 1, len(inside))
    if not inside.any():
        return inside
    spacing_mm = volume.spacing_zyx_mm
    for radius_mm in _EROSIONS_MM:
        seeds = _seeds(inside, spacing_mm, radius_mm)
        if seeds is not None:
            return _nearest(inside, seeds, spacing_mm)
    return _by_middle(inside)


def _inside_body(plane: NDArray[np.generic], steps: tuple[int, int]) -> NDArray[np.uint8]:
    """The air of one slice within the outline of the body."""
    coarse = body_of(np.greater(plane[:: steps[0], :: steps[1]], BODY_HU))
    rows, columns = (np.arange(n) // step for n, step in zip(plane.shape, steps, strict=True))
    inside: NDArray[np.bool_] = np.less(plane, LUNG_HU) & coarse[np.ix_(rows, columns)]
    return inside.astype(np.uint8)


def _seeds(
    inside: NDArray[np.uint8], spacing_mm: tuple[float, float, float], radius_mm: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Cores of the right and the left lung, or None where they hang together or one is missing."""
    eroded = _far_inside(inside, spacing_mm) > radius_mm
    image = sitk.ConnectedComponent(sitk.GetImageFromArray(eroded.astype(np.uint8)))
    numbers = sitk.GetArrayFromImage(sitk.RelabelComponent(image))
    sizes = np.bincount(numbers.ravel(), minlength=3)
    if sizes[2] < _TWO * sizes[1] or not sizes[1]:
        return None
    centres = [np.flatnonzero((numbers == k).any(axis=(0, 1))).mean() for k in (1, 2)]
    right, left = (1, 2) if centres[0] < centres[1] else (2, 1)
    return numbers == right, numbers == left


def _far_inside(
    mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Distance in mm from each voxel of the mask to its border; 0 outside."""
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing([float(s) for s in reversed(spacing_mm)])
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    far: NDArray[np.float32] = np.maximum(sitk.GetArrayFromImage(distance), 0)
    return far


def _nearest(
    inside: NDArray[np.uint8],
    seeds: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Each voxel to the nearer core; pieces much smaller than the largest are left out."""
    to_right, to_left = (_far_inside((~s).astype(np.uint8), spacing_mm) for s in seeds)
    labels = np.where(to_right <= to_left, RIGHT, LEFT).astype(np.uint8)
    return labels * _large(inside)


def _by_middle(inside: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What cannot be parted: by the middle of the matrix, whole where it lies to one side of it."""
    large = _large(inside)
    columns = np.flatnonzero(large.any(axis=(0, 1)))
    middle = inside.shape[2] / 2
    share = float((columns < middle).mean())
    if share < _TWO or share > 1 - _TWO:
        middle = 0.0 if share < _TWO else float(inside.shape[2])
    side = np.where(np.arange(inside.shape[2]) < middle, RIGHT, LEFT).astype(np.uint8)
    return large * side


def _large(inside: NDArray[np.uint8]) -> NDArray[np.uint8]:
    joined = sitk.ConnectedComponent(sitk.GetImageFromArray(inside))
    numbers = sitk.GetArrayFromImage(sitk.RelabelComponent(joined))
    sizes = np.bincount(numbers.ravel(), minlength=2)
    worth = sizes >= _WORTH * sizes[1]
    worth[0] = False
    large: NDArray[np.uint8] = worth.astype(np.uint8)[numbers]
    return large
