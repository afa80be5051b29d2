"""Where an image lies in the patient, read from its header attributes (PS3.3 C.7.6.2.1.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dicom_node.decide.vectors import Vector, cross, dot, length, unit, vector
from dicom_node.domain.records import Attributes

ORIENTATION_TOLERANCE = 1e-3  # largest difference of a direction cosine: 0.06°
UNIT_TOLERANCE = 0.01  # of the length of a direction vector, and of their right angle
PIXEL_SPACING_TOLERANCE = 1e-3  # relative


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


def frames_of(attributes: Attributes) -> int:
    """Number of Frames (0028,0008), 1 where it is not said."""
    frames = attributes.get("NumberOfFrames", 1)
    return frames if isinstance(frames, int) else 1


def plane_of(attributes: Attributes) -> Plane | str:
    """The plane of a single-frame image, or the reason why it has none."""
    if frames_of(attributes) > 1:
        return f"a multi-frame object of {frames_of(attributes)} frames"
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


def by_orientation(planes: Iterable[Plane]) -> list[list[Plane]]:
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


def same_pixel_spacing(a: Plane, b: Plane) -> bool:
    """Whether the pixels of two planes have the same size."""
    return all(
        math.isclose(x, y, rel_tol=PIXEL_SPACING_TOLERANCE)
        for x, y in zip(a.spacing_mm, b.spacing_mm, strict=True)
    )


def in_stack_order(planes: Iterable[Plane], normal: Vector) -> list[Plane]:
    """Planes by their place along the normal, the lowest first."""
    return sorted(planes, key=lambda p: (dot(p.position, normal), p.uid))


def _same_orientation(a: Plane, b: Plane) -> bool:
    pairs = zip((*a.row, *a.column), (*b.row, *b.column), strict=True)
    return all(abs(x - y) <= ORIENTATION_TOLERANCE for x, y in pairs)


def _is_orthonormal(row: Vector, column: Vector) -> bool:
    return (
        abs(length(row) - 1) <= UNIT_TOLERANCE
        and abs(length(column) - 1) <= UNIT_TOLERANCE
        and abs(dot(row, column)) <= UNIT_TOLERANCE
    )


def _floats(value: object, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, (tuple, list)) or len(value) != count:
        return None
    found: Sequence[object] = value
    numbers = [float(v) for v in found if isinstance(v, (int, float)) and math.isfinite(v)]
    return tuple(numbers) if len(numbers) == count else None
