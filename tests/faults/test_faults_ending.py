"""Told to end, the node ends, whichever of its threads the system gives the signal to."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.harness import Life


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are in /proc")
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.faults)]
)
def test_a_signal_that_another_than_the_main_thread_gets_ends_the_node(
    new_life: Callable[..., Life], pacs, number: signal.Signals
):
    life = new_life(pacs)
    life.start()
    life.ready()
    life.sending(life.add_series()).join(60)
    life.wait(life.all_delivered, "the result comes")
    main = life.pid()
    threads = {int(path.name) for path in Path(f"/proc/{main}/task").iterdir()} - {main}
    os.kill(min(threads), number)  # Linux gives it to the thread of that number; this one stays
    assert life.process.wait(60) == 0, life.told()
    life.performers_gone()
