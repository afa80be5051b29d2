"""The tally of all fault tests of a run, also of a run in several processes: a plugin of pytest."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from faults.tally import Tally

TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """What this process counts."""
    return pytestconfig.stash[TALLY]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of several hands in what it counted."""
    if _is_worker(session.config):
        counted = vars(session.config.stash[TALLY])
        session.config.workeroutput["tally"] = counted | {"where": dict(counted["where"])}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a process has handed in is added to the whole; one that crashed handed in nothing."""
    counted = getattr(node, "workeroutput", {}).get("tally")
    if counted:
        node.config.stash[TALLY].add(counted)


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
    if tally != Tally() and not _is_worker(config):
        sys.stdout.write(f"faults: {tally.line()}\n")


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workeroutput")
