"""When a clock is believed: as a table of starts, one after the other."""

from __future__ import annotations

import pytest

from dicom_node.decide.doubt import LEAP_S, TRIAL_S, Start, start

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0
YEARS = 12 * 365 * DAY


def test_a_first_start_is_believed():
    assert start(NOW, None, None) == Start(at=NOW, believed_at=NOW)


@pytest.mark.parametrize(
    ("off_s", "doubt_s"), [(-YEARS, 0.0), (0.0, 0.0), (LEAP_S, 0.0), (LEAP_S + 1, TRIAL_S)]
)
def test_a_start_that_is_much_later_than_the_last_event_is_doubted_for_a_day(off_s, doubt_s):
    before = Start(at=NOW - HOUR, believed_at=NOW - HOUR)
    found = start(NOW + off_s, NOW, before)
    assert found.doubt_s == doubt_s
    assert found.doubted_until == NOW + off_s + doubt_s


AHEAD = start(NOW + YEARS, NOW, None)


def test_the_doubt_outlives_a_restart_less_the_time_that_the_node_ran():
    again = start(NOW + YEARS + 5 * HOUR, NOW + YEARS + 4 * HOUR, AHEAD)
    assert again.doubt_s == TRIAL_S - 4 * HOUR
    later = start(NOW + YEARS + 9 * HOUR, NOW + YEARS + 8 * HOUR, again)
    assert later.doubt_s == TRIAL_S - 7 * HOUR
    assert later.believed_at == NOW


def test_after_a_day_of_running_the_time_is_believed():
    last = NOW + YEARS + DAY
    assert start(last + HOUR, last, AHEAD).doubt_s == 0.0
    assert start(last + HOUR, last, AHEAD).believed_at == last + HOUR


def test_a_clock_that_was_mended_is_believed_at_once():
    assert start(NOW + 2 * HOUR, NOW + YEARS + HOUR, AHEAD).doubt_s == 0.0


def test_a_clock_that_is_wrong_in_another_way_is_doubted_anew():
    found = start(NOW + YEARS / 2, NOW + YEARS + HOUR, AHEAD)
    assert (found.doubt_s, found.believed_at) == (TRIAL_S, NOW)
