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
from dicom_node.tools.body import BODY_HU, bodies_of, coarse_steps
from dicom_node.tools.lungs import LEFT, RIGHT, joint
from dicom_node.tools.outside import reaching
from dicom_node.tools.sheet import pieces_of_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

AIR_HU = -500.0  # aerated lung is darker
_STEP_MM = 8.0  # of the grid, along the body
_EDGE_MM = 3.0
_BONE_HU = 350.0
_BONE_LEAST = 20  # points of the grid
_MIDDLE_MM = 35.0  # so near to the middle there is the spine, and the sternum
_SOFT_HU = (-200.0, 300.0)
_GAS_HU = -940.0  # lung is denser, but for bullae
_GAS_LIKE_HU = -700.0
_LARGE_SLICE = 0.3  # of the largest of a side
_LARGE_AIR_ML = 100.0
_OUTSIDE_LEAST = 0.02  # of all points of the grid
_BLOCK = 3  # points of the grid that are averaged where slices are compared: against noise
_SHOWN_HU = (-1000.0, 300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Numbers about a result and its images; nan, or nothing, where they cannot be told.

    ml: of each side that was found; none without a depth. ends: whether lung reaches the lowest and
    the highest slice. pieces: share of the largest piece of each side. edge_cm2: of lung at an edge
    of the matrix, in the worst slice; bare_cm2: of lung that is one with the air around the body,
    as at the edge of the scan circle. jump: side, slice, and change of its area against the mean of
    both neighbours, as a share of its largest area, per 5 mm. misfit: slice, and how much nearer
    its neighbours are to one another than to it (1: as near). aerated: share of the lungs darker
    than AIR_HU; lung_hu: mean of what is. solid: the same share in the two worst of the large
    slices of a side. missed_ml, covered: of what looks like lung at the height of the lungs, or
    joined to them, what is not called lung, and the share that is. air_ml: all air inside the
    body. tissue_hu: median of the soft tissue; tissue: its share of all but lung and gas.
    outside_hu: the darkest tenth of what is around the body. spine_mm: how far bone lies behind the
    lungs. front: share of lung in its front third against its back third. heart_mm: how far to the
    left lies what is between the lungs. joint: how widely both lungs touch, as of lungs.joint.
    unsure: pixels in two minds as a share of those of lung.
    """

    slices: int = 0
    ml: Mapping[int, float] = field(default_factory=dict)
    ends: tuple[bool, bool] = (False, False)
    pieces: Mapping[int, float] = field(default_factory=dict)
    edge_cm2: float = 0.0
    bare_cm2: float = 0.0
    jump: tuple[int, int, float] = (0, 0, 0.0)
    misfit: tuple[int, float] = (0, 0.0)
    aerated: float = float("nan")
    lung_hu: float = float("nan")
    solid: float = 1.0
    missed_ml: float = 0.0
    covered: float = 1.0
    air_ml: float = 0.0
    tissue_hu: float = float("nan")
    tissue: float = 1.0
    outside_hu: float = float("nan")
    spine_mm: float = float("nan")
    front: float = float("nan")
    heart_mm: float = float("nan")
    joint: float = 0.0
    unsure: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Coarse:
    """Every so many slices, rows and columns. body: with the lungs in it."""

    hu: NDArray[np.float32]
    labels: NDArray[np.uint8]
    body: NDArray[np.bool_]
    mm: tuple[float, float, float]
    voxel_ml: float


def measure(
    labels: NDArray[np.uint8], volume: Volume, unsure: NDArray[np.float64] | None
) -> Evidence:
    """Look at labels (0, RIGHT, LEFT) on the grid of `volume`, canonical axes, HU."""
    if not labels.size:
        return Evidence()
    found = [side for side in (RIGHT, LEFT) if np.any(labels == side)]
    coarse = _coarse(labels, volume)
    air = _Air.of(coarse)
    dark = _dark(coarse)
    tissue_hu, tissue = _tissue(coarse)
    return Evidence(
        slices=len(labels),
        ml=volume.ml_of(labels),
        ends=(bool(labels[0].any()), bool(labels[-1].any())),
        pieces={side: _largest(labels == side, volume) for side in found},
        edge_cm2=_edge_cm2(labels, volume),
        bare_cm2=_bare_cm2(coarse),
        jump=_jump(labels, volume, found),
        misfit=_misfit(volume),
        aerated=dark[0],
        lung_hu=dark[1],
        solid=min((_solid(coarse, side) for side in found), default=1.0),
        missed_ml=air.missed_ml,
        covered=air.covered,
        air_ml=air.ml,
        tissue_hu=tissue_hu,
        tissue=tissue,
        outside_hu=_low(coarse.hu[~coarse.body], coarse.hu.size),
        spine_mm=_spine_mm(coarse),
        front=_front(coarse),
        heart_mm=_heart_mm(coarse),
        joint=joint(labels, volume),
        unsure=_mean_unsure(labels, unsure),
    )


def _coarse(labels: NDArray[np.uint8], volume: Volume) -> _Coarse:
    slice_mm, row_mm, column_mm = volume.spacing_zyx_mm
    rows, columns = coarse_steps((row_mm, column_mm))
    slices = max(1, int(_STEP_MM // slice_mm))
    hu = np.asarray(volume.voxels_zyx[::slices, ::rows, ::columns], np.float32)
    return _Coarse(
        hu=hu,
        labels=labels[::slices, ::rows, ::columns],
        body=bodies_of(hu > BODY_HU),
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


def _solid(coarse: _Coarse, side: int) -> float:
    """Share of a side that holds air, in the second worst of its large slices."""
    where = coarse.labels == side
    area = np.count_nonzero(where, axis=(1, 2))
    dark = np.count_nonzero(where & (coarse.hu < AIR_HU), axis=(1, 2))
    large = area > _LARGE_SLICE * area.max(initial=0)
    shares = np.sort(dark[large] / area[large])
    return float(shares[1]) if len(shares) > 1 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Air:
    """ml: of all large pieces inside the body. missed_ml, covered: as in Evidence."""

    ml: float = 0.0
    missed_ml: float = 0.0
    covered: float = 1.0

    @classmethod
    def of(cls, coarse: _Coarse) -> _Air:
        """Gas of the bowel is darker than lung, and lies below it."""
        numbers = _pieces(np.less(coarse.hu, AIR_HU) & coarse.body)
        sizes = np.bincount(numbers.ravel())
        large = sizes * coarse.voxel_ml >= _LARGE_AIR_ML
        large[0] = False
        lung = coarse.labels > 0
        touched = np.bincount(numbers[lung], minlength=len(sizes)) > 0.1 * sizes
        looked_at = (large & touched)[numbers]
        levels = np.flatnonzero(lung.any(axis=(1, 2)))
        if len(levels):
            looked_at[levels[0] :] |= large[numbers[levels[0] :]]
        like_lung = looked_at & (coarse.hu > _GAS_HU)
        missed = int(np.count_nonzero(like_lung & ~lung))
        return cls(
            ml=float(sizes[large].sum()) * coarse.voxel_ml,
            missed_ml=missed * coarse.voxel_ml,
            covered=1.0 - missed / max(int(np.count_nonzero(like_lung)), 1),
        )


def _tissue(coarse: _Coarse) -> tuple[float, float]:
    """Median of the soft tissue; and its share of all that is neither lung nor gas."""
    rest = coarse.hu[coarse.body & (coarse.labels == 0) & (coarse.hu > _GAS_LIKE_HU)]
    soft = rest[(rest > _SOFT_HU[0]) & (rest < _SOFT_HU[1])]
    if not len(soft):
        return float("nan"), 0.0 if len(rest) else 1.0
    return float(np.median(soft)), len(soft) / len(rest)


def _bare_cm2(coarse: _Coarse) -> float:
    """Lung in the air that reaches the border of its slice, in the worst slice."""
    numbers = pieces_of_slices(np.less_equal(coarse.hu, BODY_HU))
    border = np.ones(numbers.shape[1:], bool)
    border[1:-1, 1:-1] = False
    outside = reaching(numbers, border)
    bare = np.count_nonzero((coarse.labels > 0) & outside[numbers], axis=(1, 2))
    return float(bare.max(initial=0)) * coarse.mm[1] * coarse.mm[2] / 100.0


def _low(values: NDArray[np.float32], of: int) -> float:
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
    columns = np.arange(lung.shape[2])
    far = np.abs(columns - _centre(lung, 2)) * coarse.mm[2] >= _MIDDLE_MM
    bone = coarse.body & (coarse.hu > _BONE_HU)
    bone[~level] = False
    bone[:, :, far] = False
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
