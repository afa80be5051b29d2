"""Do these planes make a stack? Judged from header attributes alone (PS3.3 C.7.6.2.1.1).

A Stack is what a model may be given and what a completeness verdict may trust: parallel planes of
one Frame of Reference, in the same matrix, evenly spaced along their normal, none missing, none
twice. Everything else is a NotAStack, with a sentence that has the numbers in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from dicom_node.decide.vectors import (
    Vector,
    across,
    cross,
    dot,
    length,
    minus,
    scaled,
    unit,
    vector,
)
from dicom_node.domain.records import Attributes

MIN_PLANES = 3  # two planes have one gap, which nothing can be held against
ORIENTATION_TOLERANCE = 1e-3  # largest difference of a direction cosine: 0.06°
UNIT_TOLERANCE = 0.01  # of the length of a direction vector, and of their right angle
SAME_POSITION_MM = 0.01
SPACING_TOLERANCE = 0.05  # of the spacing ...
SPACING_TOLERANCE_MM = 0.1  # ... but scanners round positions to a tenth of a millimetre
HOLE_TOLERANCE = 0.2  # of the spacing, between a gap and a whole number of spacings
SHEAR_TOLERANCE_DEG = 0.5
SHIFT_TOLERANCE_PIXELS = 1.0  # in-plane, of any plane against the line through the stack
PIXEL_SPACING_TOLERANCE = 1e-3  # relative
LOCALIZER_PLANES = 2  # as many planes of another orientation may be localizers ...
LOCALIZER_RATIO = 2  # ... where the others are at least that many times more


class Fault(StrEnum):
    """What keeps planes from being a stack."""

    TOO_FEW = "TOO FEW"
    NO_POSITION = "NO POSITION"
    FRAMES_OF_REFERENCE = "FRAMES OF REFERENCE"
    ORIENTATION = "ORIENTATION"
    MATRIX = "MATRIX"
    DUPLICATE = "DUPLICATE"
    SHEAR = "SHEAR"
    HOLE = "HOLE"
    UNEVEN = "UNEVEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One image plane in patient coordinates (LPS, mm).

    position: centre of the first voxel. row, column: unit vectors along a row (growing column
    index) and along a column. spacing_mm: between rows, between columns. thickness_mm: 0 if unsaid.
    """

    uid: str
    position: Vector
    row: Vector
    column: Vector
    rows: int
    columns: int
    spacing_mm: tuple[float, float]
    frame_of_reference: str = ""
    thickness_mm: float = 0.0

    @property
    def normal(self) -> Vector:
        """Row direction × column direction."""
        return unit(cross(self.row, self.column))


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
    findings: tuple[str, ...] = ()


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


def plane_of(attributes: Attributes) -> Plane | str:
    """The plane of a single-frame image, or the reason why it has none."""
    frames = attributes.get("NumberOfFrames", 1)
    if isinstance(frames, int) and frames > 1:
        return f"a multi-frame object of {frames} frames"
    rows, columns = attributes.get("Rows"), attributes.get("Columns")
    if not isinstance(rows, int) or not isinstance(columns, int) or not rows or not columns:
        return "no Rows and Columns"
    position = _floats(attributes.get("ImagePositionPatient"), 3)
    if position is None:
        return "no Image Position (Patient)"
    orientation = _floats(attributes.get("ImageOrientationPatient"), 6)
    if orientation is None:
        return "no Image Orientation (Patient)"
    row, column = vector(orientation[:3]), vector(orientation[3:])
    if not _is_orthonormal(row, column):
        return "an Image Orientation (Patient) that is not two perpendicular unit vectors"
    spacing = _floats(attributes.get("PixelSpacing"), 2)
    if spacing is None or min(spacing) <= 0:
        return "no Pixel Spacing"
    thickness = attributes.get("SliceThickness")
    return Plane(
        uid=str(attributes.get("SOPInstanceUID", "")),
        position=vector(position),
        row=unit(row),
        column=unit(column),
        rows=rows,
        columns=columns,
        spacing_mm=(spacing[0], spacing[1]),
        frame_of_reference=str(attributes.get("FrameOfReferenceUID", "")),
        thickness_mm=float(thickness) if isinstance(thickness, (int, float)) else 0.0,
    )


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
    """`stack` of the planes of `instances`; NO_POSITION if one of them has none."""
    planes: list[Plane] = []
    without: list[str] = []
    for attributes in instances:
        plane = plane_of(attributes)
        if isinstance(plane, Plane):
            planes.append(plane)
        else:
            without.append(plane)
    if without:
        total = len(planes) + len(without)
        reason = f"{len(without)} of {total} instances cannot be placed: {without[0]}"
        return NotAStack(fault=Fault.NO_POSITION, reason=reason)
    return stack(planes, tolerate)


def stack(planes: Sequence[Plane], tolerate: Collection[Fault] = frozenset()) -> Stack | NotAStack:
    """Order planes along their normal and judge them; the order of arrival does not matter.

    tolerate: faults that become findings; TOO_FEW, SHEAR, HOLE and UNEVEN can be tolerated, and
    FRAMES_OF_REFERENCE.
    """
    if not planes:
        return NotAStack(fault=Fault.TOO_FEW, reason="there is no image plane")
    faults = _parallel_faults(planes)
    if any(f.fault in (Fault.ORIENTATION, Fault.MATRIX) for f in faults):
        return faults[0]
    normal = planes[0].normal
    ordered = sorted(planes, key=lambda p: (dot(p.position, normal), p.uid))
    heights = [dot(p.position, normal) for p in ordered]
    faults += _position_faults(ordered, heights, normal)
    if len(planes) < MIN_PLANES:
        reason = f"{_count(len(planes))} make no stack: at least {MIN_PLANES} are needed"
        faults.append(NotAStack(fault=Fault.TOO_FEW, reason=reason))
    for fault in faults:
        if fault.fault not in tolerate or fault.fault is Fault.DUPLICATE:
            return fault
    span = heights[-1] - heights[0]
    spacing = span / (len(ordered) - 1) if len(ordered) > 1 else ordered[0].thickness_mm
    return Stack(
        uids=tuple(p.uid for p in ordered),
        planes=tuple(ordered),
        spacing_mm=spacing,
        normal=normal,
        positions_mm=tuple(h - heights[0] for h in heights),
        findings=(*(f.reason for f in faults), *_findings(ordered[0], spacing)),
    )


def hole(judged: Stack | NotAStack) -> str:
    """The complaint about planes that are missing inside the stack, "" if none are."""
    return judged.reason if isinstance(judged, NotAStack) and judged.fault is Fault.HOLE else ""


def _parallel_faults(planes: Sequence[Plane]) -> list[NotAStack]:
    """What is wrong whatever the positions are."""
    first = planes[0]
    faults = []
    orientations = _groups(planes)
    if len(orientations) > 1:
        sizes = " and ".join(str(len(g)) for g in orientations)
        reason = f"the planes have {len(orientations)} orientations ({sizes} planes)"
        faults.append(NotAStack(fault=Fault.ORIENTATION, reason=reason))
    matrices = sorted({(p.rows, p.columns) for p in planes})
    if len(matrices) > 1:
        named = " and ".join(f"{r} x {c}" for r, c in matrices[:3])
        reason = f"the planes have {len(matrices)} matrix sizes ({named})"
        faults.append(NotAStack(fault=Fault.MATRIX, reason=reason))
    off = [p for p in planes if not _same_spacing(p.spacing_mm, first.spacing_mm)]
    if off:
        a, b = first.spacing_mm, off[0].spacing_mm
        reason = f"pixel spacing varies ({a[0]:g} x {a[1]:g} mm and {b[0]:g} x {b[1]:g} mm)"
        faults.append(NotAStack(fault=Fault.MATRIX, reason=reason))
    frames = {p.frame_of_reference for p in planes}
    if len(frames) > 1:
        reason = f"the planes belong to {len(frames)} frames of reference"
        faults.append(NotAStack(fault=Fault.FRAMES_OF_REFERENCE, reason=reason))
    return faults


def _position_faults(
    ordered: Sequence[Plane], heights: Sequence[float], normal: Vector
) -> list[NotAStack]:
    """What is wrong with where parallel planes lie."""
    gaps = [b - a for a, b in pairwise(heights)]
    twice = sum(gap <= SAME_POSITION_MM for gap in gaps)
    if twice:
        reason = f"{_count(twice)} more than positions: some lie at the same position"
        if twice == len(gaps):
            reason = f"all {_count(len(ordered))} lie at the same position"
        return [NotAStack(fault=Fault.DUPLICATE, reason=reason)]
    if not gaps:
        return []
    return [*_shear_faults(ordered, heights, normal), *_gap_faults(heights, gaps)]


def _shear_faults(
    ordered: Sequence[Plane], heights: Sequence[float], normal: Vector
) -> list[NotAStack]:
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
        return [NotAStack(fault=Fault.SHEAR, reason=reason)]
    angle = math.degrees(math.atan2(length(drift), span))
    if angle > SHEAR_TOLERANCE_DEG and length(drift) > pixel / 2:
        reason = f"the gantry was tilted: the stack is sheared by {angle:.1f}°"
        return [NotAStack(fault=Fault.SHEAR, reason=reason)]
    return []


def _gap_faults(heights: Sequence[float], gaps: Sequence[float]) -> list[NotAStack]:
    """Holes (gaps of two, three ... spacings) and spacing that is uneven in any other way."""
    smallest = min(gaps)
    close = [g for g in gaps if g <= smallest * (1 + HOLE_TOLERANCE) + SPACING_TOLERANCE_MM]
    spacing = sum(close) / len(close)
    even = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * spacing)
    wide = [(i, g) for i, g in enumerate(gaps) if abs(g - spacing) > even]
    if not wide:
        return []
    counts = [(i, g, round(g / spacing)) for i, g in wide]
    if any(n < 2 or abs(g - n * spacing) > HOLE_TOLERANCE * spacing for _, g, n in counts):
        reason = f"spacing is uneven: from {smallest:.2f} to {max(gaps):.2f} mm"
        return [NotAStack(fault=Fault.UNEVEN, reason=reason)]
    missing = sum(n - 1 for _, _, n in counts)
    index, gap, _ = counts[0]
    where = f"after position {heights[index]:.1f} mm ({gap:.1f} instead of {spacing:.1f} mm)"
    more = f" and in {len(counts) - 1} more places" if len(counts) > 1 else ""
    plural = "planes are" if missing > 1 else "plane is"
    reason = f"{missing} {plural} missing {where}{more}"
    return [NotAStack(fault=Fault.HOLE, reason=reason, missing=missing)]


def _findings(first: Plane, spacing: float) -> list[str]:
    if first.thickness_mm > 0 and spacing > first.thickness_mm * 1.5:
        return [f"planes are {spacing:.1f} mm apart but {first.thickness_mm:.1f} mm thick"]
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
    placed = [(i, p) for i, p in found if isinstance(p, Plane)]
    groups = _groups([p for _, p in placed])
    if len(groups) < 2:
        return frozenset()
    largest = max(groups, key=len)
    odd = {id(p) for g in groups if g is not largest and _are_few(g, largest) for p in g}
    return frozenset(i for i, p in placed if id(p) in odd)


def _are_few(group: Sequence[Plane], largest: Sequence[Plane]) -> bool:
    return len(group) <= LOCALIZER_PLANES and len(largest) > len(group) * LOCALIZER_RATIO


def _groups(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Planes by orientation, in order of first appearance."""
    groups: list[list[Plane]] = []
    for plane in planes:
        for group in groups:
            if _same_orientation(plane, group[0]):
                group.append(plane)
                break
        else:
            groups.append([plane])
    return groups


def _same_orientation(a: Plane, b: Plane) -> bool:
    pairs = zip((*a.row, *a.column), (*b.row, *b.column), strict=True)
    return all(abs(x - y) <= ORIENTATION_TOLERANCE for x, y in pairs)


def _same_spacing(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return all(
        math.isclose(x, y, rel_tol=PIXEL_SPACING_TOLERANCE) for x, y in zip(a, b, strict=True)
    )


def _is_orthonormal(row: Vector, column: Vector) -> bool:
    return (
        abs(length(row) - 1) <= UNIT_TOLERANCE
        and abs(length(column) - 1) <= UNIT_TOLERANCE
        and abs(dot(row, column)) <= UNIT_TOLERANCE
    )


def _floats(value: object, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, (tuple, list)) or len(value) != count:
        return None
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in value):
        return None
    return tuple(float(v) for v in value)


def _count(planes: int) -> str:
    return "1 plane" if planes == 1 else f"{planes} planes"
