"""What contours drawn by hand leave out of a lung: solid disease; and the price of following them.

A network that is to call an opaque lung lung cannot also call it chest wall because a reader's
contour goes around it. Both figures are taken here, with one network: how far the drawn contours
are followed, and how much of a painted disease is found, as it gets more reluctant to call dense
pixels lung.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)
import torch
from numpy.typing import NDArray
from scores import SIDES, dice

from dicom_node.domain.volume import Volume
from dicom_node.tools.engine import Placed

DENSE_HU = -300.0
LEFT_OUT_ML = 5.0  # smaller pieces are differences of a contour, not disease
RELUCTANCE = (0.0, 2.0, 4.0, 6.0, 8.0)  # added to the background's logit in opaque pixels
_FROM_HU, _FULL_HU = -450.0, -150.0


@contextmanager
def reluctant(logit: float) -> Iterator[None]:
    """Networks that call dense pixels background more readily, by so much of a logit."""
    plainly = Placed.logits

    @torch.inference_mode()
    def less_lung(self: Placed, hu: torch.Tensor) -> torch.Tensor:
        found = plainly(self, hu).clone()
        share = (hu[:, 1] - _FROM_HU) / (_FULL_HU - _FROM_HU)
        found[:, 0] += logit * share.clamp(0, 1)
        return found

    Placed.logits = less_lung  # type: ignore[method-assign]
    try:
        yield
    finally:
        Placed.logits = plainly  # type: ignore[method-assign]


def left_out(
    labels: NDArray[np.uint8], truth: NDArray[np.uint8], volume: Volume
) -> dict[str, dict[str, float]]:
    """By side: solid pieces of more than LEFT_OUT_ML that were found and that no contour holds
    (ml), what else differs (ml), and the Dice where those pieces are not judged."""
    dense = np.asarray(volume.voxels_zyx) > DENSE_HU
    said = {}
    for side, (segment, value) in SIDES.items():
        found, drawn, valid = labels == segment, truth == value, truth != 3
        out = _large(found & ~drawn & valid & dense, volume.voxel_ml) & found & ~drawn
        said[side] = {
            "left_out_ml": round(float(out.sum() * volume.voxel_ml), 1),
            "more_ml": round(float((found & ~drawn & valid & ~out).sum() * volume.voxel_ml), 1),
            "less_ml": round(float((drawn & ~found).sum() * volume.voxel_ml), 1),
            "dice_without": dice(found, drawn, valid & ~out),
        }
    return said


def _large(mask: NDArray[np.bool_], voxel_ml: float) -> NDArray[np.bool_]:
    """Its pieces of more than LEFT_OUT_ML, thin bridges cut, and a voxel around them."""
    cross = {"kernelRadius": (1, 1, 1), "kernelType": sitk.sitkCross}
    opened = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray(mask.astype(np.uint8)), **cross)
    least = int(LEFT_OUT_ML / voxel_ml) + 1
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(opened), minimumObjectSize=least)
    return sitk.GetArrayFromImage(sitk.BinaryDilate(pieces > 0, **cross)) > 0


def trade(
    labels: Callable[[], NDArray[np.uint8]],
    painted: Callable[[], dict[str, float]],
    truth: NDArray[np.uint8],
) -> list[dict[str, float]]:
    """A row for each reluctance: Dice of either side, and the shares of painted disease found."""
    rows = []
    for logit in RELUCTANCE:
        with reluctant(logit):
            row, found = {"reluctance": logit}, labels()
            for side, (segment, value) in SIDES.items():
                row[side] = dice(found == segment, truth == value, truth != 3)
            rows.append(row | painted())
    return rows
