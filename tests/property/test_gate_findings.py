"""What is planted in a stack is found with its numbers, in whatever order its planes come."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.decide.gate import admission, repeat_findings, repeats, stack_findings
from dicom_node.decide.geometry import Fault, Finding, Stack, stack_of
from dicom_node.decide.vectors import Vector, cross, minus, scaled, unit
from dicom_node.domain.policy import InputPolicy

COUNT = 16
angles = st.floats(-math.pi, math.pi)
origins = st.tuples(*[st.floats(-500, 500)] * 3)
spacings = st.floats(1.0, 8.0)
orders = st.permutations(range(COUNT))


@st.composite
def frames(draw: st.DrawFn) -> tuple[Vector, Vector, Vector]:
    """Row, column and normal of an oblique plane."""
    a, b, c = draw(angles), draw(angles), draw(angles)
    row = unit((math.cos(a) * math.cos(b), math.sin(a) * math.cos(b), math.sin(b)))
    helper = (0.0, 0.0, 1.0) if abs(row[2]) < 0.9 else (0.0, 1.0, 0.0)
    one = unit(cross(row, helper))
    two = cross(row, one)
    column = unit(tuple(math.cos(c) * p + math.sin(c) * q for p, q in zip(one, two, strict=True)))
    return row, column, unit(cross(row, column))


def planes(
    frame: tuple[Vector, Vector, Vector], origin: Vector, heights: Sequence[float]
) -> list[dict[str, object]]:
    row, column, normal = frame
    return [
        {
            "SOPInstanceUID": f"1.{i:03d}",
            "InstanceNumber": i,
            "Rows": 128,
            "Columns": 96,
            "PixelSpacing": (0.8, 0.8),
            "ImageOrientationPatient": (*row, *column),
            "ImagePositionPatient": minus(origin, scaled(normal, -height)),
        }
        for i, height in enumerate(heights)
    ]


def moved(plane: dict[str, object], along: Vector, mm: float) -> dict[str, object]:
    return plane | {
        "ImagePositionPatient": minus(plane["ImagePositionPatient"], scaled(along, -mm))
    }


def found(instances: Sequence[dict[str, object]]) -> dict[Fault, Finding]:
    """By code, as the node finds them; pixels at one position are said to differ."""
    grouped = repeats(instances)
    findings = repeat_findings(grouped, [False] * len(grouped.groups))
    kept = [i for i in instances if i["SOPInstanceUID"] not in grouped.dropped]
    judged = stack_of(kept, frozenset(Fault))
    assert isinstance(judged, Stack)
    findings += stack_findings(judged, {}, InputPolicy())
    return {finding.code: finding for finding in findings}


def number(finding: Finding, unit_of: str) -> float:
    match = re.search(rf"([\d.]+){unit_of}", finding.reason)
    assert match, finding.reason
    return float(match[1])


@given(frames(), origins, spacings, orders)
def test_a_regular_stack_has_no_finding(frame, origin, spacing, order) -> None:
    made = planes(frame, origin, [k * spacing for k in range(COUNT)])
    assert found([made[k] for k in order]) == {}


@given(frames(), origins, spacings, orders, st.integers(3, 35))
def test_a_tilt_is_found_with_its_angle(frame, origin, spacing, order, degrees) -> None:
    made = planes(frame, origin, [k * spacing for k in range(COUNT)])
    shift = math.tan(math.radians(degrees)) * spacing
    tilted = [moved(plane, frame[1], k * shift) for k, plane in enumerate(made)]
    (finding,) = found([tilted[k] for k in order]).values()
    assert finding.code is Fault.SHEAR
    assert abs(number(finding, "°") - degrees) < 0.06


@given(frames(), origins, spacings, orders, st.integers(1, COUNT - 2), st.floats(3.0, 80.0))
def test_a_plane_pushed_aside_is_found_with_its_way(frame, origin, spacing, order, k, mm) -> None:
    made = planes(frame, origin, [n * spacing for n in range(COUNT)])
    made[k] = moved(made[k], frame[0], mm)
    (finding,) = found([made[n] for n in order]).values()
    assert finding.code is Fault.SHIFT
    assert abs(number(finding, " mm") - mm) < 0.06


@given(frames(), origins, spacings, orders, st.integers(2, COUNT - 3), st.integers(1, 5))
def test_a_hole_is_found_with_its_size(frame, origin, spacing, order, k, missing) -> None:
    heights = [(n + (missing if n > k else 0)) * spacing for n in range(COUNT)]
    made = planes(frame, origin, heights)
    (finding,) = found([made[n] for n in order]).values()
    assert finding.code is Fault.HOLE
    assert finding.missing == missing


@given(frames(), origins, orders, st.integers(3, COUNT - 4), st.floats(1.3, 1.7))
def test_another_spacing_is_found_with_both(frame, origin, order, k, ratio) -> None:
    heights = [4.0 * n + max(0, n - k) * 4.0 * (ratio - 1) for n in range(COUNT)]
    made = planes(frame, origin, heights)
    (finding,) = found([made[n] for n in order]).values()
    assert finding.code is Fault.UNEVEN
    assert finding.reason == f"spacing is uneven: from 4.00 to {4.0 * ratio:.2f} mm"


@given(frames(), origins, spacings, st.permutations(range(COUNT + 4)), st.sets(
    st.integers(0, COUNT - 1), min_size=4, max_size=4))  # fmt: skip
def test_planes_that_come_twice_are_counted(frame, origin, spacing, order, twice) -> None:
    made = planes(frame, origin, [n * spacing for n in range(COUNT)])
    made += [made[n] | {"SOPInstanceUID": f"2.{n}", "InstanceNumber": 99} for n in sorted(twice)]
    shuffled = [made[n] for n in order]
    assert repeats(shuffled).dropped == {f"2.{n}" for n in twice}
    (finding,) = found(shuffled).values()
    assert finding.code is Fault.DUPLICATE
    assert finding.reason.startswith("4 positions have more than one plane")


faults = st.sampled_from(["tilt", "hole", "uneven", "copy", "sparse"])


@given(frames(), origins, st.sets(faults), orders, orders)
def test_the_order_of_arrival_changes_no_finding(frame, origin, planted, one, other) -> None:
    heights = [4.0 * n for n in range(COUNT)]
    if "hole" in planted:
        heights = [h + (8.0 if h > 20 else 0.0) for h in heights]
    if "uneven" in planted:
        heights = [h + (1.7 if h > 40 else 0.0) for h in heights]
    made = planes(frame, origin, heights)
    if "tilt" in planted:
        made = [moved(plane, frame[1], 1.5 * h) for plane, h in zip(made, heights, strict=True)]
    if "copy" in planted:
        made[3] = made[4] | {"SOPInstanceUID": "9.9"}
    if "sparse" in planted:
        made = [plane | {"SliceThickness": 1.0} for plane in made]
    first, second = (found([made[n] for n in order]) for order in (one, other))
    assert first == second
    policy = InputPolicy()
    assert admission(first.values(), policy) == admission(second.values(), policy)
