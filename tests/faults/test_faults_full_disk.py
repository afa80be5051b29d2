"""The disk is full for real: a small tmpfs, filled to its last byte while the node works.

Refused is what cannot be kept (A700H: come again), nothing acknowledged is lost, nothing half
written is left, and when there is room again the node goes on by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.harness import Life
from faults.sender import SLICES

SIZE_MIB = 24
OUT_OF_RESOURCES = 0xA700  # PS3.4 §B.2.3


class SmallDisk:
    """A tmpfs at `top`."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self._ballast = top / "ballast"
        top.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(top)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no full disk: {done.stderr.strip()}")

    def fill(self) -> None:
        """Until nothing more goes in."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        self._ballast.unlink()

    def close(self) -> None:
        if subprocess.run(["umount", str(self.top)], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "--lazy", str(self.top)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid():
        pytest.skip("no full disk: mounting needs root")
    made = SmallDisk(tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture
def life(disk: SmallDisk, new_life: Callable[..., Life], pacs) -> Iterator[Life]:
    life = new_life(pacs, seed="full", data_dir=disk.top / "var", max_attempts=1)
    life.start()
    life.ready()
    life.sending(life.add_series()).join(60)
    life.wait(life.all_delivered, "the first result comes")
    yield life
    life.end()


def temporaries(life: Life) -> list[Path]:
    return list(life.data_dir.rglob("*.part"))


@pytest.mark.faults
def test_what_cannot_be_kept_is_refused_until_there_is_room_again(life: Life, disk: SmallDisk):
    disk.fill()
    (sent,) = life.add_series()
    for _ in range(3):  # the sender comes again, as it is told to
        life.sending([sent]).join(60)
    assert not life.dead(), life.told()
    assert sent.refused == [OUT_OF_RESOURCES] * 3 * SLICES, life.told()
    assert not sent.acknowledged
    assert not temporaries(life)
    assert not life.lost()
    disk.make_room()
    sent.refused.clear()
    life.finish()


def test_a_disk_that_fills_up_under_a_series_loses_nothing_of_it(life: Life, disk: SmallDisk):
    (sent,) = life.add_series()
    sent.datasets, rest = sent.datasets[: SLICES // 2], sent.datasets[SLICES // 2 :]
    life.sending([sent]).join(60)
    assert len(sent.acknowledged) == SLICES // 2
    disk.fill()
    sent.datasets += rest
    life.sending([sent]).join(60)
    assert len(sent.acknowledged) + len(sent.refused) == SLICES, life.told()
    assert set(sent.refused) == {OUT_OF_RESOURCES}, life.told()
    assert not temporaries(life)
    assert not life.lost()
    disk.make_room()
    sent.refused.clear()
    life.finish()


@pytest.mark.timeout(240)
def test_a_result_that_finds_no_room_is_made_when_there_is(life: Life, disk: SmallDisk):
    (performer,) = set(life.processes()) - {life.pid()}
    os.kill(performer, signal.SIGSTOP)
    try:
        life.sending(life.add_series()).join(60)
        waiting = "SELECT count(*) FROM step WHERE state = 'SCHEDULED'"
        life.wait(lambda: life.catalog(waiting) == [(1,)], "the step waits")
        disk.fill()
    finally:
        os.kill(performer, signal.SIGCONT)
    known = len(life.log.read_text().splitlines())
    life.wait(
        lambda: "full" in "".join(life.log.read_text().splitlines()[known:]),
        "the node tells of it",
    )
    assert not life.all_delivered()
    assert not life.lost()
    disk.make_room()
    life.finish()


def test_a_node_that_ended_on_a_full_disk_starts_again_by_its_reserve(life: Life, disk: SmallDisk):
    reserve = life.data_dir / "reserve"
    life.wait(reserve.exists, "it keeps something aside")
    life.kill()
    disk.fill()
    life.start()
    life.ready()
    assert not reserve.exists()
    disk.make_room()
    life.finish()
    life.kill()
    reserve.unlink(missing_ok=True)
    disk.fill()
    known = len(life.log.read_text())
    life.start()
    life.wait(life.dead, "without it there is no room for anything")
    assert "the disk is full" in life.log.read_text()[known:]
    disk.make_room()
    life.start()
    life.ready()
