"""`hold` stops a series wherever it is on its way; `release` lets it go on, as it is."""

from __future__ import annotations

import itertools
import json
import os
import signal
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from dicom_node.cli.hold import hold, release
from dicom_node.cli.why import why
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series

FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
SEEDS = itertools.count(1)


@pytest.fixture(scope="module")
def table(build, shared_pacs):
    return build.peer_table("pacs", "TESTPACS", shared_pacs.port)


@pytest.fixture(scope="module")
def node(tmp_path_factory, build, table):
    """One node for all tests here; each has a series, and a patient, of its own."""
    with build.a_node(tmp_path_factory.mktemp("node"), peers=table) as running:
        yield running


def series(slices=6, **more):
    seed = next(SEEDS)
    return a_series(slices, header=Header(seed=seed), **more)


def sent(node, objects, **more):
    send_series(node.address, objects=objects, **FROM_PACS, **more)
    uid = objects[0].SeriesInstanceUID
    node.wait(lambda: node.running.catalog.views.series(uid) is not None)
    return uid


def ask(command, node, what, *options):
    arguments = [what, *options, "--config", str(node.config_path)]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None, done.exception
    return done


def state_of(node, uid):
    return str(node.running.catalog.views.series(uid).state)


def arrives(node, uid):
    node.wait(lambda: "pacs has it" in node.why(uid))


def passes(node):
    """A series that nobody holds goes all the way: every stage has had its turn meanwhile."""
    arrives(node, sent(node, series()))


def test_a_series_held_before_it_is_complete_is_not_judged_until_released(node, shared_pacs):
    uid = sent(node, series(), abort_after=6)  # aborted: it waits for quiet_s
    assert ask(hold, node, uid, "--reason", "wrong patient").return_value == 0
    passes(node)

    assert state_of(node, uid) == "HELD"
    assert node.running.catalog.views.steps(uid) == []
    assert node.why(uid) == (
        f"HELD: an operator held it: wrong patient (to let it go on: dicom-node release {uid})"
    )

    assert ask(release, node, uid).stdout == "1 series released\n"
    arrives(node, uid)
    assert len(shared_pacs.made_from(uid)) == 1


def test_a_result_of_a_held_series_is_not_delivered(node, shared_pacs):
    objects = series()
    uid = objects[0].SeriesInstanceUID
    shared_pacs.on_store = lambda _attempt: 0xA700
    sent(node, objects)
    node.wait(lambda: "DEFERRED" in node.why(uid))
    ask(hold, node, uid)
    shared_pacs.on_store = lambda _attempt: 0
    passes(node)

    assert shared_pacs.made_from(uid) == []
    assert state_of(node, uid) == "HELD"
    ask(release, node, uid)
    arrives(node, uid)
    assert len(shared_pacs.made_from(uid)) == 1


@contextmanager
def nobody_performs(node):
    """What is scheduled meanwhile waits: the performer gets no time."""
    pid = node.performer_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_step_of_a_held_series_is_not_performed(node, shared_pacs):
    passes(node)  # there is a performer, and it has nothing to do
    uid = sent(node, series(), abort_after=6)
    with nobody_performs(node):
        ask(release, node, uid)
        node.wait(lambda: node.running.catalog.views.steps(uid))
        ask(hold, node, uid)
    passes(node)

    (step,) = node.running.catalog.views.steps(uid)
    assert (step.state, step.attempt) == ("SCHEDULED", 0), "others were performed, and not this"
    assert state_of(node, uid) == "HELD"
    assert node.running.catalog.views.results(uid) == []
    assert shared_pacs.made_from(uid) == []
    ask(release, node, uid)
    arrives(node, uid)
    assert len(shared_pacs.made_from(uid)) == 1


def test_instances_that_come_while_it_is_held_count_when_it_is_released(node, shared_pacs):
    objects = series(8)
    uid = sent(node, objects[:4], abort_after=4)
    ask(hold, node, uid)
    sent(node, objects[4:])
    node.wait(lambda: node.running.catalog.views.series(uid).instances == 8)
    assert state_of(node, uid) == "HELD"

    ask(release, node, uid)
    arrives(node, uid)
    (seg,) = shared_pacs.made_from(uid)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 8


def test_what_comes_after_a_release_makes_a_result_that_replaces_the_first(node, shared_pacs):
    objects = series(8)
    uid = sent(node, objects[:6], abort_after=6)
    ask(release, node, uid)
    arrives(node, uid)
    sent(node, objects[6:])
    node.wait(lambda: len(shared_pacs.made_from(uid)) == 2)
    node.wait(lambda: "which replaces 1 earlier one; pacs has it" in node.why(uid))
    made = shared_pacs.made_from(uid)
    used = [len(s.ReferencedSeriesSequence[0].ReferencedInstanceSequence) for s in made]
    assert sorted(used) == [6, 8], "the first of what had come, the second of all"


def test_a_series_that_is_waited_for_is_processed_as_it_is_when_released(node):
    uid = sent(node, series(), abort_after=5)
    ask(release, node, uid)
    arrives(node, uid)
    story = [line.text for line in node.story(uid).lines]
    assert "the Series was released: an operator released it" in story
    assert "the Series is COMPLETE: 5 instances; an operator released it" in story


def test_a_series_with_a_hole_that_is_released_gets_the_models_own_answer(node):
    uid = sent(node, series(12, missing=(5,)))
    node.wait(lambda: "INCOMPLETE" in node.why(uid))
    assert f"dicom-node release {uid}" in node.why(uid)
    ask(release, node, uid)
    node.wait(lambda: "its step was canceled: 1 plane is missing" in node.why(uid))


def test_all_series_of_a_patient_are_held_and_released_at_once(node):
    both = [
        a_series(6, header=Header(seed=next(SEEDS), series=name, extra={"PatientID": "BOTH"}))
        for name in ("one", "two")
    ]
    uids = {sent(node, objects, abort_after=6) for objects in both}
    assert len(uids) == 2
    told = ask(hold, node, "BOTH").stdout
    assert told.startswith("2 series held\n")
    assert all(f"\n  {uid}  CT Chest 3.0 mm\n" in told for uid in uids), "and which they are"
    answer = json.loads(ask(release, node, "BOTH", "--json").stdout)
    assert answer["released"] == 2
    assert {hit["series_uid"] for hit in answer["hit"]} == uids
    for uid in uids:
        arrives(node, uid)


def test_what_changes_nothing_is_said_and_fails(node):
    uid = sent(node, series())
    arrives(node, uid)
    for command, words in ((release, "complete already"), (hold, "held already")):
        if command is hold:
            assert ask(hold, node, uid).return_value == 0
        done = ask(command, node, uid)
        assert done.return_value == 1
        assert words in done.output
    unknown = ask(hold, node, "1.2.3")
    assert unknown.return_value == 1
    assert "received nothing with 1.2.3" in unknown.output


def test_the_reason_is_told_by_why_and_drives_no_terminal(node):
    uid = sent(node, series(), abort_after=6)
    ask(hold, node, uid, "--reason", "ask Dr. Who\x1b[2J\nfake line")
    told = CliRunner().invoke(why, [uid, "--config", str(node.config_path)]).output
    assert "ask Dr. Who" in told
    assert "\x1b" not in told
    assert "\nfake line" not in told


def test_a_restart_forgets_neither_what_is_held_nor_what_was_released(
    tmp_path, build, shared_pacs, table
):
    path = build.write_node(tmp_path / "node", peers=table)
    with build.started(path) as node:
        uids = [sent(node, series(), abort_after=6) for _ in range(2)]
        for uid in uids:
            ask(hold, node, uid)
    assert ask(release, node, uids[1]).return_value == 0, "also while the node is down"
    with build.started(path) as node:
        arrives(node, uids[1])
        assert state_of(node, uids[0]) == "HELD"
        ask(release, node, uids[0])
        arrives(node, uids[0])
