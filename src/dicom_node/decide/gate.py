"""What a model makes of what was found: refuse it, go on with a warning, or resample it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dicom_node.decide.geometry import (
    SAME_POSITION_MM,
    Fault,
    Finding,
    Stack,
    counted,
    placed,
    too_few,
)
from dicom_node.decide.planes import Plane, by_orientation, in_stack_order
from dicom_node.decide.vectors import dot
from dicom_node.domain.policy import InputPolicy, Treatment
from dicom_node.domain.records import Attributes

SQUARE_TOLERANCE = 0.02  # of the size of a pixel

KEYS: Mapping[Fault, str] = MappingProxyType(
    {
        Fault.SHEAR: "tilt",
        Fault.SHIFT: "shift",
        Fault.HOLE: "holes",
        Fault.UNEVEN: "spacing",
        Fault.SPARSE: "sparse",
        Fault.ANISOTROPY: "anisotropy",
        Fault.NON_SQUARE: "pixels",
        Fault.TOO_FEW: "few_slices",
        Fault.SMALL_MATRIX: "small_matrix",
        Fault.DUPLICATE: "duplicates",
        Fault.COPY: "copies",
        Fault.FRAMES_OF_REFERENCE: "frames_of_reference",
        Fault.BODY_PART: "body_part",
        Fault.CONSTANT: "hu",
        Fault.NO_RESCALE: "hu",
        Fault.TOO_DENSE: "hu",
        Fault.NO_AIR: "hu",
        Fault.NO_TISSUE: "hu",
    }
)
"""Which key of the policy decides about a fault; a fault that is not here is always refused."""

_CONSEQUENCES: Mapping[tuple[Fault, Treatment], str] = MappingProxyType(
    {
        (Fault.SHEAR, Treatment.WARN): "each slice was segmented as it lies",
        (Fault.SHEAR, Treatment.RESAMPLE): "the model saw it resampled to axial slices, "
        "and its mask was cut back to the source slices",
        (Fault.SHIFT, Treatment.WARN): "each slice was segmented as it lies",
        (Fault.HOLE, Treatment.WARN): "volumes bridge the gap",
        (Fault.UNEVEN, Treatment.WARN): "in volumes each slice reaches half the way to the next",
        (Fault.UNEVEN, Treatment.RESAMPLE): "the model saw it resampled to even spacing, "
        "and its mask was cut back to the source slices",
        (Fault.SPARSE, Treatment.WARN): "volumes are estimates",
        (Fault.DUPLICATE, Treatment.WARN): "the first of each was taken",
        (Fault.COPY, Treatment.WARN): "one of each was taken",
        (Fault.FRAMES_OF_REFERENCE, Treatment.WARN): "they were taken for one",
        (Fault.BODY_PART, Treatment.WARN): "what was found may not be what it is called",
        (Fault.NO_AIR, Treatment.WARN): "what was found may not be what it is called",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What is to be done with a Series.

    refusal: why it gets no result, "" if it may have one. warnings: sentences for its reader.
    treated: the keys of the policy that were applied, with their treatment ("tilt=resample").
    """

    refusal: str = ""
    warnings: tuple[str, ...] = ()
    treated: tuple[str, ...] = ()
    resample: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """groups: SOP Instance UIDs of planes at one position, the one to be taken first."""

    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def dropped(self) -> frozenset[str]:
        """All but the first of each group."""
        return frozenset(uid for group in self.groups for uid in group[1:])


def admission(findings: Iterable[Finding], policy: InputPolicy) -> Admission:
    """The policy applied to what was found."""
    refusals: list[str] = []
    warnings: list[str] = []
    treated: list[str] = []
    resample = False
    findings = tuple(findings)
    slanted = any(finding.slanted for finding in findings)
    for finding in findings:
        treatment = treatment_of(finding, policy)
        if slanted and treatment is Treatment.RESAMPLE:
            treatment = Treatment.WARN
        if treatment is Treatment.IGNORE:
            continue
        if treatment is Treatment.REFUSE:
            refusals.append(finding.reason)
            continue
        resample = resample or treatment is Treatment.RESAMPLE
        consequence = _CONSEQUENCES.get((finding.code, treatment), "")
        sentence = "; ".join(part for part in (finding.reason, consequence) if part)
        warnings.append(f"Warning: {sentence}.")
        treated.append(f"{KEYS[finding.code]}={treatment}")
    return Admission(
        refusal="; ".join(refusals),
        warnings=tuple(warnings),
        treated=tuple(treated),
        resample=resample,
    )


def treatment_of(finding: Finding, policy: InputPolicy) -> Treatment:
    """What the policy says about it; a stack too low for its tilt is not resampled."""
    key = KEYS.get(finding.code)
    said = Treatment.REFUSE if key is None else Treatment(getattr(policy, key))
    return Treatment.WARN if finding.slanted and said is Treatment.RESAMPLE else said


def stack_findings(found: Stack, header: Attributes, policy: InputPolicy) -> tuple[Finding, ...]:
    """What is unusual about a stack, for a model with this policy."""
    first = found.planes[0]
    findings = [f for f in found.findings if f.code is not Fault.TOO_FEW]
    if len(found.planes) < policy.min_slices:
        findings.append(too_few(len(found.planes), policy.min_slices))
    least = policy.min_matrix
    if min(first.rows, first.columns) < least:
        reason = f"the matrix is {first.rows} x {first.columns}: {least} x {least} are needed"
        findings.append(Finding(code=Fault.SMALL_MATRIX, reason=reason))
    findings += _voxel_findings(first, found, policy)
    part = str(header.get("BodyPartExamined", "")).strip().upper()
    if part in policy.foreign_body_parts:
        findings.append(Finding(code=Fault.BODY_PART, reason=f"Body Part Examined is {part}"))
    return tuple(findings)


def _voxel_findings(first: Plane, found: Stack, policy: InputPolicy) -> list[Finding]:
    findings = []
    down, along = first.spacing_mm
    if max(down, along) > min(down, along) * (1 + SQUARE_TOLERANCE):
        reason = f"pixels are {down:.2f} x {along:.2f} mm, not square"
        findings.append(Finding(code=Fault.NON_SQUARE, reason=reason))
    ratio = found.spacing_mm / min(down, along)
    if len(found.planes) > 1 and ratio > policy.max_anisotropy:
        size = f"{found.spacing_mm:.1f} mm apart and pixels {min(down, along):.2f} mm wide"
        reason = f"planes are {size}: {ratio:.0f} to 1"
        findings.append(Finding(code=Fault.ANISOTROPY, reason=reason))
    return findings


def repeats(instances: Sequence[Attributes]) -> Repeats:
    """Planes that lie at one position; none where planes cannot be compared at all.

    The first of a group is that of the lowest Acquisition Number, Temporal Position, Instance
    Number and SOP Instance UID, so that one phase is taken throughout.
    """
    planes = placed(instances)
    if isinstance(planes, Finding) or len(by_orientation(planes)) != 1:
        return Repeats()
    rank = {str(a.get("SOPInstanceUID", "")): _rank(a) for a in instances}
    normal = min(planes, key=lambda p: p.uid).normal
    groups: list[list[Plane]] = []
    for plane in in_stack_order(planes, normal):
        if groups and _apart(groups[-1][-1], plane) <= SAME_POSITION_MM:
            groups[-1].append(plane)
        else:
            groups.append([plane])
    return Repeats(
        groups=tuple(
            tuple(sorted((p.uid for p in group), key=rank.__getitem__))
            for group in groups
            if len(group) > 1
        )
    )


def repeat_findings(found: Repeats, same_pixels: Sequence[bool]) -> tuple[Finding, ...]:
    """What to say of planes at one position. same_pixels: for each group, whether they are alike.

    A DUPLICATE and COPY finding each, at most.
    """
    findings = []
    for code, alike, words in (
        (Fault.DUPLICATE, False, "other pixels"),
        (Fault.COPY, True, "the same pixels"),
    ):
        groups = [g for g, same in zip(found.groups, same_pixels, strict=True) if same is alike]
        if groups:
            more = counted(sum(len(group) - 1 for group in groups))
            at = "1 position has" if len(groups) == 1 else f"{len(groups)} positions have"
            reason = f"{at} more than one plane, with {words} ({more} too many)"
            findings.append(Finding(code=code, reason=reason))
    return tuple(findings)


def _apart(a: Plane, b: Plane) -> float:
    return abs(dot(b.position, a.normal) - dot(a.position, a.normal))


def _rank(attributes: Attributes) -> tuple[float, float, float, str]:
    numbers = [
        float(value) if isinstance(value, (int, float)) else 0.0
        for value in (
            attributes.get(k)
            for k in ("AcquisitionNumber", "TemporalPositionIdentifier", "InstanceNumber")
        )
    ]
    return numbers[0], numbers[1], numbers[2], str(attributes.get("SOPInstanceUID", ""))
