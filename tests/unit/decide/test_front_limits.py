"""Who gives way, who is too slow, and what is told of things that repeat: as tables."""

from __future__ import annotations

import pytest

from dicom_node.decide.eviction import Crowd, Waiting, gives_way
from dicom_node.decide.patience import AFRESH, Patience, Trickle, heard, left_s
from dicom_node.decide.telling import Count, Pace, happened

CROWD = Crowd(per_address=3, total=6, grace_s=1.0)


@pytest.mark.parametrize(
    ("addresses", "comes", "closed"),
    [
        ("", "a", None),
        ("aa", "a", None),
        ("aaa", "a", 0),  # too many of one address: its oldest
        ("baaa", "a", 1),
        ("aaab", "b", None),  # another's are none of its business
        ("abcdef", "g", 0),  # too many in all, of none more than one: the oldest
        ("sabbaa", "c", 1),  # ... the oldest of an address that has the most
        ("sbbaac", "a", 3),  # the one that comes counts, too
        ("saaabb", "b", 1),
    ],
)
def test_who_has_most_connections_gives_way(addresses: str, comes: str, closed: int | None) -> None:
    waiting = [Waiting(address=letter, since=float(n)) for n, letter in enumerate(addresses)]
    assert gives_way(waiting, comes, 100.0, CROWD) == closed


def test_connections_that_have_just_come_give_way_only_if_there_are_too_many_in_all() -> None:
    several = [Waiting(address="a", since=99.5) for _ in range(5)]
    assert gives_way(several, "a", 100.0, CROWD) is None
    assert gives_way([*several, several[0]], "a", 100.0, CROWD) == 0


@pytest.mark.parametrize(
    ("addresses", "comes", "closed"),
    [
        ("aaA", "a", 2),  # a capital letter: one that is leaving
        ("aAA", "a", 1),
        ("Abc", "b", None),
        ("aabBbC", "d", 3),
        ("aaabC", "b", None),
        ("aaabCd", "c", 0),  # ... of the address that has the most
    ],
)
def test_who_is_leaving_goes_before_who_may_yet_ask(
    addresses: str, comes: str, closed: int | None
) -> None:
    waiting = [
        Waiting(address=letter.lower(), since=float(n), leaving=letter.isupper())
        for n, letter in enumerate(addresses)
    ]
    assert gives_way(waiting, comes, 100.0, CROWD) == closed


def test_a_slow_peer_stays_however_many_connections_another_address_opens() -> None:
    waiting = [Waiting(address="slow", since=0.0)]
    for number in range(3000):
        now = 0.001 * number
        closed = gives_way(waiting, "flood", now, Crowd())
        if closed is not None:
            assert waiting[closed].address == "flood"
            del waiting[closed]
        waiting.append(Waiting(address="flood", since=now))
        assert len(waiting) <= Crowd().total
    assert waiting[0].address == "slow"


PATIENCE = Patience(pdu_s=60, idle_s=50, rate_s=30, rate_bytes_s=1024)


@pytest.mark.parametrize(
    ("pdu", "pdu_waited_s", "message", "left"),
    [
        (None, 0.0, None, 50),  # between messages: idle
        (AFRESH, 0.0, None, 30),  # in a PDU: the rate
        (AFRESH, 45.0, AFRESH, 15),  # ... and its last byte
        (Trickle(29.0, 100), 29.0, AFRESH, 1),
        (None, 0.0, AFRESH, 50),  # in a message, between PDUs: a pause
        (None, 0.0, Trickle(49.0, 3), 1),  # ... but it does not drag on
        (AFRESH, 0.0, Trickle(50.0, 3), 0),
    ],
)
def test_a_peer_has_so_much_time_left(
    pdu: Trickle | None, pdu_waited_s: float, message: Trickle | None, left: float
) -> None:
    assert left_s(PATIENCE, pdu=pdu, pdu_waited_s=pdu_waited_s, message=message) == left


@pytest.mark.parametrize(
    ("bytes_s", "borne"),
    [(1, False), (1000, False), (1024, True), (5000, True)],
)
def test_a_rate_is_borne_or_not(bytes_s: int, borne: bool) -> None:
    trickle = AFRESH
    for _ in range(600):  # a byte or many, each second for ten minutes
        if left_s(PATIENCE, pdu=trickle, pdu_waited_s=0.0, message=None) <= 0:
            break
        trickle = heard(trickle, 1.0, bytes_s, PATIENCE)
    else:
        assert borne
        return
    assert not borne


def test_what_waits_for_us_costs_the_peer_nothing() -> None:
    assert heard(Trickle(29.0, 0), 0.0, 100, PATIENCE) == Trickle(29.0, 100)
    assert heard(Trickle(29.0, 0), 0.5, 30 * 1024, PATIENCE) == AFRESH


@pytest.mark.parametrize(
    ("pace", "told"),
    [
        (Pace(first=1), [1, 0, 0, 0, 0, 0]),
        (Pace(first=3), [1, 1, 1, 0, 0, 0]),
        (Pace(first=1, then=2), [1, 0, 2, 0, 2, 0]),
        (Pace(first=1, again_s=3.0), [1, 0, 0, 3, 0, 0]),
    ],
)
def test_of_what_repeats_the_first_is_told_and_then_the_count(pace: Pace, told: list[int]) -> None:
    count, so_far = Count(), []
    for now in range(6):
        count, times = happened(count, float(now), pace)
        so_far.append(times)
    assert so_far == told


def test_a_clock_that_is_set_back_begins_anew_and_forgets_nothing() -> None:
    count, _ = happened(Count(), 1e9, Pace())
    count, _ = happened(count, 1e9, Pace())
    assert happened(count, 0.0, Pace())[1] == 2
