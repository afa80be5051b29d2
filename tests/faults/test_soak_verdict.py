"""The verdict of `make soak`, and its picture, from samples made up."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from soak import Sample, judged, picture, report

RESTS = 12


def samples(**last: float) -> list[Sample]:
    """One under load and one at rest, twelve times; last: what is other in the last third."""
    made = []
    for number in range(RESTS):
        at_rest = {"memory_mib": 300.0, "descriptors": 30, "threads": 14, "processes": 2}
        if number >= RESTS - 3:
            at_rest |= last
        busy = at_rest | {"threads": 40, "memory_mib": 500.0}
        made.append(Sample(seconds=number * 60.0 + 30, rest=False, **busy))
        made.append(Sample(seconds=number * 60.0 + 60, rest=True, **at_rest))
    return made


def load(**tally: int) -> SimpleNamespace:
    return SimpleNamespace(tally=Counter(tally), slowest_echo_s=0.01)


@pytest.mark.parametrize("last", [{}, {"memory_mib": 312.0}, {"memory_mib": 200.0, "threads": 13}])
def test_what_stays_as_it_was_or_becomes_less_is_fine(last: dict[str, float]):
    assert judged(samples(**last), load()) == []


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({"memory_mib": 318.0}, "memory grew by 6.0%"),
        ({"threads": 15}, "threads: 14 and then 15"),
        ({"descriptors": 31}, "descriptors: 30 and then 31"),
        ({"processes": 3}, "processes: 2 and then 3"),
    ],
)
def test_what_grows_is_told(last: dict[str, float], told: str):
    assert judged(samples(**last), load()) == [told]


def test_an_answer_that_was_wrong_is_told():
    assert judged(samples(), load(**{"WRONG: object: closed": 1})) == ["WRONG: object: closed"]


def test_the_table_and_the_picture_say_what_was_seen():
    made = samples(memory_mib=306.0)
    text = "\n".join(report(made, load(objects=1234), []))
    assert "| memory (resident), MiB | 300 | 306 |" in text
    assert "1,234 objects" in text
    assert "it stayed as it was" in text
    drawn = ET.fromstring(picture(made))
    circles = [one for one in drawn.iter() if one.tag.endswith("circle")]
    assert len(circles) == 3 * RESTS
