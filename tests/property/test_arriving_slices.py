"""Whatever the order in which slices come: in the end nothing is known but what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dicom_node.iod.arriving as arriving
from dicom_node.domain.volume import Volume, canonical
from dicom_node.iod.arriving import ArrivingStack
from dicom_node.tools.slices import CONTEXT_MM, REACH_MM, FoundSlice, Shown, neighbours

ROWS = COLUMNS = 4
GAPS = st.lists(
    st.one_of(
        st.sampled_from([0.5, 0.7, 1.0, 1.25, 2.5, 3.2, 5.0, 8.0, 10.0, 16.0, 25.0]),
        st.floats(0.3, 30.0),
    ),
    min_size=0,
    max_size=14,
)
EVEN = st.tuples(
    st.sampled_from([0.7, 1.0, 1.25, 2.5, 3.2, 16 / 3, 5.0, 7.5, 10.0]), st.integers(1, 20)
).map(lambda pair: [pair[0]] * pair[1])
HEIGHTS = st.one_of(GAPS, EVEN).map(lambda gaps: [0.0, *np.cumsum(gaps).tolist()])


# --- which slices are shown beside one


@given(heights=HEIGHTS)
def test_neighbours_lie_on_their_sides_and_within_reach(heights):
    found = neighbours(heights)
    assert [at for _, at, _ in found] == list(range(len(heights)))
    for low, at, high in found:
        assert low <= at <= high
        assert heights[at] - heights[low] <= REACH_MM
        assert heights[high] - heights[at] <= REACH_MM
        for best, others in ((low, range(at)), (high, range(at + 1, len(heights)))):
            within = [i for i in others if abs(heights[i] - heights[at]) <= REACH_MM]
            off = {i: abs(abs(heights[i] - heights[at]) - CONTEXT_MM) for i in within}
            assert (best in off) == bool(off), "itself only where there is no other"
            if off:
                assert off[best] <= min(off.values()) + 0.011


@given(heights=HEIGHTS)
def test_upside_down_the_neighbours_are_the_same(heights):
    last = len(heights) - 1
    turned = neighbours([heights[-1] - height for height in reversed(heights)])
    assert [(last - h, last - at, last - low) for low, at, h in reversed(turned)] == neighbours(
        heights
    )


@given(heights=HEIGHTS, noise=st.lists(st.floats(-1e-6, 1e-6), min_size=30, max_size=30))
def test_rounding_changes_no_neighbours_of_an_even_stack(heights, noise):
    gaps = [b - a for a, b in pairwise(heights)]
    if not gaps or max(gaps) - min(gaps) > 1e-9:
        return
    moved = [height + off for height, off in zip(heights, noise, strict=False)]
    assert neighbours(moved) == neighbours(heights)


# --- a stack that arrives


class Network:
    """Answers by what it is shown; so an answer to another question shows."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, shown: Shown, triple: tuple[int, int, int]) -> FoundSlice:
        self.asked += 1
        said = [int(shown.voxels_zyx[i].astype(np.int64).sum()) for i in triple]
        size = [round(value * 1e6) for value in shown.spacing_yx_mm]
        bits = np.unpackbits(np.array([*said, *size], ">i8").view(np.uint8))
        return FoundSlice.of(bits[None].astype(np.uint8), float(sum(said)))

    def ahead(self, volume: Volume, memory: dict, *, all_there: bool) -> None:
        shown = _shown(volume, memory)
        for triple in shown.beside if all_there else shown.settled():
            if shown.remembered(triple) is None:
                memory[shown.key(triple)] = self(shown, triple)

    def found(self, volume: Volume, memory: dict | None) -> list[bytes]:
        shown = _shown(volume, memory)
        answers = [shown.remembered(t) or self(shown, t) for t in shown.beside]
        return [answer.labels().tobytes() for answer in answers]


def _shown(volume: Volume, memory: dict | None) -> Shown:
    turned, _ = canonical(volume)
    slice_mm, row_mm, column_mm = turned.spacing_zyx_mm
    count = len(turned.voxels_zyx)
    return Shown(
        voxels_zyx=turned.voxels_zyx,
        heights_mm=turned.heights_mm or [i * slice_mm for i in range(count)],
        spacing_yx_mm=(row_mm, column_mm),
        keys=turned.slice_keys,
        memory=memory,
    )


def _plane(number: int) -> np.ndarray:
    return np.arange(ROWS * COLUMNS, dtype=np.int16).reshape(ROWS, COLUMNS) * 7 + number**2


def _attributes(number: int, height: float, spacing_mm: float, *, feet_first: bool) -> dict:
    row = [-1.0, 0, 0] if feet_first else [1.0, 0, 0]
    return {
        "SOPInstanceUID": f"2.25.{number}",
        "Rows": ROWS,
        "Columns": COLUMNS,
        "ImagePositionPatient": (0.0, 0.0, height),
        "ImageOrientationPatient": (*row, 0.0, 1.0, 0.0),
        "PixelSpacing": (spacing_mm, spacing_mm),
        "SliceThickness": 1.0,
    }


@pytest.fixture(autouse=True)
def _decoded(monkeypatch):
    monkeypatch.setattr(arriving, "read_plane", lambda path, _decode: _plane(int(path.name)))


def _whole(heights: Sequence[float], spacing_mm: float, *, feet_first: bool) -> Volume:
    """The volume that the step would read: the tool is not given more."""
    stack = ArrivingStack()
    for number, height in enumerate(heights):
        stack.add(
            Path(str(number)),
            _attributes(number, height, spacing_mm, feet_first=feet_first),
            str(number),
        )
    volume = stack.whole()
    assert volume is not None
    assert len(volume.voxels_zyx) == len(heights)
    return volume


@settings(max_examples=150)
@given(
    heights=HEIGHTS.filter(lambda heights: len(heights) > 1),
    feet_first=st.booleans(),
    data=st.data(),
)
def test_in_any_order_the_answers_are_those_to_the_whole_stack(heights, feet_first, data):
    order = data.draw(st.permutations(range(len(heights))))
    portions = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=20))
    repeated = data.draw(st.sets(st.integers(0, len(heights) - 1)))
    stack, memory, network = ArrivingStack(), {}, Network()
    arriving_order = [n for n in order for _ in range(2 if n in repeated else 1)]
    while arriving_order:
        count = portions[len(arriving_order) % len(portions)]
        for n in arriving_order[:count]:
            there = str(n) in stack.planes
            attributes = _attributes(n, heights[n], 0.7, feet_first=feet_first)
            assert stack.add(Path(str(n)), attributes, str(n)) is not there
        del arriving_order[:count]
        for volume in stack.fresh():
            network.ahead(volume, memory, all_there=False)
        stack.settle()
        if data.draw(st.booleans()):  # a pause
            network.ahead(stack.whole(), memory, all_there=True)
    whole = _whole(heights, 0.7, feet_first=feet_first)
    assert network.found(whole, memory) == Network().found(whole, None)
    network.ahead(stack.whole(), memory, all_there=True)
    network.asked = 0
    network.found(whole, memory)
    assert network.asked == 0, "in the end all of it is known"


@given(heights=EVEN.map(lambda gaps: [0.0, *np.cumsum(gaps).tolist()]))
def test_in_order_nothing_is_asked_twice(heights):
    stack, memory, network = ArrivingStack(), {}, Network()
    for n, height in enumerate(heights):
        stack.add(Path(str(n)), _attributes(n, height, 0.7, feet_first=False), str(n))
        for volume in stack.fresh():
            network.ahead(volume, memory, all_there=False)
        stack.settle()
    network.ahead(stack.whole(), memory, all_there=True)
    assert network.asked == len(heights)


@pytest.mark.parametrize(
    ("spacing_mm", "feet_first"), [(0.7001, False), (0.7, True), (0.7001, True)]
)
def test_what_is_remembered_of_other_geometry_is_no_answer(spacing_mm, feet_first):
    heights = [2.5 * n for n in range(12)]
    memory, network = {}, Network()
    network.ahead(_whole(heights, 0.7, feet_first=False), memory, all_there=True)
    network.asked = 0
    other = _whole(heights, spacing_mm, feet_first=feet_first)
    assert network.found(other, memory) == Network().found(other, None)
    assert network.asked == len(heights)


@given(heights=HEIGHTS)
def test_what_is_settled_is_among_what_is_asked(heights):
    shown = Shown(
        voxels_zyx=np.zeros((len(heights), 1, 1), np.int16),
        heights_mm=heights,
        spacing_yx_mm=(1.0, 1.0),
    )
    assert set(shown.settled()) <= set(shown.beside)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.randoms(use_true_random=False))
def test_packed_slices_come_back(rows, columns, classes, random):
    values = [random.randint(0, classes) for _ in range(rows * columns)]
    labels = np.array(values, np.uint8).reshape(rows, columns)
    assert np.array_equal(FoundSlice.of(labels, 0.5).labels(), labels)
