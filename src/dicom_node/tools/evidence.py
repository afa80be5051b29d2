"""What can be measured of a segmentation of the lungs without knowing the truth.

All but areas is measured on a grid of 4 mm in the slices, and of at most 8 mm along the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)

from dicom_node.domain.volume import Volume
from dicom_node.tools.body import BODY_HU, body_of, coarse_steps
from dicom_node.tools.lungs import LEFT, RIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

AIR_HU = -500.0  # aerated lung is darker
_STEP_MM = 8.0  # of the grid, along the body
_EDGE_MM = 3.0
_BONE_HU = 350.0
_BONE_LEAST = 20  # points of the grid
_MIDDLE_MM = 35.0  # so near to the middle there is the spine, and the sternum
_SOFT_HU = (-200.0, 300.0)
_LARGE_AIR_ML = 100.0
_OUTSIDE_LEAST = 0.02  # of all points of the grid
_BLOCK = 3  # points of the grid that are averaged where slices are compared: against noise
_SHOWN_HU = (-1000.0, 300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Numbers about a result and its images; nan, or nothing, where they cannot be told.

    ml: of each side that was found; none without a depth. ends: whether lung reaches the lowest and
    the highest slice. pieces: share of the largest piece of each side. edge_cm2: of lung at an edge
    of the matrix or of the scan circle, in the worst slice. jump: side, slice, and change of its
    area against the mean of both neighbours, as a share of its largest area, per 5 mm. misfit:
    slice, and how much nearer its neighbours are to one another than to it (1: as near).
    aerated: share of the lungs darker than AIR_HU. lung_hu: mean of what is. missed_ml,
    covered: air at the height of the lungs, or joined to them, that is not called lung; and the
    share that is. tissue_hu: median of the soft tissue of the body. outside_hu: the darkest tenth
    of what is around the body. spine_mm: how far bone lies behind the lungs. front: share of lung in its front third
    against its back third. heart_mm: how far to the left what lies between the lungs is. unsure:
    share of pixels in two minds against those of lung.
    """

    slices: int = 0
    ml: Mapping[int, float] = field(default_factory=dict)
    ends: tuple[bool, bool] = (False, False)
    pieces: Mapping[int, float] = field(default_factory=dict)
    edge_cm2: float = 0.0
    jump: tuple[int, int, float] = (0, 0, 0.0)
    misfit: tuple[int, float] = (0, 0.0)
    aerated: float = float("nan")
    lung_hu: float = float("nan")
    missed_ml: float = 0.0
    covered: float = 1.0
    tissue_hu: float = float("nan")
    outside_hu: float = float("nan")
    spine_mm: float = float("nan")
    front: float = float("nan")
    heart_mm: float = float("nan")
    unsure: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Coarse:
    """Every so many slices, rows and columns. body: with the lungs in it."""

    hu: NDArray[np.generic]
    labels: NDArray[np.uint8]
    body: NDArray[np.bool_]
    mm: tuple[float, float, float]
    voxel_ml: float


def measure(
    labels: NDArray[np.uint8], volume: Volume, unsure: NDArray[np.float64] | None
) -> Evidence:
    """Look at labels (0, RIGHT, LEFT) on the grid of `volume`, canonical axes, HU."""
    found = [side for side in (RIGHT, LEFT) if np.any(labels == side)]
    coarse = _coarse(labels, volume)
    covered, missed_ml = _air(coarse)
    dark = _dark(coarse)
    tissue = coarse.hu[coarse.body & (coarse.hu > _SOFT_HU[0]) & (coarse.hu < _SOFT_HU[1])]
    return Evidence(
        slices=len(labels),
        ml=volume.ml_of(labels),
        ends=(bool(labels[0].any()), bool(labels[-1].any())),
        pieces={side: _largest(labels == side, volume) for side in found},
        edge_cm2=_edge_cm2(labels, volume),
        jump=_jump(labels, volume, found),
        misfit=_misfit(volume),
        aerated=dark[0],
        lung_hu=dark[1],
        missed_ml=missed_ml,
        covered=covered,
        tissue_hu=float(np.median(tissue)) if len(tissue) else float("nan"),
        outside_hu=_low(coarse.hu[~coarse.body], coarse.hu.size),
        spine_mm=_spine_mm(coarse),
        front=_front(coarse),
        heart_mm=_heart_mm(coarse),
        unsure=_mean_unsure(labels, unsure),
    )


def _coarse(labels: NDArray[np.uint8], volume: Volume) -> _Coarse:
    slice_mm, row_mm, column_mm = volume.spacing_zyx_mm
    rows, columns = coarse_steps((row_mm, column_mm))
    slices = max(1, int(_STEP_MM // slice_mm))
    hu = np.asarray(volume.voxels_zyx)[::slices, ::rows, ::columns]
    return _Coarse(
        hu=hu,
        labels=labels[::slices, ::rows, ::columns],
        body=np.stack([body_of(plane > BODY_HU) for plane in hu]),
        mm=(slice_mm * slices, row_mm * rows, column_mm * columns),
        voxel_ml=volume.voxel_ml * slices * rows * columns,
    )


def _largest(mask: NDArray[np.bool_], volume: Volume) -> float:
    """The share of its largest piece."""
    rows, columns = coarse_steps(volume.spacing_zyx_mm[1:])
    sizes = np.bincount(_pieces(mask[:, ::rows, ::columns]).ravel())[1:]
    return float(sizes.max() / sizes.sum()) if len(sizes) else 1.0


def _pieces(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    numbers: NDArray[np.uint32] = sitk.GetArrayFromImage(sitk.ConnectedComponent(image))
    return numbers


def _edge_cm2(labels: NDArray[np.uint8], volume: Volume) -> float:
    _, row_mm, column_mm = volume.spacing_zyx_mm
    rows, columns = max(1, round(_EDGE_MM / row_mm)), max(1, round(_EDGE_MM / column_mm))
    inner = labels[:, rows:-rows, columns:-columns]
    outer = np.count_nonzero(labels, axis=(1, 2)) - np.count_nonzero(inner, axis=(1, 2))
    return float(outer.max(initial=0)) * row_mm * column_mm / 100.0


def _jump(
    labels: NDArray[np.uint8], volume: Volume, found: Sequence[int]
) -> tuple[int, int, float]:
    worst = (0, 0, 0.0)
    if len(labels) < 5:
        return worst
    scale = min(1.0, 5.0 / volume.spacing_zyx_mm[0])
    for side in found:
        area = np.count_nonzero(labels == side, axis=(1, 2)).astype(np.float64)
        off = scale * np.abs(area[1:-1] - (area[:-2] + area[2:]) / 2) / area.max()
        at = int(off.argmax())
        if off[at] > worst[2]:
            worst = (side, at + 1, float(off[at]))
    return worst


def _misfit(volume: Volume) -> tuple[int, float]:
    """The slice that fits worst between its neighbours."""
    rows, columns = coarse_steps(volume.spacing_zyx_mm[1:])
    planes = np.asarray(volume.voxels_zyx)[:, ::rows, ::columns]
    n, r, c = planes.shape[0], planes.shape[1] // _BLOCK, planes.shape[2] // _BLOCK
    if n < 5 or not r or not c:
        return 0, 0.0
    shown = np.clip(planes[:, : r * _BLOCK, : c * _BLOCK], *_SHOWN_HU).astype(np.float32)
    means = shown.reshape(n, r, _BLOCK, c, _BLOCK).mean(axis=(2, 4))
    beside = np.abs(np.diff(means, axis=0)).mean(axis=(1, 2))
    across = np.abs(means[2:] - means[:-2]).mean(axis=(1, 2))
    to_both = (beside[:-1] + beside[1:]) / 2
    ratio = to_both / np.maximum(across, 1.0)
    at = int(ratio.argmax())
    return at + 1, float(ratio[at])


def _dark(coarse: _Coarse) -> tuple[float, float]:
    values = coarse.hu[coarse.labels > 0]
    if not len(values):
        return float("nan"), float("nan")
    dark = values[values < AIR_HU]
    return len(dark) / len(values), float(dark.mean()) if len(dark) else float("nan")


def _air(coarse: _Coarse) -> tuple[float, float]:
    """Share of the air that was called lung, and ml that was not."""
    numbers = _pieces(np.less(coarse.hu, AIR_HU) & coarse.body)
    sizes = np.bincount(numbers.ravel())
    inside = np.bincount(numbers[coarse.labels > 0].ravel(), minlength=len(sizes))
    touched = inside > 0.1 * sizes
    lung = np.flatnonzero(coarse.labels.any(axis=(1, 2)))
    lowest = int(lung[0]) if len(lung) else 0
    level = np.bincount(numbers[lowest:].ravel(), minlength=len(sizes))
    counted = np.where(touched, sizes, level)
    counted[(sizes * coarse.voxel_ml < _LARGE_AIR_ML) | (np.arange(len(sizes)) == 0)] = 0
    hit = np.where(counted > 0, np.minimum(inside, counted), 0)
    total = int(counted.sum())
    if not total:
        return 1.0, 0.0
    return float(hit.sum()) / total, float(total - hit.sum()) * coarse.voxel_ml


def _low(values: NDArray[np.generic], of: int) -> float:
    """What a tenth of the values is below; nan where they are few."""
    if len(values) < _OUTSIDE_LEAST * of:
        return float("nan")
    return float(np.partition(values, len(values) // 10)[len(values) // 10])


def _spine_mm(coarse: _Coarse) -> float:
    """How far behind the lungs bone lies in the middle of the body, in slices that have lung."""
    lung = coarse.labels > 0
    level = lung.any(axis=(1, 2))
    if not level.any():
        return float("nan")
    near = np.abs(np.arange(lung.shape[2]) - _centre(lung, 2)) * coarse.mm[2] < _MIDDLE_MM
    bone = coarse.body & (coarse.hu > _BONE_HU) & level[:, None, None] & near
    if np.count_nonzero(bone) < _BONE_LEAST:
        return float("nan")
    return (_centre(bone, 1) - _centre(lung, 1)) * coarse.mm[1]


def _front(coarse: _Coarse) -> float:
    """Of lung in the front and the back third of its rows, the share of the front."""
    counts = np.count_nonzero(coarse.labels, axis=(0, 2))
    rows = np.flatnonzero(counts)
    third = len(rows) // 3
    if not third:
        return float("nan")
    front = counts[rows[0] : rows[0] + third].sum()
    back = counts[rows[-1] + 1 - third : rows[-1] + 1].sum()
    return float(front / max(front + back, 1))


def _heart_mm(coarse: _Coarse) -> float:
    """How far to the left of the middle of the body the lungs are parted, in front and below."""
    area = np.count_nonzero(coarse.labels, axis=(1, 2))
    slices = np.flatnonzero(area > 0.3 * area.max(initial=1))
    found = [_parted_mm(coarse, int(z)) for z in slices[: len(slices) // 2]]
    known = [mm for mm in found if mm is not None]
    return float(np.mean(known)) if len(known) > 2 else float("nan")


def _parted_mm(coarse: _Coarse, z: int) -> float | None:
    """Of one slice: the middle of what lies between the lungs in its front rows."""
    columns = np.arange(coarse.labels.shape[2])
    rows = np.flatnonzero(coarse.labels[z].any(axis=1))
    front = coarse.labels[z, rows[0] : rows[0] + round(0.6 * len(rows))]
    right = np.where(front == RIGHT, columns, -1).max(axis=1)
    left = np.where(front == LEFT, columns, len(columns)).min(axis=1)
    wide = np.where((right >= 0) & (left < len(columns)) & (left > right), left - right, 0)
    body = np.flatnonzero(coarse.body[z].any(axis=0))
    if not wide.any() or not len(body):
        return None
    return float(np.average((right + left) / 2, weights=wide) - body.mean()) * coarse.mm[2]


def _centre(mask: NDArray[np.bool_], axis: int) -> float:
    rest = tuple(a for a in range(3) if a != axis)
    counts = np.count_nonzero(mask, axis=rest)
    return float((np.arange(len(counts)) * counts).sum() / max(counts.sum(), 1))


def _mean_unsure(labels: NDArray[np.uint8], unsure: NDArray[np.float64] | None) -> float:
    lung = np.count_nonzero(labels, axis=(1, 2)).astype(np.float64)
    if unsure is None or not len(unsure) or not lung.any():
        return 0.0
    return float(np.average(unsure, weights=lung))
