"""SIGKILL where proof is asked for and given, where results are replaced, where files are removed.

As in test_faults_kill, each round is one kill, of a series of which something is wanted (see
onward); after each kill what was acknowledged is looked for, and at the end of a life an unharmed
node finishes everything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from faults.onward import OnwardLife, OnwardPacs
from faults.tally import Tally, seeds
from faults.victim import ONWARD, located

Move = tuple[str, str, str, str]  # what is wanted, of which process, at which point, when

STAYING: list[Move] = [
    *(("", "serve", "source asked", when) for when in ("before", "after")),
    *(("", "serve", "SourceCounted", when) for when in ("before", "after")),
    *(("new", "serve", "CommitmentRequested", when) for when in ("before", "after")),
    *((way, "serve", "commitment asked for", "after") for way in ("new", "same", "never")),
    *(("new", "serve", "report taken", when) for when in ("before", "after")),
    *(("same", "serve", "CommitmentReported", when) for when in ("before", "after")),
    *(("never", "serve", "ProofAwaited", when) for when in ("before", "after")),
    *(("never", "serve", "holdings listed", when) for when in ("before", "after")),
    *(("never", "serve", "DeliveryConfirmed", when) for when in ("before", "after")),
    *(("promise", "serve", "request for commitment", when) for when in ("before", "after")),
    *(("promise", "serve", "CommitmentAsked", when) for when in ("before", "after")),
    *(("promise", "serve", "CommitmentJudged", when) for when in ("before", "after")),
    *(("promise", "serve", "promise reported", when) for when in ("before", "after")),
    *(("promise", "serve", "CommitmentReportEnded", when) for when in ("before", "after")),
    *(("late", "performer", "rejection note made", when) for when in ("before", "after")),
    *(("late", "performer", "RejectionOwed", when) for when in ("before", "after")),
    *(("turned away", "performer", "DeliveryWithdrawn", when) for when in ("before", "after")),
    ("conflict", "serve", "InstanceArrived", "kept apart"),
    *(("held", "hold", "SeriesHeld", when) for when in ("before", "after")),
    *(("held", "release", "SeriesReleased", when) for when in ("before", "after")),
    *(("away", "serve", "PeerUnreachable", when) for when in ("before", "after")),
    *(("away", "serve", "PeerReached", when) for when in ("before", "after")),
]
PASSING: list[Move] = [
    *(("", "serve", "SeriesPurged", when) for when in ("before", "after")),
    *(("", "serve", "files removed", when) for when in ("before", "after")),
    *(("", "serve", "file removed", when) for when in ("before", "after")),
    *(("", "serve", "FilesRemoved", when) for when in ("before", "after")),
    *(("again", "serve", "InstanceRestored", when) for when in ("before", "after")),
]


@pytest.fixture
def onward(tmp_path: Path, tally: Tally) -> Iterator[Callable[..., OnwardLife]]:
    """onward(seed, passing=...) -> its life; no process of it outlives the test."""
    with OnwardPacs(tmp_path / "pacs", ae_title="TESTPACS") as pacs:
        lives: list[OnwardLife] = []

        def begin(seed: str, *, passing: bool = False) -> OnwardLife:
            folder = tmp_path / f"node-{len(lives)}"
            lives.append(OnwardLife(folder, pacs, seed=seed, tally=tally, passing=passing))
            return lives[-1]

        yield begin
        for life in lives:
            life.end()


def live_through(life: OnwardLife, moves: Sequence[Move]) -> list[Move]:
    """One kill after another; returns the moves whose point was not met."""
    missed = []
    for move in moves:
        wants, process, point, when = move
        life.performers_gone()
        life.begin({wants} - {""})
        nth = life.luck.randint(1, 4) if point in ("file removed", "InstanceRestored") else 1
        plan = {"process": process, "point": point, "when": when, "nth": nth}
        if when == "kept apart":
            plan |= {"when": "after", "outcome": "conflict"}
        life.start(plan)
        worker = life.working()
        life.wait(lambda: life.dead() or life.fired() or life.settled(), "the kill, or the end")
        if not life.fired():
            assert not life.dead(), life.told()
            missed.append(move)
        life.kill()
        worker.join(60)
        assert not worker.is_alive(), life.told()
        life.tally.kills += 1
        where = f"{process}, {when} {point}" if life.fired() else "when all was done"
        life.tally.where[where] += 1
        life.check_after_death()
    return missed


@pytest.mark.parametrize("point", ONWARD)
def test_every_point_beyond_the_way_of_one_image_is_still_in_the_node(point: str):
    owner, name = located(point)
    assert callable(getattr(owner, name))


def some(moves: list[Move], seed: str, count: int) -> list[Move]:
    return random.Random(seed).sample(moves, count)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", seeds("onward", 1))
def test_killed_where_proof_is_given_or_results_are_replaced_nothing_is_lost_or_doubled(
    onward: Callable[..., OnwardLife], seed: str
):
    life = onward(seed)
    live_through(life, some(STAYING, seed, 3))
    life.finish()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", seeds("passing", 1))
def test_killed_while_files_are_removed_only_what_was_proven_is_gone(
    onward: Callable[..., OnwardLife], seed: str
):
    life = onward(seed, passing=True)
    live_through(life, some(PASSING, seed, 2))
    life.finish()


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds("all-onward", 4))
def test_killed_at_each_point_beyond_the_way_of_one_image(
    onward: Callable[..., OnwardLife], seed: str
):
    name, _, number = seed.rpartition(":")
    moves = some(STAYING, name, len(STAYING))
    life = onward(seed)
    missed = live_through(life, moves[int(number) :: 4])
    life.finish()
    assert not missed, "points that the node did not come to"


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds("all-passing", 1))
def test_killed_at_each_point_of_a_removal(onward: Callable[..., OnwardLife], seed: str):
    life = onward(seed, passing=True)
    missed = live_through(life, some(PASSING, seed, len(PASSING)))
    life.finish()
    assert not missed, "points that the node did not come to"
