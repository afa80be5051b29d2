"""When a Series counts as complete: a table of situations, and properties of the judgment."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.decide.completeness import Evidence, Policy, judge
from dicom_node.domain.states import SeriesState

POLICY = Policy(release_s=2, quiet_s=20, give_up_s=600)
RELEASED = Evidence(
    instances=93,
    first_at=1000,
    last_at=1010,
    associations=1,
    open_associations=0,
    last_end="released",
    last_end_at=1011,
)
HOLE = "1 plane is missing after position 30.0 mm"


@pytest.mark.parametrize(
    ("what", "evidence", "done_at", "state"),
    [
        ("released, nothing missing", RELEASED, 1013, SeriesState.COMPLETE),
        (
            "the header counts more",
            replace(RELEASED, expected=94),
            1030,
            SeriesState.COMPLETE,
        ),
        ("aborted", replace(RELEASED, last_end="aborted"), 1030, SeriesState.COMPLETE),
        ("the node was stopped", replace(RELEASED, last_end="lost"), 1030, SeriesState.COMPLETE),
        (
            "another association is open",
            replace(RELEASED, associations=2, open_associations=1),
            1030,
            SeriesState.COMPLETE,
        ),
        (
            "none has ended",
            replace(RELEASED, open_associations=1, last_end=None, last_end_at=None),
            1030,
            SeriesState.COMPLETE,
        ),
        (
            "an association for each image",
            replace(RELEASED, associations=93),
            1030,
            SeriesState.COMPLETE,
        ),
        (
            "uneven spacing",
            replace(RELEASED, doubt="spacing is uneven"),
            1030,
            SeriesState.COMPLETE,
        ),
        ("a hole", replace(RELEASED, hole=HOLE), 1610, SeriesState.INCOMPLETE),
        (
            "a hole, whatever the header counts",
            replace(RELEASED, hole=HOLE, expected=93),
            1610,
            SeriesState.INCOMPLETE,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_verdict_falls_when_the_evidence_allows(what, evidence, done_at, state):
    before = judge(evidence, POLICY, done_at - 0.01)
    after = judge(evidence, POLICY, done_at)
    assert before.state is SeriesState.RECEIVING, what
    assert before.due_at == pytest.approx(done_at)
    assert after.state is state, what
    assert after.due_at is None


def test_as_many_as_the_header_counts_is_complete_at_once():
    assert judge(replace(RELEASED, expected=93), POLICY, 1011).state is SeriesState.COMPLETE


def test_the_reasons_are_recorded_in_words():
    verdict = judge(replace(RELEASED, hole=HOLE), POLICY, 5000)
    assert verdict.reasons[:2] == ("93 instances", HOLE)
    assert "quiet for" in verdict.reasons[-1]


def test_a_clock_set_back_delays_and_does_not_break():
    verdict = judge(RELEASED, POLICY, 500)
    assert verdict.state is SeriesState.RECEIVING
    assert verdict.due_at == 502


evidences = st.builds(
    Evidence,
    instances=st.integers(1, 2000),
    first_at=st.floats(0, 100),
    last_at=st.floats(100, 200),
    associations=st.integers(1, 50),
    open_associations=st.integers(0, 5),
    last_end=st.sampled_from([None, "released", "aborted", "lost"]),
    last_end_at=st.none() | st.floats(100, 300),
    hole=st.sampled_from(["", HOLE]),
    doubt=st.sampled_from(["", "spacing is uneven"]),
    expected=st.none() | st.integers(1, 2000),
)


@given(evidences, st.floats(0, 5000))
def test_judging_twice_gives_the_same(evidence, now):
    assert judge(evidence, POLICY, now) == judge(evidence, POLICY, now)


@given(evidences, st.floats(100, 5000), st.floats(0, 5000))
def test_without_news_a_verdict_stays(evidence, now, later):
    first, then = judge(evidence, POLICY, now), judge(evidence, POLICY, now + later)
    if first.state is not SeriesState.RECEIVING:
        assert then.state is first.state


@given(evidences, st.floats(0, 5000))
def test_a_waiting_series_is_judged_by_its_due_time(evidence, now):
    verdict = judge(evidence, POLICY, now)
    if verdict.state is SeriesState.RECEIVING:
        assert verdict.due_at is not None
        assert verdict.due_at > now or verdict.due_at == pytest.approx(now)
        assert verdict.due_at <= now + 601
        settled = judge(evidence, POLICY, max(verdict.due_at, evidence.last_at + 900))
        assert settled.state is not SeriesState.RECEIVING
