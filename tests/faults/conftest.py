"""The fixtures that fault tests share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.destinations import WatchfulPacs
from faults.harness import Life
from faults.loop_disk import LoopDisk, Refused, lacking
from faults.tally import Tally


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[WatchfulPacs]:
    """A PACS named TESTPACS that remembers every byte it was given."""
    with WatchfulPacs(tmp_path / "pacs", ae_title="TESTPACS") as running:
        yield running


@pytest.fixture(scope="session")
def strace() -> str:
    """The program; skips where it is not, or may not trace."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("system calls are not looked at: strace is not installed")
    done = subprocess.run([found, "-f", "true"], capture_output=True, timeout=20, check=False)
    if done.returncode:
        pytest.skip("system calls are not looked at: ptrace is not allowed here")
    return found


@pytest.fixture
def new_life(tmp_path: Path, tally: Tally) -> Iterator[Callable[..., Life]]:
    """new_life(destination, seed=...) -> Life; no process of it outlives the test."""
    lives: list[Life] = []

    def begin(destination: Any, *, seed: str = "life", **settings: Any) -> Life:
        folder = tmp_path / f"node-{len(lives)}"
        lives.append(Life(folder, destination, seed=seed, tally=tally, **settings))
        return lives[-1]

    yield begin
    for life in lives:
        life.end()


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LoopDisk]:
    """An ext4, or of the kind that the test is parametrized with."""
    why = lacking()
    if why:
        pytest.skip(f"no power cuts: {why}")
    try:
        made = LoopDisk(tmp_path / "disk", getattr(request, "param", "ext4"))
    except Refused as error:
        pytest.skip(f"no power cuts here: {error}")
    yield made
    made.close()
