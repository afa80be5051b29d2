"""Can these values be Hounsfield units? Judged from a few numbers about all voxels."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.decide.geometry import Fault, Finding

AIR_HU = -700.0  # air, lung and what is around a patient lie below
TISSUE_HU = (-150.0, 150.0)  # fat to contrast-filled organs
DENSE_HU = 800.0  # only cortical bone, teeth and metal lie above

LEAST_AIR = 0.001
LEAST_TISSUE = 0.01
MOST_DENSE = 0.15  # heads have 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Of the voxels of a volume: the extremes in HU, and which share is air, tissue or dense."""

    lowest: float
    highest: float
    air: float
    tissue: float
    dense: float


def values_finding(values: Values) -> Finding | None:
    """What is most wrong with the values, None if they may be those of a CT."""
    low, high = f"{values.lowest:.0f}", f"{values.highest:.0f}"
    if values.lowest == values.highest:
        return Finding(code=Fault.CONSTANT, reason=f"all voxels have the same value, {low} HU")
    if values.lowest >= 0:
        reason = f"no value is below 0 HU ({low} to {high}): the rescale is missing or wrong"
        return Finding(code=Fault.NO_RESCALE, reason=reason)
    if values.dense > MOST_DENSE:
        share = f"{values.dense:.0%} of the voxels are as dense as bone (above {DENSE_HU:.0f} HU)"
        reason = f"{share}: the rescale or the sign of the values is wrong"
        return Finding(code=Fault.TOO_DENSE, reason=reason)
    if values.air < LEAST_AIR:
        reason = f"there is no air in the images: values go from {low} to {high} HU"
        return Finding(code=Fault.NO_AIR, reason=reason)
    if values.tissue < LEAST_TISSUE:
        share = f"{values.tissue:.1%} of the voxels are soft tissue"
        reason = f"there is hardly any tissue in the images: {share}"
        return Finding(code=Fault.NO_TISSUE, reason=reason)
    return None
