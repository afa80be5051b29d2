"""Do these planes make a stack? Judged from header attributes alone (PS3.3 C.7.6.2.1.1).

A Stack is what a model may be given and what a completeness verdict may trust: parallel planes of
one Frame of Reference, in the same matrix, evenly spaced along their normal, none missing, none
twice. Everything else is a Finding, with a sentence that has the numbers in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from dicom_node.decide.planes import (
    Plane,
    by_orientation,
    frames_of,
    in_stack_order,
    plane_of,
    same_pixel_spacing,
)
from dicom_node.decide.vectors import Vector, across, dot, length, minus, scaled
from dicom_node.domain.records import Attributes

MIN_PLANES = 3  # two planes have one gap, which nothing can be held against
SAME_POSITION_MM = 0.01
SPACING_TOLERANCE = 0.05  # of the spacing ...
SPACING_TOLERANCE_MM = 0.1  # ... but scanners round positions to a tenth of a millimetre
HOLE_TOLERANCE = 0.2  # of the spacing, between a gap and a whole number of spacings
SHEAR_TOLERANCE_DEG = 0.5
SHIFT_TOLERANCE_PIXELS = 1.0  # in-plane, of any plane against the line through the stack
THICKER_RATIO = 1.5  # of the thickness of planes that are further apart on purpose
SPARSE_RATIO = 1.5  # of the distance of planes to their thickness
LOCALIZER_PLANES = 2  # as many planes of another orientation may be localizers ...
LOCALIZER_RATIO = 2  # ... where the others are at least that many times more


class Fault(StrEnum):
    """What may be wrong with the planes of a Series, or with their values."""

    PATIENTS = "PATIENTS"
    STUDIES = "STUDIES"
    TOO_FEW = "TOO FEW"
    MULTI_FRAME = "MULTI-FRAME"
    NO_POSITION = "NO POSITION"
    ORIENTATION = "ORIENTATION"
    MATRIX = "MATRIX"
    FRAMES_OF_REFERENCE = "FRAMES OF REFERENCE"
    DUPLICATE = "DUPLICATE"  # planes at one position, with other pixels
    COPY = "COPY"  # planes at one position, with the same pixels
    SHIFT = "SHIFT"
    SHEAR = "SHEAR"
    HOLE = "HOLE"
    UNEVEN = "UNEVEN"
    SPARSE = "SPARSE"
    ANISOTROPY = "ANISOTROPY"
    NON_SQUARE = "NON-SQUARE"
    SMALL_MATRIX = "SMALL MATRIX"
    BODY_PART = "BODY PART"
    CONSTANT = "CONSTANT"
    NO_RESCALE = "NO RESCALE"
    TOO_DENSE = "TOO DENSE"
    NO_AIR = "NO AIR"
    NO_TISSUE = "NO TISSUE"


class Severity(StrEnum):
    """What a fault puts at stake."""

    FATAL = "FATAL"  # there is no volume
    SERIOUS = "SERIOUS"  # a mask in the wrong place, or of what is not there
    MINOR = "MINOR"  # numbers that are less exact


_FATAL = frozenset(
    {
        *(Fault.PATIENTS, Fault.STUDIES),
        *(Fault.MULTI_FRAME, Fault.NO_POSITION, Fault.ORIENTATION, Fault.MATRIX),
    }
)
_MINOR = frozenset({Fault.COPY, Fault.SPARSE, Fault.ANISOTROPY, Fault.NON_SQUARE, Fault.BODY_PART})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be: `reason` in one clause, with its numbers.

    missing: planes that a hole lacks. slanted: the stack is so low for its tilt that most of a grid
    around it was not scanned: resampling would show what is not there.
    """

    code: Fault
    reason: str
    missing: int = 0
    slanted: bool = False

    @property
    def severity(self) -> Severity:
        """What it puts at stake."""
        if self.code in _FATAL:
            return Severity.FATAL
        return Severity.MINOR if self.code in _MINOR else Severity.SERIOUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Planes in order along their normal, the lowest first.

    positions_mm: each plane's distance from the first. findings: what is unusual but no fault, and
    the faults that were tolerated.
    """

    uids: tuple[str, ...]
    planes: tuple[Plane, ...]
    spacing_mm: float
    normal: Vector
    positions_mm: tuple[float, ...]
    findings: tuple[Finding, ...] = ()

    def has(self, *codes: Fault) -> bool:
        """Whether one of these was found."""
        return any(finding.code in codes for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAStack:
    """Why not, in one sentence. missing: planes that a hole lacks (0: unknown or none)."""

    fault: Fault
    reason: str
    missing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The instances of a Series that should make its volume, and the others, each with a reason."""

    volume: tuple[Attributes, ...]
    others: tuple[tuple[Attributes, str], ...]


def split_localizers(instances: Iterable[Attributes]) -> Split:
    """Set aside what a scanner puts into a Series beside its volume.

    Objects that are no image, colour pictures, localizers by Image Type, secondary images without a
    position (dose screens, summaries), and one or two planes of another orientation than the rest.
    The order of the volume part is that of `instances`.
    """
    volume: list[Attributes] = []
    others: list[tuple[Attributes, str]] = []
    for attributes in instances:
        reason = _set_aside(attributes)
        if reason:
            others.append((attributes, reason))
        else:
            volume.append(attributes)
    odd = _odd_orientations(volume)
    others += [(volume[i], "its orientation is not that of the rest") for i in sorted(odd)]
    kept = tuple(a for i, a in enumerate(volume) if i not in odd)
    return Split(volume=kept, others=tuple(others))


def stack_of(
    instances: Iterable[Attributes], tolerate: Collection[Fault] = frozenset()
) -> Stack | NotAStack:
    """`stack` of the planes of `instances`; NO_POSITION or MULTI_FRAME if one of them has none."""
    found = placed(instances)
    if isinstance(found, Finding):
        return _not(found)
    return stack(found, tolerate)


def placed(instances: Iterable[Attributes]) -> list[Plane] | Finding:
    """The plane of each instance, or what is wrong with those that have none."""
    planes: list[Plane] = []
    without: list[tuple[str, Fault]] = []
    for attributes in instances:
        plane = plane_of(attributes)
        if isinstance(plane, Plane):
            planes.append(plane)
        else:
            many = frames_of(attributes) > 1
            without.append((plane, Fault.MULTI_FRAME if many else Fault.NO_POSITION))
    if not without:
        return planes
    why, code = min(without)
    total = len(planes) + len(without)
    reason = f"{len(without)} of {total} instances cannot be placed: {why}"
    return Finding(code=code, reason=reason)


def stack(planes: Sequence[Plane], tolerate: Collection[Fault] = frozenset()) -> Stack | NotAStack:
    """Order planes along their normal and judge them; the order of arrival does not matter.

    tolerate: faults that become findings. DUPLICATE and the fatal ones cannot be tolerated.
    """
    if not planes:
        return NotAStack(fault=Fault.TOO_FEW, reason="there is no image plane")
    planes = sorted(planes, key=lambda p: (p.uid, p.position))
    faults = _parallel_faults(planes)
    if any(f.severity is Severity.FATAL for f in faults):
        return _not(faults[0])
    normal = planes[0].normal
    ordered = in_stack_order(planes, normal)
    heights = [dot(p.position, normal) for p in ordered]
    faults += _position_faults(ordered, heights, normal)
    if len(planes) < MIN_PLANES:
        faults.append(too_few(len(planes), MIN_PLANES))
    for fault in faults:
        if fault.code not in tolerate or fault.code is Fault.DUPLICATE:
            return _not(fault)
    span = heights[-1] - heights[0]
    spacing = span / (len(ordered) - 1) if len(ordered) > 1 else ordered[0].thickness_mm
    return Stack(
        uids=tuple(p.uid for p in ordered),
        planes=tuple(ordered),
        spacing_mm=spacing,
        normal=normal,
        positions_mm=tuple(h - heights[0] for h in heights),
        findings=(*faults, *_remarks(ordered[0], spacing)),
    )


def hole(judged: Stack | NotAStack) -> str:
    """The complaint about planes that are missing inside the stack, "" if none are."""
    return judged.reason if isinstance(judged, NotAStack) and judged.fault is Fault.HOLE else ""


def too_few(planes: int, least: int) -> Finding:
    """Fewer planes than `least`."""
    make = "makes" if planes == 1 else "make"
    reason = f"{counted(planes)} {make} no stack: at least {least} are needed"
    return Finding(code=Fault.TOO_FEW, reason=reason)


def counted(planes: int) -> str:
    """That many planes, in words."""
    return "1 plane" if planes == 1 else f"{planes} planes"


def _not(finding: Finding) -> NotAStack:
    return NotAStack(fault=finding.code, reason=finding.reason, missing=finding.missing)


def _parallel_faults(planes: Sequence[Plane]) -> list[Finding]:
    """What is wrong whatever the positions are; fatal faults first."""
    first = planes[0]
    faults = []
    orientations = by_orientation(planes)
    if len(orientations) > 1:
        sizes = " and ".join(str(len(g)) for g in orientations)
        reason = f"the planes have {len(orientations)} orientations ({sizes} planes)"
        faults.append(Finding(code=Fault.ORIENTATION, reason=reason))
    matrices = sorted({(p.rows, p.columns) for p in planes})
    if len(matrices) > 1:
        named = " and ".join(f"{r} x {c}" for r, c in matrices[:3])
        reason = f"the planes have {len(matrices)} matrix sizes ({named})"
        faults.append(Finding(code=Fault.MATRIX, reason=reason))
    off = [p for p in planes if not same_pixel_spacing(p, first)]
    if off:
        a, b = first.spacing_mm, off[0].spacing_mm
        reason = f"pixel spacing varies ({a[0]:g} x {a[1]:g} mm and {b[0]:g} x {b[1]:g} mm)"
        faults.append(Finding(code=Fault.MATRIX, reason=reason))
    frames = {p.frame_of_reference for p in planes}
    if len(frames) > 1:
        reason = f"the planes belong to {len(frames)} frames of reference"
        faults.append(Finding(code=Fault.FRAMES_OF_REFERENCE, reason=reason))
    return faults


def _position_faults(
    ordered: Sequence[Plane], heights: Sequence[float], normal: Vector
) -> list[Finding]:
    """What is wrong with where parallel planes lie."""
    gaps = [b - a for a, b in pairwise(heights)]
    twice = sum(gap <= SAME_POSITION_MM for gap in gaps)
    if twice:
        reason = f"{counted(twice)} more than positions: some lie at the same position"
        if twice == len(gaps):
            reason = f"all {counted(len(ordered))} lie at the same position"
        return [Finding(code=Fault.DUPLICATE, reason=reason)]
    if not gaps:
        return []
    return [*_shear_faults(ordered, heights, normal), *_gap_faults(ordered, heights, gaps)]


def _shear_faults(
    ordered: Sequence[Plane], heights: Sequence[float], normal: Vector
) -> list[Finding]:
    """Planes whose first voxels do not lie on one line along the normal."""
    origin, last = ordered[0].position, ordered[-1].position
    span = heights[-1] - heights[0]
    drift = across(minus(last, origin), normal)
    pixel = min(ordered[0].spacing_mm)
    worst = 0.0
    for plane, height in zip(ordered, heights, strict=True):
        share = (height - heights[0]) / span
        offset = across(minus(plane.position, origin), normal)
        worst = max(worst, length(minus(offset, scaled(drift, share))))
    if worst > SHIFT_TOLERANCE_PIXELS * pixel:
        reason = f"planes are shifted against each other in their plane, by up to {worst:.1f} mm"
        return [Finding(code=Fault.SHIFT, reason=reason)]
    angle = math.degrees(math.atan2(length(drift), span))
    if angle > SHEAR_TOLERANCE_DEG and length(drift) > pixel / 2:
        reason = f"the gantry was tilted: the stack is sheared by {angle:.1f}°"
        slanted = _slant_mm(ordered[0], drift, span) > math.hypot(span, length(drift))
        return [Finding(code=Fault.SHEAR, reason=reason, slanted=slanted)]
    return []


def _slant_mm(plane: Plane, drift: Vector, span: float) -> float:
    """How much further one edge of a plane lies along the table than the other."""
    down, along = plane.rows * plane.spacing_mm[0], plane.columns * plane.spacing_mm[1]
    reach = abs(dot(drift, plane.column)) * down + abs(dot(drift, plane.row)) * along
    return reach / math.hypot(span, length(drift))


def _gap_faults(
    ordered: Sequence[Plane], heights: Sequence[float], gaps: Sequence[float]
) -> list[Finding]:
    """Holes (gaps of two, three ... spacings) and spacing that is uneven in any other way."""
    smallest = min(gaps)
    close = [g for g in gaps if g <= smallest * (1 + HOLE_TOLERANCE) + 2 * SPACING_TOLERANCE_MM]
    spacing = sum(close) / len(close)
    rounded = SPACING_TOLERANCE_MM * (1 + 1 / len(close))  # the mean is of rounded ones, too
    even = max(rounded, SPACING_TOLERANCE * spacing) + 1e-6
    wide = [(i, g) for i, g in enumerate(gaps) if abs(g - spacing) > even]
    if not wide:
        return []
    counts = [(i, g, round(g / spacing)) for i, g in wide]
    odd = any(n < 2 or abs(g - n * spacing) > HOLE_TOLERANCE * spacing for _, g, n in counts)
    lone = _is_lone_step(len(close), [n for _, _, n in counts])
    if odd or lone or _are_thicker(ordered, [i for i, _ in wide]):
        reason = f"spacing is uneven: from {smallest:.2f} to {max(gaps):.2f} mm"
        return [Finding(code=Fault.UNEVEN, reason=reason)]
    missing = sum(n - 1 for _, _, n in counts)
    index, gap, _ = counts[0]
    where = f"after position {heights[index]:.1f} mm ({gap:.1f} instead of {spacing:.1f} mm)"
    others = len(counts) - 1
    more = f" and in {others} more place{'s' if others > 1 else ''}" if others else ""
    plural = "planes are" if missing > 1 else "plane is"
    reason = f"{missing} {plural} missing {where}{more}"
    return [Finding(code=Fault.HOLE, reason=reason, missing=missing)]


def _is_lone_step(close: int, multiples: Sequence[int]) -> bool:
    """Whether one small gap stands among much larger ones, which it divides by chance."""
    return close == 1 and len(multiples) > 1 and max(multiples) > 2


def _are_thicker(ordered: Sequence[Plane], wide: Sequence[int]) -> bool:
    """Whether planes at wide gaps are as much thicker: they were made that far apart."""
    thin = min(plane.thickness_mm for plane in ordered)
    return thin > 0 and any(
        min(ordered[i].thickness_mm, ordered[i + 1].thickness_mm) >= THICKER_RATIO * thin
        for i in wide
    )


def _remarks(first: Plane, spacing: float) -> list[Finding]:
    if first.thickness_mm > 0 and spacing > first.thickness_mm * SPARSE_RATIO:
        reason = f"planes are {spacing:.1f} mm apart but {first.thickness_mm:.1f} mm thick"
        return [Finding(code=Fault.SPARSE, reason=reason)]
    return []


def _set_aside(attributes: Attributes) -> str:
    """Why one instance is no part of a volume, by itself; "" if it may be."""
    rows, columns = attributes.get("Rows"), attributes.get("Columns")
    if not rows or not columns:
        return "it is not an image"
    if attributes.get("SamplesPerPixel", 1) != 1:
        return "it is a colour picture"
    kind = attributes.get("ImageType", ())
    values = [str(v).upper() for v in (kind if isinstance(kind, (tuple, list)) else (kind,))]
    if any(word in value for value in values for word in ("LOCALIZER", "SURVIEW", "SCOUT")):
        return "it is a localizer, by its Image Type"
    if "SECONDARY" in values[1:2] and attributes.get("ImagePositionPatient") is None:
        return "it is a secondary image without a position"
    return ""


def _odd_orientations(volume: Sequence[Attributes]) -> frozenset[int]:
    """Indices of the few planes whose orientation is not that of the many."""
    found = [(i, plane_of(a)) for i, a in enumerate(volume)]
    lying = [(i, p) for i, p in found if isinstance(p, Plane)]
    groups = by_orientation(p for _, p in lying)
    if len(groups) < 2:
        return frozenset()
    largest = max(groups, key=len)
    odd = {id(p) for g in groups if g is not largest and _are_few(g, largest) for p in g}
    return frozenset(i for i, p in lying if id(p) in odd)


def _are_few(group: Sequence[Plane], largest: Sequence[Plane]) -> bool:
    return len(group) <= LOCALIZER_PLANES and len(largest) > len(group) * LOCALIZER_RATIO
