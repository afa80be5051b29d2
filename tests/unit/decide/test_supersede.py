"""What becomes of replaced results: a table of cases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.decide.supersede import DELIVERED, UNSENT, Replaced, again, replaces, settle
from dicom_node.domain.records import Result, Step
from dicom_node.domain.states import DELIVERY_TRANSITIONS, DeliveryState, StepState

D = DeliveryState
ALL = sorted(DeliveryState)


def replaced(state=D.SENT, *, newer=(D.SENT,), number=1, to="pacs", series="2.25.6"):
    return Replaced(
        delivery_id=number,
        destination=to,
        state=state,
        result_uid=f"2.25.{number}",
        series_uid=series,
        step_id=2,
        newer=frozenset(newer),
    )


@pytest.mark.parametrize("state", ALL)
def test_what_was_not_sent_is_withdrawn_and_nothing_else(state):
    found = settle([replaced(state, newer=())], told={"pacs"})
    assert found.withdrawn == ((1,) if state in UNSENT else ())
    assert found.notes == ()


@pytest.mark.parametrize("state", sorted(UNSENT))
def test_the_catalog_allows_each_withdrawal(state):
    assert D.WITHDRAWN in DELIVERY_TRANSITIONS[state]


@pytest.mark.parametrize("state", ALL)
@pytest.mark.parametrize("newer", [(), *((s,) for s in ALL), (D.SENT, D.QUEUED), (D.SENT, D.DEAD)])
def test_a_peer_is_told_once_it_has_the_newer_one_and_none_of_it_is_on_its_way(state, newer):
    found = settle([replaced(state, newer=newer)], told={"pacs"})
    has_newer = bool(set(newer) & DELIVERED)
    waits = bool(set(newer) & {D.QUEUED, D.DEFERRED, D.SENDING})
    assert bool(found.notes) == (state in DELIVERED and has_newer and not waits)


def test_a_peer_that_honours_no_notes_is_told_nothing():
    assert settle([replaced()], told={"other"}) == settle([], told=())


def test_there_is_one_note_for_a_series_with_all_its_instances_and_peers():
    some = [
        replaced(number=1),
        replaced(number=2),
        replaced(number=3, to="archive"),
        replaced(number=4, series="2.25.7"),
    ]
    first, second = settle(some, told={"pacs", "archive"}).notes
    assert (first.series_uid, first.delivery_ids) == ("2.25.6", (1, 2, 3))
    assert first.destinations == ("pacs", "archive")
    assert (second.series_uid, second.delivery_ids) == ("2.25.7", (4,))


# --- which results a step replaces


def a_step(number, inputs, *, results=("seg",), state=StepState.COMPLETED, replaces=()):
    return Step(
        step_id=number,
        series_uid="1.2",
        revision=number,
        route="lungs",
        tool_id="lungs",
        results=results,
        destinations=("pacs",),
        instance_uids=inputs,
        state=state,
        attempt=1,
        priority=0,
        due_at=0.0,
        replaces=replaces,
    )


def a_result(uid, step_id, kind="seg"):
    return Result(
        sop_instance_uid=uid,
        sop_class_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_uid=f"{uid}.0",
        study_uid="1",
        step_id=step_id,
        source_series_uid="1.2",
        tool_id="lungs",
        tool_version="1",
        kind=kind,
        path="p",
        size=1,
        sha256="",
        created_at=0.0,
    )


FEW, MORE, MOST = ("a",), ("a", "b"), ("a", "b", "c")
FIRST, SECOND = a_step(1, FEW), a_step(2, MORE, replaces=("R1",))
R1, R2 = a_result("R1", 1), a_result("R2", 2)


@pytest.mark.parametrize(
    ("step", "steps", "results", "expected"),
    [
        (a_step(1, FEW), [], [], ()),
        (a_step(2, MORE), [FIRST], [R1], ("R1",)),
        (a_step(3, MOST), [FIRST, SECOND], [R1, R2], ("R2",)),  # R1 is replaced already
        (a_step(3, MORE), [FIRST, SECOND], [R1, R2], ("R2",)),  # judged anew: by another version
        (a_step(2, FEW), [FIRST], [R1], ("R1",)),
        (a_step(1, FEW), [FIRST], [R1], ()),  # another route, in the same judgment
        (a_step(2, MORE), [replace(FIRST, tool_id="hearts")], [replace(R1, tool_id="hearts")], ()),
        (a_step(2, MORE, results=("sc",)), [FIRST], [R1], ()),  # of another kind
        (a_step(2, MORE, results=("sc", "seg")), [FIRST], [R1], ("R1",)),
        # one that was canceled replaced nothing
        (a_step(3, MOST), [FIRST, replace(SECOND, state=StepState.CANCELED)], [R1], ("R1",)),
        # pictures for another peer, from the same input, are no earlier ones
        (
            a_step(2, FEW, results=("sc",)),
            [FIRST, a_step(2, FEW, results=("seg", "sc"))],
            [R1, a_result("S1", 2, "sc")],
            (),
        ),
        # a result that was found in the spool, of no known step
        (a_step(1, MORE), [], [a_result("R0", 0)], ("R0",)),
    ],
)
def test_a_step_replaces_the_results_of_earlier_judgments(step, steps, results, expected):
    assert replaces(step, steps, results) == expected


def test_what_a_step_may_make_again_is_what_is_valid():
    third = a_step(3, MORE, replaces=("R2",), state=StepState.IN_PROGRESS)
    same = again(third, [FIRST, SECOND, third], [R1, R2])
    assert same.series == {"R2.0"}, "not what was replaced already"
    assert same.replaced == (("R1",), ())
    beside = again(a_step(2, MORE), [FIRST, SECOND], [R1, R2])
    assert beside.series == {"R2.0"}, "that of another route, in the same judgment"
    other = again(third, [FIRST, SECOND, third], [R1, replace(R2, tool_id="hearts")])
    assert other.series == frozenset()
