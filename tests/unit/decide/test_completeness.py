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
    planes=93,
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
            "an earlier one was aborted",
            replace(RELEASED, associations=2, broken_associations=1),
            1013,
            SeriesState.COMPLETE,
        ),
        (
            "the header counts as many, and an association is open",
            replace(RELEASED, expected=93, open_associations=1, last_end=None, last_end_at=None),
            1012,
            SeriesState.COMPLETE,
        ),
        (
            "the header counts as many, and an association was aborted",
            replace(RELEASED, expected=93, associations=2, broken_associations=1),
            1013,
            SeriesState.COMPLETE,
        ),
        (
            "the header counts as many, and the last association was aborted",
            replace(RELEASED, expected=93, broken_associations=1, last_end="aborted"),
            1030,
            SeriesState.COMPLETE,
        ),
        (
            "the header counts as many, and the spacing is uneven while one is open",
            replace(RELEASED, expected=93, open_associations=1, doubt="spacing is uneven"),
            1030,
            SeriesState.COMPLETE,
        ),
        (
            "the node was down since: it heard nothing",
            replace(RELEASED, last_end="lost", last_end_at=2000, heard_since=2000),
            2020,
            SeriesState.COMPLETE,
        ),
        (
            "a hole, and the node was down since",
            replace(RELEASED, hole=HOLE, heard_since=2000),
            2600,
            SeriesState.INCOMPLETE,
        ),
        (
            "the node was started before it came",
            replace(RELEASED, heard_since=900),
            1013,
            SeriesState.COMPLETE,
        ),
        (
            "uneven spacing",
            replace(RELEASED, doubt="spacing is uneven"),
            1030,
            SeriesState.COMPLETE,
        ),
        ("a part was refused", replace(RELEASED, missed=3), 1610, SeriesState.INCOMPLETE),
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


def test_it_is_not_said_of_every_association_that_it_was_released_when_one_was_not():
    broken = replace(RELEASED, associations=2, broken_associations=1)
    assert "the last association was released" in judge(broken, POLICY, 1011).reasons
    assert "every association was released" in judge(RELEASED, POLICY, 1011).reasons


ASKABLE = replace(RELEASED, can_ask=True)
SAID = "PACS has 93 (C-FIND)"


def answered(evidence, count, at=1011.5):
    return replace(evidence, asked_at=at, source_count=count, source=f"PACS has {count} (C-FIND)")


@pytest.mark.parametrize("end", ["released", "aborted", "lost", "timed out"])
def test_a_series_that_its_source_counts_alike_is_complete_at_once(end):
    verdict = judge(answered(replace(ASKABLE, last_end=end), 93), POLICY, 1011.6)
    assert verdict.state is SeriesState.COMPLETE
    assert verdict.reasons == ("93 of 93 instances", SAID)


def test_a_hole_that_the_source_has_too_is_no_reason_to_wait():
    verdict = judge(answered(replace(ASKABLE, hole=HOLE), 93), POLICY, 1011.6)
    assert verdict.state is SeriesState.COMPLETE
    assert verdict.reasons[-1] == f"{HOLE}, at the source too"


def test_fewer_than_the_source_has_waits_to_the_limit_asks_again_and_is_incomplete():
    evidence = answered(ASKABLE, 95)
    waiting = judge(evidence, POLICY, 1011.6)
    assert (waiting.state, waiting.ask) == (SeriesState.RECEIVING, False)
    assert waiting.due_at == pytest.approx(1011.5 + 20)
    assert judge(evidence, POLICY, 1031.6).ask
    over = judge(evidence, POLICY, 1611)
    assert (over.state, over.ask) == (SeriesState.INCOMPLETE, False)
    assert over.reasons[:2] == ("93 of 95 instances", "PACS has 95 (C-FIND)")


def test_a_source_that_counts_fewer_proves_nothing():
    assert judge(answered(ASKABLE, 40), POLICY, 1011.6).state is SeriesState.RECEIVING
    assert judge(answered(ASKABLE, 40), POLICY, 1013).state is SeriesState.COMPLETE


def test_an_answer_from_before_the_last_instance_proves_nothing():
    stale = answered(ASKABLE, 93, at=1009)
    assert judge(stale, POLICY, 1011).ask


def test_a_source_that_cannot_say_leaves_it_to_the_hints():
    dumb = replace(ASKABLE, asked_at=1011.5, source="PACS could not be asked: no answer")
    verdict = judge(dumb, POLICY, 1012)
    assert (verdict.state, verdict.ask) == (SeriesState.RECEIVING, False)
    assert "PACS could not be asked: no answer" in verdict.reasons
    assert judge(dumb, POLICY, 1013).state is SeriesState.COMPLETE


def test_the_source_is_asked_when_the_association_ended_and_not_before():
    sending = replace(ASKABLE, open_associations=1, last_end=None, last_end_at=None)
    early = judge(sending, POLICY, 1010.5)
    assert (early.ask, early.due_at) == (False, 1012)
    assert judge(sending, POLICY, 1012).ask  # it paused for long
    assert judge(ASKABLE, POLICY, 1011).ask


def test_a_sender_with_an_association_for_each_image_is_not_believed_between_two():
    one_each = replace(ASKABLE, associations=93)
    assert not judge(one_each, POLICY, 1011).ask
    assert judge(one_each, POLICY, 1012).ask


def test_nothing_is_decided_while_the_source_is_being_asked_but_not_for_ever():
    asking = replace(ASKABLE, asking_since=1011)
    during = judge(asking, POLICY, 1020)
    assert (during.state, during.ask, during.due_at) == (SeriesState.RECEIVING, True, 1026)
    assert judge(asking, POLICY, 1026).state is SeriesState.COMPLETE


def test_what_an_operator_releases_is_complete():
    verdict = judge(replace(RELEASED, hole=HOLE, released=True), POLICY, 1011)
    assert verdict.state is SeriesState.COMPLETE
    assert verdict.reasons[-1] == "an operator released it"


def test_a_localizer_does_not_stand_in_for_a_plane_that_the_header_counts():
    evidence = replace(RELEASED, planes=92, expected=93)
    assert judge(evidence, POLICY, 1011).state is SeriesState.RECEIVING
    assert "92 planes, and the header counts 93" in judge(evidence, POLICY, 1011).reasons


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
    planes=st.integers(0, 2000),
    first_at=st.floats(0, 100),
    last_at=st.floats(100, 200),
    associations=st.integers(1, 50),
    open_associations=st.integers(0, 5),
    broken_associations=st.integers(0, 5),
    heard_since=st.floats(0, 300),
    last_end=st.sampled_from([None, "released", "aborted", "lost"]),
    last_end_at=st.none() | st.floats(100, 300),
    hole=st.sampled_from(["", HOLE]),
    doubt=st.sampled_from(["", "spacing is uneven"]),
    expected=st.none() | st.integers(1, 2000),
    can_ask=st.booleans(),
    asking_since=st.none() | st.floats(100, 300),
    asked_at=st.none() | st.floats(50, 300),
    source_count=st.none() | st.integers(1, 2000),
    released=st.booleans(),
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
        heard = max(evidence.last_at, evidence.heard_since)
        settled = judge(evidence, POLICY, max(verdict.due_at, heard + 900))
        assert settled.state is not SeriesState.RECEIVING or settled.ask
