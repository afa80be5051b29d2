"""Keeps the performer processes alive: what dies is recorded, and started again."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO

from dicom_node.domain import events as e
from dicom_node.domain.records import Step
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal

_log = logging.getLogger("dicom_node")
_LOOK_S = 0.5
_AGAIN_S = 5.0  # not faster: a performer that dies at once would burn a core
_GRACE_S = 10.0


@dataclass(slots=True)
class _Child:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """Starts `count` performers with `command` + their number, and looks after them.

    A step whose performer died, or that takes longer than step_limit_s, has failed once more.
    """

    command: Sequence[str]
    arguments: Sequence[str]
    count: int
    step_limit_s: float
    max_attempts: int
    journal: Journal
    clock: Clock
    log_to: IO[str] | None = None
    children: list[_Child] = field(default_factory=list)

    def run_due(self, now: float) -> float:
        """Look after every performer. Returns when to look again."""
        if not self.children:
            self.children.extend(_Child(number) for number in range(self.count))
        for child in self.children:
            self._look_after(child, now)
        for step in self.journal.catalog.views.leases_lost(now):
            self.journal.commit(self._failed(step, "its performer was not heard of", now))
        return now + _LOOK_S

    def end(self) -> None:
        """End the performers, in order if they let it; what they had to leave does not count."""
        now = self.clock.now()
        for child in self.children:
            self._end(child)
            for step in self.journal.catalog.views.claimed_by(_name(child)):
                self.journal.commit(
                    e.StepReturned(at=now, step_id=step.step_id, reason="the node was stopped")
                )

    def _look_after(self, child: _Child, now: float) -> None:
        name = _name(child)
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                self._limit(child, name, now)
                return
            self._end(child)
            child.process = None
            _log.error("%s ended: %s", name, _how(code))
            self._fail(name, f"its process ended: {_how(code)}", now)
        if now - child.started_at >= _AGAIN_S:
            child.process = subprocess.Popen(
                [sys.executable, *self.command, str(child.number), *self.arguments],
                stdin=subprocess.PIPE,
                stderr=self.log_to,
            )
            child.started_at = now

    def _limit(self, child: _Child, name: str, now: float) -> None:
        for step in self.journal.catalog.views.claimed_by(name):
            if step.claimed_at is not None and now - step.claimed_at > self.step_limit_s:
                _log.error("%s works on step %d for too long", name, step.step_id)
                self._end(child, signal.SIGKILL)
                self._fail(name, f"it took longer than {self.step_limit_s:g} s", now)
                child.process = None

    def _fail(self, name: str, reason: str, now: float) -> None:
        for step in self.journal.catalog.views.claimed_by(name):
            self.journal.commit(self._failed(step, reason, now))

    def _failed(self, step: Step, reason: str, now: float) -> e.StepFailed:
        retry_at = now if step.attempt < self.max_attempts else None
        return e.StepFailed(at=now, step_id=step.step_id, reason=reason, retry_at=retry_at)

    def _end(self, child: _Child, how: signal.Signals = signal.SIGTERM) -> None:
        """End a performer that lives, and let go of one that does not."""
        if child.process is None:
            return
        child.process.send_signal(how)  # nothing, if it has ended
        try:
            child.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        if child.process.stdin is not None:
            child.process.stdin.close()


def quarantine_fatal(journal: Journal, max_attempts: int, now: float) -> None:
    """Before a node starts: what was under way when it died, and that often, is not tried again.

    A node that is stopped in order leaves nothing under way; and a performer that dies alone is
    seen by its supervisor. So what is left took the whole node along, or was there by bad luck.
    """
    for step in journal.catalog.views.leases_lost(float("inf")):
        if step.attempt >= max_attempts:
            attempts = "its only attempt" if max_attempts == 1 else f"{step.attempt} attempts"
            reason = f"the node itself ended during the last of {attempts}"
            journal.commit(e.StepFailed(at=now, step_id=step.step_id, reason=reason, retry_at=None))


def _name(child: _Child) -> str:
    return f"performer {child.number}"


def _how(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
