"""Whatever the orientation and the order of arrival, the same planes are judged the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.decide.geometry import Fault, NotAStack, Stack, stack_of
from dicom_node.decide.vectors import Vector, cross, dot, minus, scaled, unit

angles = st.floats(-math.pi, math.pi)
origins = st.tuples(*[st.floats(-500, 500)] * 3)
spacings = st.floats(0.5, 10)


@st.composite
def frames(draw: st.DrawFn) -> tuple[Vector, Vector, Vector]:
    """Row, column and normal of an oblique plane."""
    a, b, c = draw(angles), draw(angles), draw(angles)
    row = unit((math.cos(a) * math.cos(b), math.sin(a) * math.cos(b), math.sin(b)))
    helper = (0.0, 0.0, 1.0) if abs(row[2]) < 0.9 else (0.0, 1.0, 0.0)
    across = unit(cross(row, helper))
    other = cross(row, across)
    column = unit(
        tuple(math.cos(c) * p + math.sin(c) * q for p, q in zip(across, other, strict=True))
    )
    return row, column, unit(cross(row, column))


def planes(
    frame: tuple[Vector, Vector, Vector], origin: Vector, steps: Sequence[float]
) -> list[dict[str, object]]:
    row, column, normal = frame
    return [
        {
            "SOPInstanceUID": f"1.{i}",
            "Rows": 64,
            "Columns": 48,
            "PixelSpacing": (0.7, 0.9),
            "ImageOrientationPatient": (*row, *column),
            "ImagePositionPatient": minus(origin, scaled(normal, -step)),
        }
        for i, step in enumerate(steps)
    ]


@given(frames(), origins, spacings, st.permutations(range(12)))
def test_order_of_arrival_does_not_matter(frame, origin, spacing, order) -> None:
    made = planes(frame, origin, [i * spacing for i in range(12)])
    judged = stack_of([made[i] for i in order])
    assert isinstance(judged, Stack)
    assert judged.uids == tuple(f"1.{i}" for i in range(12))
    assert math.isclose(judged.spacing_mm, spacing, rel_tol=1e-6)
    assert dot(judged.normal, frame[2]) > 1 - 1e-6


@given(frames(), origins, spacings, st.sets(st.integers(1, 18), min_size=1, max_size=8))
def test_missing_planes_are_counted(frame, origin, spacing, missing) -> None:
    kept = [i for i in range(20) if i not in missing]
    if min(b - a for a, b in pairwise(kept)) > 1:
        return  # no two neighbours are left: the spacing cannot be known
    judged = stack_of(planes(frame, origin, [i * spacing for i in kept]))
    assert isinstance(judged, NotAStack)
    assert judged.fault is Fault.HOLE
    assert judged.missing == len(missing)


@given(frames(), origins, st.floats(1, 10), st.integers(5, 40))
def test_a_sheared_stack_tells_its_angle(frame, origin, spacing, degrees) -> None:
    made = planes(frame, origin, [i * spacing for i in range(20)])
    shift = math.tan(math.radians(degrees)) * spacing
    for i, plane in enumerate(made):
        position = plane["ImagePositionPatient"]
        moved = minus(position, scaled(frame[1], i * shift))
        plane["ImagePositionPatient"] = moved
    judged = stack_of(made)
    assert isinstance(judged, NotAStack)
    assert judged.fault is Fault.SHEAR
    assert f"{degrees}.0°" in judged.reason


@given(frames(), origins, spacings, st.lists(st.floats(-0.05, 0.05), min_size=10, max_size=10))
def test_rounded_positions_make_a_stack(frame, origin, spacing, noise) -> None:
    steps = [i * spacing + n for i, n in enumerate(noise)]
    assert isinstance(stack_of(planes(frame, origin, steps)), Stack)
