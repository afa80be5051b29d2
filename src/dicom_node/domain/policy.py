"""What a model does with a Series that is not quite what it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Treatment(StrEnum):
    """What is done where a fault, or a doubt, is found."""

    REFUSE = "refuse"  # no result; the step is canceled with the reason
    WARN = "warn"  # a result, with the warning written into it
    RESAMPLE = "resample"  # as warn; the model is given a regular grid instead
    IGNORE = "ignore"  # nothing is said
    HOLD = "hold"  # a result with the warning in it, which waits for an operator


REFUSE, WARN, RESAMPLE, IGNORE, HOLD = Treatment


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPolicy:
    """One treatment for each sort of fault, and the limits that some faults are judged by.

    The defaults refuse what would put a mask in the wrong place or show what was not scanned.
    max_anisotropy: distance of planes / size of a pixel. foreign_body_parts: values of Body Part
    Examined that speak against the model.
    """

    tilt: Treatment = REFUSE
    shift: Treatment = REFUSE
    holes: Treatment = REFUSE
    spacing: Treatment = REFUSE
    sparse: Treatment = WARN
    anisotropy: Treatment = WARN
    pixels: Treatment = WARN
    few_slices: Treatment = REFUSE
    small_matrix: Treatment = REFUSE
    duplicates: Treatment = REFUSE
    copies: Treatment = WARN
    frames_of_reference: Treatment = REFUSE
    body_part: Treatment = WARN
    hu: Treatment = REFUSE
    doubtful: Treatment = WARN
    min_slices: int = 3
    min_matrix: int = 32
    max_anisotropy: float = 20.0
    foreign_body_parts: tuple[str, ...] = ()


ALLOWED: Mapping[str, tuple[Treatment, ...]] = MappingProxyType(
    {
        "tilt": (REFUSE, WARN, RESAMPLE),
        "shift": (REFUSE, WARN),
        "holes": (REFUSE, WARN),
        "spacing": (REFUSE, WARN, RESAMPLE),
        "sparse": (REFUSE, WARN, IGNORE),
        "anisotropy": (REFUSE, WARN, IGNORE),
        "pixels": (REFUSE, WARN, IGNORE),
        "few_slices": (REFUSE, WARN),
        "small_matrix": (REFUSE, WARN),
        "duplicates": (REFUSE, WARN),
        "copies": (REFUSE, WARN, IGNORE),
        "frames_of_reference": (REFUSE, WARN),
        "body_part": (REFUSE, WARN, IGNORE),
        "hu": (REFUSE, WARN),
        "doubtful": (WARN, HOLD),
    }
)
"""Which treatments each key of InputPolicy may have."""

LEAST: Mapping[str, int] = MappingProxyType({"min_slices": 1, "min_matrix": 1, "max_anisotropy": 1})
"""The limits of InputPolicy, and the lowest value of each."""

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "tilt": "The gantry was tilted: the stack is sheared.",
        "shift": "Planes are shifted against each other within their plane.",
        "holes": "Planes are missing inside the stack.",
        "spacing": "The distance between planes varies.",
        "sparse": "Planes are further apart than one and a half times their thickness.",
        "anisotropy": "Planes are more than `max_anisotropy` pixels apart.",
        "pixels": "Pixels are not square.",
        "few_slices": "There are fewer than `min_slices` planes.",
        "small_matrix": "There are fewer than `min_matrix` rows or columns.",
        "duplicates": "Planes lie at the same position, with other pixels; `warn` takes the first "
        "by Acquisition Number and Instance Number.",
        "copies": "Planes lie at the same position, with the same pixels; one of them is taken.",
        "frames_of_reference": "Planes belong to several frames of reference.",
        "body_part": "Body Part Examined is one of `foreign_body_parts`.",
        "hu": "The values cannot be Hounsfield units: constant, without rescale, of the wrong "
        "sign, without air or without tissue. Judged for CT.",
        "doubtful": "The tool itself doubts its result. `hold`: the result is made and not sent, "
        "until `dicom-node release`.",
        "min_slices": "Limit of `few_slices`.",
        "min_matrix": "Limit of `small_matrix`.",
        "max_anisotropy": "Limit of `anisotropy`.",
        "foreign_body_parts": "For `body_part`.",
    }
)
"""What each key of InputPolicy is about, for documents."""
