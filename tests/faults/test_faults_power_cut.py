"""The power goes: only what had reached the disk at that instant is there when it comes back.

A killed process loses nothing that the page cache has, so SIGKILL proves nothing about durability.
Here the data folder is an ext4 in a file, mounted by loop, and the file lies in an XFS that can
clone it at once (FICLONE). The clone is the state of the disk at the cut. The node is killed, the
clone is mounted in place of the original (its journal is replayed, as at a boot), and the node is
started on it. What was acknowledged before the cut began must be there; results come once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from faults.harness import Life, wait_until
from faults.loop_disk import KINDS, LoopDisk
from faults.sender import SLICES
from faults.tally import seeds

CUTS = 10


@pytest.fixture
def powered(disk: LoopDisk, new_life: Callable[..., Life], pacs) -> Iterator[Callable[..., Life]]:
    """powered(seed) -> a life on that disk; its processes end before the disk goes."""
    lives: list[Life] = []

    def begin(seed: str) -> Life:
        lives.append(new_life(pacs, seed=seed, data_dir=disk.top / "var"))
        return lives[-1]

    yield begin
    for life in lives:
        life.end()


def acknowledged(life: Life) -> int:
    return sum(len(sent.acknowledged) for sent in life.sent)


def cut_and_come_back(life: Life, disk: LoopDisk, sender: threading.Thread) -> None:
    """The cut; then the sender knows what it was told before it, and nothing of what came after."""
    before = [set(sent.acknowledged) for sent in life.sent]
    disk.cut()
    life.kill()
    sender.join(60)
    life.performers_gone()
    disk.come_back()
    for sent, known in zip(life.sent, before, strict=True):
        sent.acknowledged = known
    life.tally.power_cuts += 1


def cut_while(life: Life, disk: LoopDisk, moment: str) -> None:
    life.start()
    todo = life.unfinished() + life.add_series(2)
    already, results = acknowledged(life), len(life.mine())
    sender = life.sending(todo)
    owed = sum(len(sent.owed()) for sent in todo)
    more = life.luck.randint(1, max(1, min(owed, 2 * SLICES) - 1))
    reached = {
        "receiving": lambda: acknowledged(life) >= already + more or not sender.is_alive(),
        "received": lambda: not sender.is_alive(),
        "delivering": lambda: len(life.mine()) > results,
        "delivered": life.all_delivered,
    }[moment]
    life.wait(lambda: life.dead() or reached(), moment)
    assert not life.dead(), life.told()
    cut_and_come_back(life, disk, sender)
    life.check_after_death()


@pytest.mark.parametrize("seed", seeds("power", 1))
def test_after_a_power_cut_everything_acknowledged_is_there_and_results_come_once(
    powered: Callable[..., Life], disk: LoopDisk, seed: str
):
    life = powered(seed)
    for moment in ("receiving", "delivering"):
        cut_while(life, disk, moment)
    life.finish()


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("disk", KINDS, indirect=True)
@pytest.mark.parametrize("seed", seeds("cuts", 2))
def test_after_many_power_cuts_everything_acknowledged_is_there_and_results_come_once(
    powered: Callable[..., Life], disk: LoopDisk, seed: str
):
    life = powered(seed)
    moments = ["receiving", "received", "delivering", "delivered"]
    for number in range(CUTS):
        moment = moments[number] if number < len(moments) else life.luck.choice(moments)
        cut_while(life, disk, moment)
    life.finish()


@pytest.mark.faults
@pytest.mark.parametrize("room", ["spool", "catalog"])
def test_a_node_that_leaves_out_a_sync_is_found_out(
    powered: Callable[..., Life], disk: LoopDisk, room: str
):
    life = powered("found out")
    life.start({"without": [room]})
    sender = life.sending(life.add_series(2))
    wait_until(lambda: life.dead() or not sender.is_alive(), "everything is acknowledged")
    assert acknowledged(life) == 2 * SLICES, life.told()
    cut_and_come_back(life, disk, sender)
    assert life.lost()
