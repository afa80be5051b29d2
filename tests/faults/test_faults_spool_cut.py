"""The power goes while the spool stores, and nothing else writes: on each kind of file system whose
promise the spool relies on, what put() has returned for is there whole when it comes back.

In a whole node the syncs of the catalog lie beside those of the spool, on the same disk, and what
one of them makes durable would hide that the other did not. Here the spool is alone.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.spool.disk import Disk
from dicom_node.spool.filesystem import names_follow_files
from dicom_node.spool.store import Spool
from faults.loop_disk import KINDS, LoopDisk
from faults.tally import Tally, seeds

THREADS = 4

on_each_kind = pytest.mark.parametrize("disk", KINDS, indirect=True)


class ByFolder(Disk):
    """The long way, as where nothing is known of the file system."""

    def names_follow_files(self, folder: Path) -> bool:
        return False


class ByName(Disk):
    """The short way, wherever it is."""

    def names_follow_files(self, folder: Path) -> bool:
        return True


class NameLast(ByName):
    """Wrong: the file is synced, and only then gets its name."""

    def rename(self, source: Path, target: Path) -> None:
        descriptor = os.open(source, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        super().rename(source, target)

    def sync_named(self, descriptor: int) -> None: ...


class NameOnly(ByName):
    """Wrong: the name is durable, the bytes are not."""

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.folder = target.parent

    def sync_named(self, descriptor: int) -> None:
        self.sync_folder(self.folder)


class SlowFolder(Disk):
    """Time passes between a name and its sync, as on a disk with much to do."""

    def sync_folder(self, folder: Path) -> None:
        threading.Event().wait(0.02)
        super().sync_folder(folder)


def spool_on(disk: LoopDisk, calls: Disk) -> Spool:
    return Spool(disk.top / "spool", calls)


def lost(spool: Spool, paths: list[str]) -> list[str]:
    return [path for path in paths if spool.look(path) is None or not spool.is_intact(path)]


SHORT_WAY = {"ext4": True, "ext4, fast commits": False, "ext4, no journal": False, "xfs": True}


@pytest.mark.parametrize("disk", SHORT_WAY, indirect=True)
def test_the_short_way_is_gone_where_power_cuts_have_shown_that_it_holds(disk: LoopDisk) -> None:
    assert names_follow_files(disk.top) is SHORT_WAY[disk.kind]
    assert Spool(disk.top / "spool")._names_follow is SHORT_WAY[disk.kind]
    assert sorted(path.name for path in disk.top.rglob("*") if path.is_file()) == []


@pytest.mark.parametrize("calls", [Disk(), ByFolder()], ids=["as it is", "by folder"])
@on_each_kind
def test_what_is_stored_survives_a_power_cut_at_that_moment(
    disk: LoopDisk, calls: Disk, tally: Tally
) -> None:
    luck = random.Random("stored")
    paths = []
    for _ in range(2):
        spool = spool_on(disk, calls)
        paths.append(spool.put(luck.randbytes(100_000)).path)
        disk.cut()
        disk.come_back()
        tally.power_cuts += 1
        assert lost(spool, paths) == []


@pytest.mark.parametrize("calls", [NameLast(), NameOnly()], ids=["name last", "name only"])
@on_each_kind
def test_a_spool_that_syncs_in_the_wrong_order_is_found_out(disk: LoopDisk, calls: Disk) -> None:
    spool = spool_on(disk, calls)
    paths = [spool.put(bytes([number]) * 100_000).path for number in range(3)]
    disk.cut()
    disk.come_back()
    assert paths[-1] in lost(spool, paths)


@pytest.mark.parametrize("calls", [NameLast(), NameOnly()], ids=["name last", "name only"])
@on_each_kind
def test_what_comes_again_never_costs_what_was_there(disk: LoopDisk, calls: Disk) -> None:
    """Even a spool that is wrong about the new file keeps the old one until then."""
    first = Spool(disk.top / "spool", ByFolder()).put(bytes(100_000)).path
    spool = spool_on(disk, calls)
    spool.put(bytes(100_000))
    disk.cut()
    disk.come_back()
    assert lost(spool, [first]) == []


class Storing:
    """Several threads that store until they are stopped, and what they were told is stored.

    again: which part of it they have stored before.
    """

    def __init__(self, spool: Spool, seed: str, again: float) -> None:
        self.paths: list[str] = []
        self._spool, self._over, self._again = spool, threading.Event(), again
        self._threads = [
            threading.Thread(target=self._store, args=(random.Random(f"{seed}:{number}"),))
            for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def _store(self, luck: random.Random) -> None:
        known: list[bytes] = []
        while not self._over.is_set():
            again = known and luck.random() < self._again
            data = luck.choice(known) if again else luck.randbytes(luck.randint(1, 200_000))
            known = [*known[-5:], data]
            self.paths.append(self._spool.put(data).path)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def cuts_while_storing(
    disk: LoopDisk, seed: str, count: int, calls: Disk | None = None, again: float = 0.2
) -> Iterator[tuple[Spool, list[str]]]:
    """The spool after each cut, and all that was stored before it."""
    kept: list[str] = []
    luck = random.Random(seed)
    for number in range(count):
        spool = spool_on(disk, calls or Disk())
        storing = Storing(spool, f"{seed}:{number}", again)
        more = luck.randint(1, 30)
        while len(storing.paths) < more:
            threading.Event().wait(0.005)
        kept += list(storing.paths)
        disk.cut()
        storing.stop()
        disk.come_back()
        yield spool, kept


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        *(pytest.param(seed, 1, id=seed) for seed in seeds("spool", 1)),
        *(pytest.param(s, 25, id=s, marks=pytest.mark.faults) for s in seeds("spools", 2)),
    ],
)
@on_each_kind
def test_what_several_threads_have_stored_survives_a_power_cut_at_any_moment(
    disk: LoopDisk, tally: Tally, seed: str, count: int
) -> None:
    for spool, kept in cuts_while_storing(disk, seed, count):
        tally.power_cuts += 1
        assert lost(spool, kept) == []


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        *(pytest.param(seed, 5, id=seed) for seed in seeds("again", 1)),
        *(pytest.param(s, 25, id=s, marks=pytest.mark.faults) for s in seeds("agains", 1)),
    ],
)
@on_each_kind
def test_what_comes_again_and_again_is_not_lost_in_a_power_cut(
    disk: LoopDisk, tally: Tally, seed: str, count: int
) -> None:
    """The blocks of what is replaced are free before its name is durable, if it is replaced."""
    for spool, kept in cuts_while_storing(disk, seed, count, SlowFolder(), again=0.6):
        tally.power_cuts += 1
        assert lost(spool, kept) == []
