"""What follows an attempt: each status of the standard has its fate, and waits grow to a limit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.decide.retry import (
    Attempt,
    Fate,
    Policy,
    Trouble,
    after,
    fate_of,
    kind_refused,
    step_wait_s,
    wait_s,
)
from dicom_node.domain.states import DeliveryState

POLICY = Policy(first_s=5, factor=2, max_s=100, give_up_s=1000, jitter=0.5)


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (0x0000, Fate.DONE),
        (0xB000, Fate.DONE),
        (0xB006, Fate.DONE),
        (0xB007, Fate.DONE),
        (0x0111, Fate.DONE),
        (0xA700, Fate.AGAIN),
        (0xA701, Fate.AGAIN),
        (0x0110, Fate.AGAIN),
        (0x0213, Fate.AGAIN),
        (0xA900, Fate.PERSON),
        (0xC000, Fate.PERSON),
        (0xC123, Fate.PERSON),
        (0x0122, Fate.PERSON),
        (0x0124, Fate.PERSON),
        (0x0214, Fate.PERSON),
    ],
)
def test_each_status_has_its_fate(status, fate):
    assert fate_of(Attempt(status=status)) is fate


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        (0x0000, False),
        (0x0105, False),
        (0x0110, False),
        (0x0117, False),
        (0x0122, True),
        (0x0124, False),  # not authorised: that is about us
        (0x0211, False),
        (0xA700, False),
        (0xA8FF, False),
        (0xA900, True),
        (0xA9FF, True),
        (0xAA00, False),
        (0xB000, False),
        (0xBFFF, False),
        (0xC000, True),
        (0xCFFF, True),
        (0xD000, False),
    ],
)
def test_which_statuses_are_about_the_kind_of_object(status, refused):
    assert kind_refused(status) is refused


def test_no_answer_is_tried_again_unless_the_peer_said_never():
    assert fate_of(Attempt(status=None)) is Fate.AGAIN
    assert fate_of(Attempt(status=None, permanent=True)) is Fate.PERSON


@pytest.mark.parametrize(
    ("attempt", "now", "state"),
    [
        (Attempt(status=0), 10, DeliveryState.SENT),
        (Attempt(status=0xA700), 10, DeliveryState.DEFERRED),
        (Attempt(status=0xA700), 1000, DeliveryState.DEAD),
        (Attempt(status=0xC000), 10, DeliveryState.PARKED),
        (Attempt(status=0), 2000, DeliveryState.SENT),
    ],
)
def test_a_fate_becomes_a_state(attempt, now, state):
    assert after(attempt, 1, 0.0, POLICY, now, 0.0).state is state


def test_waits_double_up_to_the_longest():
    assert [wait_s(n, POLICY, 0.0) for n in range(1, 8)] == [5, 10, 20, 40, 80, 100, 100]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_never_exceeds_the_longest_and_its_jitter(number, luck):
    assert 5 <= wait_s(number, POLICY, luck) <= 150


def test_jitter_spreads_the_attempts():
    assert wait_s(1, POLICY, 0.0) < wait_s(1, POLICY, 0.5) < wait_s(1, POLICY, 0.99)


@pytest.mark.parametrize(
    ("trouble", "attempt", "again"),
    [
        (Trouble.TOOL, 1, True),
        (Trouble.TOOL, 2, True),
        (Trouble.TOOL, 3, False),
        (Trouble.PLACE, 3, True),
        (Trouble.PLACE, 9, True),
        (Trouble.PLACE, 10, False),
        (Trouble.ROOM, 1000, True),
    ],
)
def test_how_often_a_step_is_tried_depends_on_what_it_failed_of(trouble, attempt, again):
    wait = step_wait_s(attempt, 3, trouble, 0.0)
    assert (wait is not None) is again


def test_a_model_or_file_that_is_not_there_is_looked_for_during_most_of_an_hour():
    waits = [step_wait_s(n, 1, Trouble.PLACE, 0.0) for n in range(1, 10)]
    assert 3000 < sum(waits) < 3600


def test_more_attempts_are_granted_for_that_too_where_the_configuration_says_so():
    assert step_wait_s(19, 20, Trouble.PLACE, 0.0) == 600
    assert step_wait_s(20, 20, Trouble.PLACE, 0.0) is None


def test_while_the_clock_is_doubted_nothing_is_given_up():
    doubting = replace(POLICY, doubted_until=5000.0)
    failed = Attempt(status=0xA700)
    assert after(failed, 3, 0.0, doubting, 4999.0, 0.0).state is DeliveryState.DEFERRED
    assert after(failed, 3, 0.0, doubting, 5000.0, 0.0).state is DeliveryState.DEAD
