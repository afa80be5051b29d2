"""Second thoughts: what makes a segmentation of the lungs doubtful, without knowing the truth.

A doubt says, in one sentence for a radiologist, why the mask may be wrong. That it covers a part
of the lungs only, because the scan does, is no doubt but a remark (tools.lungs). docs/guard.md has
what is caught of real series, whole and deliberately damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.tools.evidence import Evidence, measure
from dicom_node.tools.lungs import LEFT, RIGHT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dicom_node.domain.volume import Volume

_NAMES = {RIGHT: "right", LEFT: "left"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a doubt is raised; see Evidence for what is compared.

    small_ml, large_ml: of both lungs, the former where the whole of them was scanned. hardly_ml:
    less may be anything. one_ml: with so much of one lung, the other should be there. shown_ml:
    with so much of both, from the top on, the heart should be there. right_share: of the right lung
    in both; right_share_of_part: where lungs are cut off by the scan. joint: two lungs touch less.
    """

    small_ml: float = 600.0
    large_ml: float = 10000.0
    hardly_ml: float = 25.0
    one_ml: float = 300.0
    shown_ml: float = 1500.0
    right_share: tuple[float, float] = (0.38, 0.68)
    right_share_of_part: tuple[float, float] = (0.25, 0.8)
    joint: float = 0.6
    largest_piece: float = 0.9
    edge_cm2: float = 2.0
    bare_cm2: float = 50.0
    jump: float = 0.35
    misfit: float = 1.0
    aerated: float = 0.5
    lung_hu: tuple[float, float] = (-960.0, -620.0)
    tissue_hu: tuple[float, float] = (-125.0, 125.0)
    outside_hu: float = -870.0
    tissue: float = 0.68
    air_ml: float = 500.0
    missed_ml: float = 200.0
    covered: float = 0.94
    solid: float = 0.15
    spine_mm: float = -12.0
    front: float = 0.45
    heart_mm: float = -6.0
    unsure: float = 0.15


LIMITS = Limits()


def doubts(
    labels: NDArray[np.uint8],
    volume: Volume,
    unsure: NDArray[np.float64] | None = None,
    limits: Limits = LIMITS,
) -> tuple[str, ...]:
    """Why the result may be wrong; nothing where there is no reason to think so.

    labels: 0, RIGHT, LEFT [slice, row, column] on the grid of `volume`, canonical axes, HU. unsure:
    of each slice, the share of pixels in two minds against those of lung, where a network tells.
    """
    return judged(measure(labels, volume, unsure), limits)


def judged(evidence: Evidence, limits: Limits = LIMITS) -> tuple[str, ...]:
    """The doubts that the evidence gives rise to, those about the images first."""
    return tuple(said for judge in _JUDGES for said in judge(evidence, limits))


def _values(found: Evidence, limits: Limits) -> Sequence[str]:
    """Hounsfield units are where they belong: tissue near 0, air around the body near -1000."""
    low, high = limits.tissue_hu
    if found.tissue_hu < low or found.tissue_hu > high:
        return (f"Soft tissue has {found.tissue_hu:.0f} HU: the values are shifted or scaled.",)
    if found.tissue < limits.tissue:
        share = f"{100 * found.tissue:.0f} %"
        return (f"Only {share} of the body are soft tissue: the values are shifted or scaled.",)
    if found.outside_hu > limits.outside_hu:
        return (
            f"The air around the body has {found.outside_hu:.0f} HU: the values are shifted or "
            "scaled.",
        )
    low, high = limits.lung_hu
    if found.lung_hu < low or found.lung_hu > high:
        return (f"The lungs have {found.lung_hu:.0f} HU in the mean: the values may be shifted.",)
    return ()


def _order(found: Evidence, limits: Limits) -> Sequence[str]:
    at, misfit = found.misfit
    if misfit <= limits.misfit:
        return ()
    return (
        f"Slice {at + 1} of {found.slices}, counted from the feet, does not fit between its "
        "neighbours: slices may be mixed up, or taken in another breath.",
    )


def _posture(found: Evidence, limits: Limits) -> Sequence[str]:
    """The patient lies as the geometry says: spine behind, heart to the left."""
    if found.spine_mm < limits.spine_mm and found.front > limits.front:
        return (
            "The spine seems to be in front: the patient's position may be wrong, and right and "
            "left with it.",
        )
    shown = sum(found.ml.values()) > limits.shown_ml and not found.ends[1]
    if found.heart_mm < limits.heart_mm and shown:
        return (
            "What lies between the lungs is shifted to the right: a disease, or right and left are "
            "exchanged.",
        )
    return ()


def _missed(found: Evidence, limits: Limits) -> Sequence[str]:
    """Agreement with a threshold: the air of the chest is lung."""
    if not found.pieces:
        if found.air_ml <= limits.air_ml:
            return ()
        return (f"No lung was found, although the body holds {found.air_ml:.0f} ml of air.",)
    if found.covered < limits.covered and found.missed_ml > limits.missed_ml:
        return (
            f"{found.missed_ml:.0f} ml that look like lung were not called lung: part of the lungs "
            "may be missing.",
        )
    return ()


def _aerated(found: Evidence, limits: Limits) -> Sequence[str]:
    """Agreement with a threshold, the other way: lung is air."""
    if found.aerated < limits.aerated:
        share = 100 * found.aerated
        return (f"Only {share:.0f} % of what is called lung holds air: dense disease, or no lung.",)
    if found.solid < limits.solid:
        return ("In some slices a lung holds hardly any air: dense disease, or no lung.",)
    return ()


def _sizes(found: Evidence, limits: Limits) -> Sequence[str]:
    total = sum(found.ml.values())
    if not total:
        return ()
    if total > limits.large_ml:
        return (f"The lungs are implausibly large, {total:.0f} ml: is the spacing right?",)
    if total < limits.hardly_ml:
        return (f"Only {total:.0f} ml of lung were found: it may be something else.",)
    if not any(found.ends) and total < limits.small_ml:
        return (f"The lungs are implausibly small, {total:.0f} ml: part of them may be missing.",)
    return ()


def _sides(found: Evidence, limits: Limits) -> Sequence[str]:
    if found.joint > limits.joint:
        return (
            "What is called right lung and what is called left lung are one, with nothing between "
            "them: which side it is cannot be told.",
        )
    total = sum(found.ml.values())
    if total < limits.one_ml:
        return ()
    if len(found.ml) == 1:
        side = next(iter(found.ml))
        other = _NAMES[RIGHT + LEFT - side]
        return (f"Only the {_NAMES[side]} lung was found: the {other} one may be missed.",)
    low, high = limits.right_share_of_part if any(found.ends) else limits.right_share
    share = found.ml[RIGHT] / total
    if share < low or share > high:
        side = RIGHT if share < low else LEFT
        said = f"The right lung is {100 * share:.0f} % of both"
        return (f"{said}: part of the {_NAMES[side]} lung may be missing.",)
    return ()


def _shape(found: Evidence, limits: Limits) -> Sequence[str]:
    said = [
        f"The {_NAMES[side]} lung is in pieces: the largest is {100 * share:.0f} % of it."
        for side, share in found.pieces.items()
        if share < limits.largest_piece
    ]
    side, at, jump = found.jump
    if jump > limits.jump:
        said.append(
            f"The {_NAMES[side]} lung changes its size abruptly at slice {at + 1} of "
            f"{found.slices}, counted from the feet."
        )
    if found.edge_cm2 > limits.edge_cm2 or found.bare_cm2 > limits.bare_cm2:
        said.append("Lung reaches the edge of the images: part of it is outside the field of view.")
    return said


def _unsure(found: Evidence, limits: Limits) -> Sequence[str]:
    if found.unsure <= limits.unsure:
        return ()
    pixels = f"{100 * found.unsure:.0f} pixels"
    return (f"For every 100 pixels of lung the network was in two minds about {pixels}.",)


_JUDGES: Sequence[Callable[[Evidence, Limits], Sequence[str]]] = (
    _values, _order, _posture, _missed, _aerated, _sizes, _sides, _shape, _unsure,
)  # fmt: skip
