"""SIGKILL at every step, and at any time: nothing acknowledged is lost, each result comes once.

Each round is one kill: the node starts on what the last kill left, new series come, and the node
ends at a chosen pass of a chosen step, or at a random moment. After every kill the acknowledged
instances are looked for on the disk. At the end of a life an unharmed node finishes the work, and
everything is compared byte for byte. A failure names its seed: FAULTS_SEED=<seed> runs it again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest

from faults.destinations import Files, OrthancFiles
from faults.harness import Life, wait_until
from faults.tally import seeds
from faults.victim import POINTS, located

KILLS = 200
KILLS_A_LIFE = 10
LIVES = KILLS // KILLS_A_LIFE
Plan = dict[str, object]

BOUNDARIES: list[tuple[str, str, str]] = [
    # process, point, when: what a node may never be caught in
    ("serve", "file synced", "before"),
    ("serve", "file renamed", "before"),
    ("serve", "folder synced", "before"),
    ("serve", "name synced", "before"),
    ("serve", "catalog committed", "before"),
    ("serve", "event folded", "after"),
    ("serve", "C-STORE answered", "before"),
    ("serve", "C-STORE answered", "after"),
    ("serve", "series judged", "after"),
    ("performer", "tool run", "before"),
    ("performer", "result encoded", "after"),
    ("performer", "file renamed", "after"),
    ("performer", "catalog committed", "after"),
    ("serve", "deliveries claimed", "after"),
    ("serve", "PDU to the PACS", "after"),
    ("serve", "delivery recorded", "before"),
    ("serve", "catalog and spool compared", "before"),
]

NAMES_FOLLOW = {"file synced": False, "folder synced": False, "name synced": True}
"""Which way the spool must go to pass there; the others are on both."""


def plans(luck: random.Random) -> Iterator[Plan | None]:
    """Every point of every process, before and after, shuffled, again and again; None: any time."""
    every = [
        (process, point, when)
        for point, (_, passes) in POINTS.items()
        for process in passes
        for when in ("before", "after")
    ]
    while True:
        luck.shuffle(every)
        for process, point, when in every:
            yield planned(process, point, when, luck)
            if luck.random() < 0.25:
                yield None


def planned(process: str, point: str, when: str, luck: random.Random) -> Plan:
    nth = luck.randint(1, POINTS[point][1][process])
    follow = NAMES_FOLLOW.get(point, luck.random() < 0.5)
    return {"process": process, "point": point, "when": when, "nth": nth, "names_follow": follow}


def live_through(life: Life, some: list[Plan | None]) -> None:
    """One kill after another."""
    for plan in some:
        where = one_round(life, plan)
        life.tally.kills += 1
        life.tally.where[where] += 1
        life.check_after_death()


def one_round(life: Life, plan: Plan | None) -> str:
    """Start, send, kill. Returns where it ended."""
    luck = life.luck
    if luck.random() < 0.8:
        life.performers_gone()  # else the old one may be about while the new one starts
    todo = life.unfinished() + life.add_series(luck.choice((1, 1, 1, 2)))
    begun = time.monotonic()
    life.start(plan)
    sender = life.sending(todo)
    if plan is None:
        moment = begun + luck.uniform(0.3, 4.0)
        wait_until(lambda: life.dead() or time.monotonic() > moment, "the moment comes")
        where = "at a random moment"
    else:
        life.wait(
            lambda: life.dead() or life.fired() or life.all_delivered(),
            "the kill, or the end of the work",
        )
        where = f"{plan['process']}, {plan['when']} {plan['point']}"
        if not life.fired():
            assert not life.dead(), life.told()
            where = "when all was delivered"
        elif plan["process"] == "performer" and luck.random() < 0.3:
            life.wait(life.all_delivered, "a new performer finishes the work")
    life.kill()
    sender.join(60)
    assert not sender.is_alive()
    return where


@pytest.mark.parametrize("point", POINTS)
def test_every_point_at_which_a_node_is_killed_is_still_in_it(point: str):
    owner, name = located(point)
    assert callable(getattr(owner, name))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", seeds("boundaries", 1))
def test_killed_at_each_boundary_nothing_is_lost_and_no_result_comes_twice(
    new_life: Callable[..., Life], pacs, seed: str
):
    life = new_life(pacs, seed=seed)
    live_through(life, [planned(*boundary, life.luck) for boundary in BOUNDARIES])
    life.finish()


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds("kills", LIVES))
def test_killed_anywhere_nothing_is_lost_and_no_result_comes_twice(
    new_life: Callable[..., Life], pacs, seed: str
):
    whole_life(new_life(pacs, seed=seed), seed)


def whole_life(life: Life, seed: str) -> None:
    """Its share of the plans, and the end."""
    name, _, number = seed.rpartition(":")
    source = plans(random.Random(name))
    everything = [next(source) for _ in range((int(number) + 1) * KILLS_A_LIFE)]
    live_through(life, everything[-KILLS_A_LIFE:])
    life.finish()


@pytest.mark.faults
@pytest.mark.peer
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds("dcmtk", 1))
def test_killed_anywhere_each_result_comes_once_to_storescp_of_dcmtk(
    new_life: Callable[..., Life], storescp, seed: str
):
    whole_life(new_life(Files(*storescp("+B")), seed=seed), seed)  # +B: every byte as it came


@pytest.mark.faults
@pytest.mark.peer
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds("orthanc", 1))
def test_killed_anywhere_each_result_comes_once_to_orthanc(
    new_life: Callable[..., Life], start_orthanc, seed: str
):
    whole_life(new_life(OrthancFiles(start_orthanc()), seed=seed), seed)
