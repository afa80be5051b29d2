"""Processes that receive are handed what they can serve, and told what they must know."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicom_node.domain.errors import SpoolError
from dicom_node.node.crew import Crew

ADDRESS = ("127.0.0.1", 104)
SERVES = """
import json, os, socket, sys
print("pid", os.getpid(), file=sys.stderr, flush=True)
control, kept = socket.socket(fileno=int(sys.argv[1])), []
control.send(b"ready")
while True:
    message, descriptors, *_ = socket.recv_fds(control, 4096, 2)
    if not message:
        break
    kept += descriptors
    print(*json.loads(message)[:2], file=sys.stderr, flush=True)
"""
STARTS = """
import socket, sys
print("begun", file=sys.stderr, flush=True)
socket.socket(fileno=int(sys.argv[1])).recv(1)
"""
DIES = "raise SystemExit(1)"


class Gate:
    """Who is there."""

    def __init__(self):
        self.there = []

    def arrive(self, connection):
        self.there.append(connection)

    def leave(self, connection):
        self.there.remove(connection)


class House:
    """A crew of one process, and what it says on standard error."""

    def __init__(self, folder, script, sweep=lambda _pid: 0):
        self.path = folder / "said"
        self.gate = Gate()
        self.house = SimpleNamespace(gate=self.gate, committer=None, secure=None)
        self._log = self.path.open("w")
        self.crew = Crew(
            count=1,
            command=("-S", "-c", script),
            receiver=SimpleNamespace(**dict.fromkeys(QUESTIONS)),
            sweep=sweep,
            log_to=self._log,
        )
        self._connections = contextlib.ExitStack()

    def said(self):
        return self.path.read_text().splitlines()

    def pid(self):
        """Of the process that was started last; waits until it has said so."""
        wait_until(lambda: any(line.startswith("pid") for line in self.said()))
        return int([line for line in self.said() if line.startswith("pid")][-1].split()[1])

    def take(self):
        """Whether a connection was handed over; it is kept open."""
        here, there = socket.socketpair()
        with contextlib.ExitStack() as undo, there:
            undo.enter_context(here)
            taken = self.crew.take(there, ADDRESS, self.house)
            if taken:
                self._connections.push(undo.pop_all())
        return taken

    def close(self):
        self._connections.close()
        self.crew.end()
        self._log.close()


QUESTIONS = (
    "idle_s", "identifies", "unsecured", "echoed", "refused", "rejected", "broke", "may_begin",
    "refuse", "record_of_another",
)  # fmt: skip


def wait_until(so, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def house(tmp_path):
    """house(script) -> House, closed after the test."""
    with contextlib.ExitStack() as stack:

        def begin(script, **settings):
            made = House(tmp_path, script, **settings)
            stack.callback(made.close)
            made.crew.start(0.0)
            return made

        yield begin


def test_a_process_that_has_not_said_that_it_is_ready_is_handed_nothing(house):
    starting = house(STARTS)
    assert not starting.take()
    wait_until(lambda: starting.said() == ["begun"])
    assert not starting.take()
    assert starting.gate.there == []


def test_one_that_is_ready_is_handed_what_comes(house):
    serving = house(SERVES)
    wait_until(serving.take)
    wait_until(lambda: serving.said()[-1].startswith("serve"))


def test_one_that_has_died_is_handed_nothing_before_the_next_is_ready(house, caplog):
    serving = house(SERVES)
    wait_until(serving.take)
    wait_until(lambda: serving.said()[-1].startswith("serve"))
    former = serving.pid()
    os.kill(former, signal.SIGKILL)
    wait_until(lambda: serving.crew.run_due(1.0) and "SIGKILL" in caplog.text)
    assert not serving.take()
    serving.crew.run_due(5.0)
    wait_until(serving.take)
    wait_until(lambda: serving.pid() != former)


def test_one_that_dies_at_every_start_is_started_more_and_more_seldom(house, caplog):
    caplog.set_level(logging.INFO, "dicom_node")
    dying = house(DIES)

    def count(word):
        return sum(word in record.getMessage() for record in caplog.records)

    starts = []
    for now in range(200):
        dying.crew.run_due(float(now))
        if count("is started") > len(starts):
            starts.append(now)
            wait_until(
                lambda now=now: dying.crew.run_due(float(now)) and count("ended") == len(starts)
            )
    assert starts == [0, 5, 15, 35, 75, 135, 195]
    assert not dying.take()


def test_what_one_that_has_died_left_is_cleared_away_and_a_failure_of_that_is_said(house, caplog):
    swept = []

    def sweep(pid):
        swept.append(pid)
        raise SpoolError("cannot sweep")

    serving = house(SERVES, sweep=sweep)
    pid = serving.pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: serving.crew.run_due(1.0) and swept == [pid])
    assert "cannot sweep" in caplog.text
    serving.crew.run_due(5.0)
    wait_until(serving.take)


def test_that_a_connection_is_to_end_is_said_as_soon_as_a_busy_process_can_hear(house):
    serving = house(SERVES)
    wait_until(serving.take)
    assert serving.take()
    first, second = serving.gate.there
    pid = serving.pid()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] == "T")
    for _ in range(5000):  # more than it has room for
        first.interrupt()
    second.interrupt("too many")
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: serving.crew.run_due(1.0) and f"interrupt {second.number}" in serving.said())
    assert f"interrupt {first.number}" in serving.said()


def test_a_connection_that_is_to_end_before_it_was_handed_over_is_handed_over_first(house):
    serving = house(SERVES)
    wait_until(serving.take)
    arrive = serving.gate.arrive

    def evicted(connection):
        arrive(connection)
        thread = threading.Thread(target=connection.interrupt)
        thread.start()
        thread.join()

    serving.gate.arrive = evicted
    assert serving.take()
    number = serving.gate.there[-1].number
    wait_until(lambda: len(serving.said()) == 4)
    assert serving.said()[-2:] == [f"serve {number}", f"interrupt {number}"]


def test_without_a_descriptor_more_a_connection_is_left_to_the_node_itself(house, monkeypatch):
    serving = house(SERVES)
    wait_until(serving.take)

    def fails():
        raise OSError(24, "Too many open files")

    here, there = socket.socketpair()
    with here, there, monkeypatch.context() as patched:
        patched.setattr(socket, "socketpair", fails)
        assert not serving.crew.take(there, ADDRESS, serving.house)
    assert serving.take()
