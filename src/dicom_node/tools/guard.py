"""Second thoughts: what makes a segmentation of the lungs doubtful, without knowing the truth.

Each doubt is one sentence for a radiologist. The limits were set on real series, whole and
deliberately damaged; docs/guard.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)

from dicom_node.domain.volume import Volume
from dicom_node.tools.body import BODY_HU, body_of, coarse_steps
from dicom_node.tools.lungs import LEFT, RIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMES = {RIGHT: "right", LEFT: "left"}
_AIR_HU = -500.0  # aerated lung is darker
_GRID_MM = 3.0  # what is estimated is estimated on a coarse grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a doubt is raised.

    small_ml, large_ml: of both lungs, where the whole of them was scanned. right_share: of the
    right lung in both. largest_piece: share of the largest piece of a side. edge_cm2: lung at an
    edge of the matrix, in any slice. jump: change of a lung's area against the mean of both
    neighbours, as a share of its largest area, per CONTEXT_MM. aerated: share of a lung darker than
    -500 HU. mean_hu: of aerated lung. covered: share of the air inside the body that was called
    lung. unsure: share of pixels in two minds, against those of lung.
    """

    small_ml: float = 1000.0
    large_ml: float = 9500.0
    right_share: tuple[float, float] = (0.38, 0.68)
    largest_piece: float = 0.9
    edge_cm2: float = 2.0
    jump: float = 0.3
    aerated: float = 0.5
    mean_hu: tuple[float, float] = (-960.0, -600.0)
    covered: float = 0.75
    unsure: float = 0.15


def doubts(
    labels: NDArray[np.uint8],
    volume: Volume,
    unsure: NDArray[np.float64] | None = None,
    limits: Limits | None = None,
) -> tuple[str, ...]:
    """Why the result may be wrong; nothing where there is no reason to think so.

    labels: 0, RIGHT, LEFT [slice, row, column] on the grid of `volume`, canonical axes, HU. unsure:
    of each slice, the share of pixels in two minds against those of lung, where a network tells.
    """
    limits = limits or Limits()
    found = [side for side in (RIGHT, LEFT) if np.any(labels == side)]
    if not found:
        return _nothing(labels, volume, limits)
    said = [
        *_sizes(labels, volume, limits),
        *_pieces(labels, found, limits),
        *_edges(labels, volume, limits),
        *_jumps(labels, volume, found, limits),
        *_values(labels, volume, limits),
        *_uncovered(labels, volume, limits),
    ]
    if unsure is not None and len(unsure):
        lung = np.count_nonzero(labels, axis=(1, 2)).astype(np.float64)
        mean = float(np.average(unsure, weights=lung)) if lung.any() else 0.0
        if mean > limits.unsure:
            said.append(f"The network was in two minds about {100 * mean:.0f} % of the lungs.")
    return tuple(said)


def _nothing(labels: NDArray[np.uint8], volume: Volume, limits: Limits) -> tuple[str, ...]:
    ml = _air_ml(volume, labels)[0]
    if ml > limits.small_ml / 2:
        return (f"No lung was found, although the body holds {ml:.0f} ml of air.",)
    return ()


def _whole(labels: NDArray[np.uint8]) -> bool:
    """Whether the lungs end inside the stack, at both ends."""
    return not labels[0].any() and not labels[-1].any()


def _sizes(labels: NDArray[np.uint8], volume: Volume, limits: Limits) -> list[str]:
    ml = volume.ml_of(labels)
    total = sum(ml.values())
    said = []
    if total > limits.large_ml:
        said.append(f"The lungs are implausibly large: {total:.0f} ml.")
    if not _whole(labels) or len(ml) < 2:
        return said
    if total < limits.small_ml:
        said.append(f"The lungs are implausibly small: {total:.0f} ml.")
    share = ml[RIGHT] / total
    low, high = limits.right_share
    if not low <= share <= high:
        said.append(f"The right lung is {100 * share:.0f} % of both: one side may lack a part.")
    return said


def _pieces(labels: NDArray[np.uint8], found: list[int], limits: Limits) -> list[str]:
    said = []
    for side in found:
        mask = sitk.GetImageFromArray((labels[:, ::2, ::2] == side).astype(np.uint8))
        pieces = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(mask)))
        sizes = np.bincount(pieces.ravel())[1:]
        if len(sizes) and sizes[0] < limits.largest_piece * sizes.sum():
            share = 100 * sizes[0] / sizes.sum()
            said.append(
                f"The {_NAMES[side]} lung is in pieces: the largest is {share:.0f} % of it."
            )
    return said


def _edges(labels: NDArray[np.uint8], volume: Volume, limits: Limits) -> list[str]:
    """Lung at an edge of the matrix, or of the scan circle where padding begins."""
    _, row_mm, column_mm = volume.spacing_zyx_mm
    band_mm = 3.0
    rows, columns = max(1, round(band_mm / row_mm)), max(1, round(band_mm / column_mm))
    inner = labels[:, rows:-rows, columns:-columns]
    outer = np.count_nonzero(labels, axis=(1, 2)) - np.count_nonzero(inner, axis=(1, 2))
    cm2 = float(outer.max()) * row_mm * column_mm / 100.0
    if cm2 <= limits.edge_cm2:
        return []
    return ["Lung reaches the edge of the image: part of it is outside the field of view."]


def _jumps(
    labels: NDArray[np.uint8], volume: Volume, found: list[int], limits: Limits
) -> list[str]:
    """A slice that does not fit between its neighbours."""
    if len(labels) < 5:
        return []
    said = []
    for side in found:
        area = np.count_nonzero(labels == side, axis=(1, 2)).astype(np.float64)
        off = np.abs(area[1:-1] - (area[:-2] + area[2:]) / 2) / area.max()
        if volume.spacing_zyx_mm[0] > 5.0:
            off = off * (5.0 / volume.spacing_zyx_mm[0])
        worst = int(off.argmax())
        if off[worst] > limits.jump:
            said.append(
                f"The {_NAMES[side]} lung jumps in size at slice {worst + 2} of {len(labels)}, "
                "counted from the feet."
            )
    return said


def _values(labels: NDArray[np.uint8], volume: Volume, limits: Limits) -> list[str]:
    values = np.asarray(volume.voxels_zyx)[:, ::2, ::2][labels[:, ::2, ::2] > 0]
    if not len(values):
        return []
    dark = values[values < _AIR_HU]
    share = len(dark) / len(values)
    if share < limits.aerated:
        return [f"Only {100 * share:.0f} % of the lungs hold air: dense disease, or an error."]
    mean = float(dark.mean())
    low, high = limits.mean_hu
    if not low <= mean <= high:
        return [f"The lungs have {mean:.0f} HU in the mean: the values may be shifted."]
    return []


def _uncovered(labels: NDArray[np.uint8], volume: Volume, limits: Limits) -> list[str]:
    ml, covered = _air_ml(volume, labels)
    if ml < 200.0 or covered >= limits.covered:
        return []
    return [f"Only {100 * covered:.0f} % of the air inside the body was called lung."]


def _air_ml(volume: Volume, labels: NDArray[np.uint8]) -> tuple[float, float]:
    """Air inside the body in one large piece or several, ml; and the share of it in `labels`."""
    voxels = volume.voxels_zyx
    coarse = coarse_steps(volume.spacing_zyx_mm[1:])
    rows, columns = (max(1, round(_GRID_MM / s)) for s in volume.spacing_zyx_mm[1:])
    planes = np.asarray(voxels)[:, ::rows, ::columns]
    air = np.zeros(planes.shape, np.uint8)
    for z, plane in enumerate(planes):
        body = body_of(np.greater(voxels[z, :: coarse[0], :: coarse[1]], BODY_HU))
        at_row = np.minimum(np.arange(plane.shape[0]) * rows // coarse[0], body.shape[0] - 1)
        at_column = np.minimum(np.arange(plane.shape[1]) * columns // coarse[1], body.shape[1] - 1)
        air[z] = np.less(plane, _AIR_HU) & body[np.ix_(at_row, at_column)]
    joined = sitk.ConnectedComponent(sitk.GetImageFromArray(air))
    numbers = sitk.GetArrayFromImage(sitk.RelabelComponent(joined))
    voxel_ml = volume.voxel_ml * rows * columns
    sizes = np.bincount(numbers.ravel())
    large = np.flatnonzero(sizes * voxel_ml > 100.0)
    chosen = np.isin(numbers, large[large > 0])
    total = int(np.count_nonzero(chosen))
    if not total:
        return 0.0, 1.0
    shown = np.asarray(labels)[:, ::rows, ::columns] > 0
    return total * voxel_ml, float(np.count_nonzero(shown & chosen)) / total
