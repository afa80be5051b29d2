"""How much may come in: as a table."""

from __future__ import annotations

import pytest

from dicom_node.decide.pressure import Level, Limits, judge

MIB = 1024 * 1024
LIMITS = Limits(min_free_bytes=200 * MIB, stop_free_bytes=100 * MIB, max_backlog=10)


@pytest.mark.parametrize(
    ("free_mib", "backlog", "used", "level"),
    [
        (300, 0, False, Level.OPEN),
        (200, 9, False, Level.OPEN),
        (199, 0, False, Level.REFUSING),
        (100, 0, False, Level.REFUSING),
        (99, 0, False, Level.CLOSED),
        (300, 10, False, Level.CLOSED),
        (150, 10, False, Level.CLOSED),
        (300, 0, True, Level.CLOSED),
    ],
)
def test_the_level(free_mib, backlog, used, level):
    found = judge(LIMITS, free_mib * MIB, backlog, reserve_used=used)
    assert found.level is level
    assert bool(found.reason) is (level is not Level.OPEN)


@pytest.mark.parametrize(
    ("free_mib", "before", "level"),
    [
        (199, Level.OPEN, Level.REFUSING),
        (200, Level.REFUSING, Level.REFUSING),
        (219, Level.REFUSING, Level.REFUSING),
        (220, Level.REFUSING, Level.OPEN),
        (99, Level.REFUSING, Level.CLOSED),
        (109, Level.CLOSED, Level.CLOSED),
        (110, Level.CLOSED, Level.REFUSING),
        (205, Level.CLOSED, Level.OPEN),
    ],
)
def test_it_gets_better_only_some_way_beyond_the_limit(free_mib, before, level):
    assert judge(LIMITS, free_mib * MIB, 0, before=before).level is level


def test_without_a_limit_any_number_of_steps_may_wait():
    limits = Limits(min_free_bytes=0, stop_free_bytes=0)
    assert judge(limits, 0, 10**9).level is Level.OPEN
