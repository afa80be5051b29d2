"""What a segmentation is worth beside a label: Dice, the worst slices, lung where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own examples do)
from numpy.typing import NDArray

from dicom_node.domain.volume import Volume

SIDES = {"right": (1, 2), "left": (2, 1)}  # segment number; value in the label files
IGNORED = 3
SMALL = 500  # a slice with fewer pixels of a lung is not called its worst
BORDER_MM = 7.0  # so near to a label, what is lung is a matter of taste
GAS_HU = -300.0


def truth_for(volume: Volume, label_file: Path) -> NDArray[np.uint8]:
    """The stored labels in the slice order of the volume."""
    stored = np.load(label_file)
    index = {str(uid): i for i, uid in enumerate(stored["sop_instance_uid"])}
    return np.asarray(stored["mask"][[index[uid] for uid in volume.instance_uids]])


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_], valid: NDArray[np.bool_]) -> float:
    both = np.count_nonzero(found & truth & valid)
    sizes = np.count_nonzero(found & valid) + np.count_nonzero(truth & valid)
    return round(2.0 * float(both) / float(max(sizes, 1)), 4)


def by_slice(
    labels: NDArray[np.uint8], truth: NDArray[np.uint8], side: str
) -> list[tuple[float, int]]:
    """(Dice, slice) of each slice with more than SMALL pixels of that lung, the worst first."""
    segment, value = SIDES[side]
    chosen = np.flatnonzero(np.count_nonzero(truth == value, axis=(1, 2)) > SMALL)
    return sorted(
        (dice(labels[z] == segment, truth[z] == value, truth[z] != IGNORED), int(z)) for z in chosen
    )


def scored(
    labels: NDArray[np.uint8], truth: NDArray[np.uint8], volume: Volume
) -> dict[str, object]:
    """Dice a side, the three worst slices, the wrong side in ml, false lung in cm²."""
    result: dict[str, object] = {"slices": len(labels)}
    for side, (segment, value) in SIDES.items():
        result[side] = dice(labels == segment, truth == value, truth != IGNORED)
        result[f"{side}_worst"] = [
            {"slice": z, "dice": d} for d, z in by_slice(labels, truth, side)[:3]
        ]
    wrong = ((labels == 1) & (truth == 1)) | ((labels == 2) & (truth == 2))
    result["wrong_side_ml"] = round(int(np.count_nonzero(wrong)) * volume.voxel_ml, 2)
    result |= false_areas(labels, truth, volume)
    return result


def false_areas(
    labels: NDArray[np.uint8], truth: NDArray[np.uint8], volume: Volume
) -> dict[str, object]:
    """The worst slice with lung more than BORDER_MM from the label: dark there (gas), and dense."""
    _, row, column = volume.spacing_zyx_mm
    gas, dense = np.zeros(len(labels)), np.zeros(len(labels))
    for z in np.flatnonzero(((labels > 0) & (truth == 0)).any(axis=(1, 2))):
        away = (labels[z] > 0) & ~near(truth[z] > 0, (row, column), BORDER_MM)
        dark = np.asarray(volume.voxels_zyx[z]) < GAS_HU
        gas[z] = np.count_nonzero(away & dark) * row * column / 100
        dense[z] = np.count_nonzero(away & ~dark) * row * column / 100
    return {"false_gas": worst_slice(gas), "false_dense": worst_slice(dense)}


def worst_slice(cm2: NDArray[np.float64]) -> dict[str, object]:
    z = int(cm2.argmax()) if len(cm2) else 0
    return {"cm2": round(float(cm2[z]) if len(cm2) else 0.0, 1), "slice": z}


def near(mask: NDArray[np.bool_], spacing_yx: tuple[float, float], mm: float) -> NDArray[np.bool_]:
    """Pixels in the mask, or at most so far from it."""
    if not mask.any():
        return mask
    return distance_mm(mask, spacing_yx) <= mm


def distance_mm(mask: NDArray[np.bool_], spacing_yx: tuple[float, float]) -> NDArray[np.float32]:
    """How far each pixel is from the mask; negative inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing((spacing_yx[1], spacing_yx[0]))
    away = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return np.asarray(sitk.GetArrayFromImage(away))
