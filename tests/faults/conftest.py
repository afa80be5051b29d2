"""The tally of all fault tests of a run, and the fixtures they share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.destinations import WatchfulPacs
from faults.harness import Life
from faults.tally import Tally

TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Where the kills were."""
    where = config.stash[TALLY].where
    if where:
        terminalreporter.section("killed")
        for point, count in sorted(where.items()):
            terminalreporter.line(f"{count:5d}  {point}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of all, whether anything failed or not."""
    tally = config.stash.get(TALLY, Tally())
    if tally != Tally():
        sys.stdout.write(f"faults: {tally.line()}\n")


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash[TALLY]


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[WatchfulPacs]:
    """A PACS named TESTPACS that remembers every byte it was given."""
    with WatchfulPacs(tmp_path / "pacs", ae_title="TESTPACS") as running:
        yield running


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
