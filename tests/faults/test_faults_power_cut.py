"""The power goes: only what had reached the disk at that instant is there when it comes back.

A killed process loses nothing that the page cache has, so SIGKILL proves nothing about durability.
Here the data folder is an ext4 in a file, mounted by loop, and the file lies in an XFS that can
clone it at once (FICLONE). The clone is the state of the disk at the cut. The node is killed, the
clone is mounted in place of the original (its journal is replayed, as at a boot), and the node is
started on it. What was acknowledged before the cut began must be there; results come once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.harness import Life, wait_until
from faults.sender import SLICES
from faults.tally import seeds

FICLONE = 0x40049409  # ioctl_ficlone(2)
OUTER_MIB = 640  # XFS does not go below 300
INNER_MIB = 200
CUTS = 10


class Refused(Exception):
    """This machine does not let us."""


def run(*command: object) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise Refused(f"{command[0]}: {done.stderr.strip() or done.returncode}")


class LoopDisk:
    """A disk in a file, mounted at `top`, whose power can be cut. Raises Refused."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "inner"
        self._outer = folder / "outer"
        self._cuts = 0
        for path in (folder, self.top, self._outer):
            path.mkdir()
        image = folder / "outer.img"
        self._sized(image, OUTER_MIB)
        run("mkfs.xfs", "-q", "-m", "reflink=1", image)
        run("mount", "-o", "loop", image, self._outer)
        try:
            self._sized(self._image, INNER_MIB)
            run("mkfs.ext4", "-q", "-F", self._image)
            self._mount()
        except Refused:
            self.close()
            raise

    @property
    def _image(self) -> Path:
        return self._outer / f"{self._cuts}.img"

    def _sized(self, path: Path, mib: int) -> None:
        with path.open("wb") as file:
            file.truncate(mib * 1024 * 1024)

    def _mount(self) -> None:
        # nothing is committed for its age while a test runs: what is durable is so by a sync
        run("mount", "-o", "loop,commit=300", self._image, self.top)

    def cut(self) -> None:
        """Keep the disk as it is at this instant; what is written from now on is lost."""
        before = self._image
        self._cuts += 1
        with before.open("rb") as source, self._image.open("wb") as clone:
            fcntl.ioctl(clone, FICLONE, source.fileno())

    def come_back(self) -> None:
        """Mount what was kept by the last cut. Nobody may use the disk."""
        wait_until(self._unmounted, "the disk is free")
        self._mount()

    def _unmounted(self) -> bool:
        """A process that is dying has lost its memory before it closes its files."""
        with contextlib.suppress(Refused):
            run("umount", self.top)
        return not os.path.ismount(self.top)

    def close(self) -> None:
        """Nothing stays mounted, and no loop device attached, whatever happened."""
        for path in (self.top, self._outer):
            with contextlib.suppress(Refused):
                if os.path.ismount(path):
                    run("umount", path)
            if os.path.ismount(path):  # somebody still lives in it: it goes with them
                run("umount", "--lazy", path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    if os.geteuid():
        pytest.skip("no power cuts: loop mounts need root")
    missing = [name for name in ("mkfs.xfs", "mkfs.ext4") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no power cuts: {' and '.join(missing)} missing")
    try:
        made = LoopDisk(tmp_path / "disk")
    except Refused as error:
        pytest.skip(f"no power cuts here: {error}")
    yield made
    made.close()


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
