"""What may be removed: as tables, and as a property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.decide.retention import Facts, Policy, oldest_wanted, purge, unsettled
from dicom_node.domain.states import DeliveryState, SeriesState, StepState

D, S, P = DeliveryState, SeriesState, StepState
DAY = 86400.0
NOW = 100 * DAY


def facts(**changed):
    values = {
        "state": S.COMPLETE,
        "last_at": NOW - 10 * DAY,
        "steps": (P.CANCELED, P.COMPLETED),
        "routes": frozenset({"lungs"}),
        "deliveries": ((D.COMMITTED, True), (D.VERIFIED, True), (D.WITHDRAWN, True)),
    }
    return Facts(**{**values, **changed})


KEEP_5 = Policy(keep_s=5 * DAY)


@pytest.mark.parametrize(
    "changed",
    [
        {"state": S.RECEIVING},
        {"state": S.INCOMPLETE},
        {"state": S.HELD},
        {"steps": (P.SCHEDULED,)},
        {"steps": (P.COMPLETED, P.IN_PROGRESS)},
        {"steps": (P.QUARANTINED,)},
        {"deliveries": ((D.SENT, True),)},
        {"note_due": True},
        *({"deliveries": ((state, False),)} for state in D
          if state not in {D.SENT, D.COMMITTED, D.VERIFIED, D.WITHDRAWN}),
    ],
)  # fmt: skip
def test_what_is_not_settled_stays_however_old_it_is_and_however_little_room_there_is(changed):
    open_ended = facts(**changed)
    everything = Policy(keep_s=0, promised_s=0, routes=frozenset({"lungs"}))
    assert unsettled(open_ended)
    assert purge(open_ended, everything, NOW, short=True) == ""


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"steps": ()},
        {"deliveries": ()},
        {"deliveries": ((D.SENT, False),)},  # the peer offers no proof: its 0x0000 is all there is
    ],
)
def test_what_is_settled_goes_when_its_time_is_up(changed):
    settled = facts(**changed)
    assert unsettled(settled) == ""
    assert purge(settled, KEEP_5, NOW, short=False) == "kept for 5 days"
    assert purge(settled, Policy(keep_s=11 * DAY), NOW, short=False) == ""


@pytest.mark.parametrize(
    ("changed", "policy", "short", "reason"),
    [
        ({}, Policy(), False, ""),  # for ever
        ({}, Policy(), True, "room was needed"),
        ({"promised_at": NOW - 9 * DAY}, KEEP_5, True, ""),
        ({"promised_at": NOW - 9 * DAY}, Policy(keep_s=1, promised_s=10 * DAY), True, ""),
        (
            {"promised_at": NOW - 9 * DAY},
            Policy(promised_s=9 * DAY),
            False,
            "promised, and kept for 9 days since",
        ),
        (
            {"promised_at": NOW - 9 * DAY},
            Policy(routes=frozenset({"lungs"})),
            False,
            "",
        ),
        ({"last_at": NOW}, Policy(routes=frozenset({"lungs"})), False, "delivered"),
        ({"last_at": NOW}, Policy(routes=frozenset({"others"})), False, ""),
        ({"routes": frozenset({"lungs", "b"})}, Policy(routes=frozenset({"lungs"})), False, ""),
        ({"deliveries": ()}, Policy(routes=frozenset({"lungs"})), False, ""),
        ({"deliveries": ((D.WITHDRAWN, True),)}, Policy(routes=frozenset({"lungs"})), False, ""),
        ({"state": S.HELD}, Policy(unsettled_s=9 * DAY), False, "unsettled for 9 days"),
        ({"state": S.HELD}, Policy(unsettled_s=11 * DAY, keep_s=1), True, ""),
        ({"state": S.RECEIVING}, Policy(unsettled_s=1), True, ""),
        ({"steps": (P.IN_PROGRESS,)}, Policy(unsettled_s=1), True, ""),
        ({"deliveries": ((D.SENDING, True),)}, Policy(unsettled_s=1), True, ""),
        ({"deliveries": ((D.DEAD, True),)}, Policy(unsettled_s=DAY), False, "unsettled for 1 day"),
    ],
)
def test_why_something_goes(changed, policy, short, reason):
    assert purge(facts(**changed), policy, NOW, short=short) == reason


times = st.none() | st.floats(0, 200 * DAY)
policies = st.builds(
    Policy,
    keep_s=times,
    unsettled_s=st.none(),
    promised_s=times,
    routes=st.frozensets(st.sampled_from(["a", "b"])),
)
any_facts = st.builds(
    Facts,
    state=st.sampled_from(S),
    last_at=st.floats(0, NOW),
    promised_at=st.none() | st.floats(0, NOW),
    steps=st.lists(st.sampled_from(P), max_size=3).map(tuple),
    routes=st.frozensets(st.sampled_from(["a", "b"])),
    deliveries=st.lists(st.tuples(st.sampled_from(D), st.booleans()), max_size=3).map(tuple),
    note_due=st.booleans(),
)


@given(facts=any_facts, policy=policies, short=st.booleans())
def test_nothing_goes_that_is_owed_or_promised(facts, policy, short):
    reason = purge(facts, policy, NOW, short=short)
    if reason:
        assert facts.state is S.COMPLETE
        assert not facts.note_due
        assert not {P.SCHEDULED, P.IN_PROGRESS, P.QUARANTINED} & set(facts.steps)
        for state, offers_proof in facts.deliveries:
            assert state in {D.COMMITTED, D.VERIFIED, D.WITHDRAWN, D.SENT}
            assert state is not D.SENT or not offers_proof
        if facts.promised_at is not None:
            assert policy.promised_s is not None
            assert NOW - facts.promised_at >= policy.promised_s
        wanted = oldest_wanted(policy, NOW, short=short)
        assert facts.last_at <= wanted or facts.routes <= policy.routes  # it would be looked at


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"state": S.HELD}, ""),
        ({"promised_at": NOW - 99 * DAY}, ""),
        ({"routes": frozenset({"passing"})}, "delivered"),
    ],
)
def test_while_the_clock_is_doubted_nothing_goes_for_its_age(changed, reason):
    ages = {"keep_s": DAY, "unsettled_s": DAY, "promised_s": DAY}
    policy = Policy(**ages, routes=frozenset({"passing"}), doubted_until=NOW + 1)
    assert purge(facts(**changed), policy, NOW, short=False) == reason
    assert oldest_wanted(policy, NOW, short=False) == 0.0
    assert purge(facts(**changed), policy, NOW + 1, short=False) != ""
    assert purge(facts(), policy, NOW, short=True) == "room was needed"
