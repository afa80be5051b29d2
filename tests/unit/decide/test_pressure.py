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


def test_without_a_limit_any_number_of_steps_may_wait():
    limits = Limits(min_free_bytes=0, stop_free_bytes=0)
    assert judge(limits, 0, 10**9).level is Level.OPEN
