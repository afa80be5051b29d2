"""Keeps the performer processes alive: what dies is recorded, and started again."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dicom_node.domain import events as e
from dicom_node.domain.records import Step
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.pulse import SILENT_S, Pulse, forget

_log = logging.getLogger("dicom_node")
_LOOK_S = 0.5
_AGAIN_S = 5.0  # not faster: a performer that dies at once would burn a core
_GRACE_S = 10.0
_UNHEARD = "its performer was not heard of"


COLD = "cold"
"""The word by which a performer is told to load no model before a step asks for it."""


@dataclass(slots=True)
class _Child:
    number: int
    pulse: Pulse
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    cold: bool = False
    killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """Starts `count` performers with `command` + their number, and looks after them.

    A step whose performer died, or that takes longer than step_limit_s, has failed once more. A
    performer that is not heard of is ended; after one that ended before it claimed anything the
    next ones load no model in advance: what it died of is then charged to a step.
    """

    command: Sequence[str]
    arguments: Sequence[str]
    count: int
    data_dir: Path
    step_limit_s: float
    max_attempts: int
    journal: Journal
    clock: Clock
    log_to: IO[str] | None = None
    children: list[_Child] = field(default_factory=list)

    def run_due(self, now: float) -> float:
        """Look after every performer. Returns when to look again."""
        if not self.children:
            forget(self.data_dir, self.count)  # there may have been more devices before
            self.children.extend(
                _Child(number, Pulse(data_dir=self.data_dir, number=number))
                for number in range(self.count)
            )
        for child in self.children:
            self._look_after(child, now)
        for step in self.journal.catalog.views.leases_lost(now):  # of nobody that is known
            self.journal.commit(self._failed(step, _UNHEARD, now))
        return now + _LOOK_S

    def end(self) -> None:
        """End the performers, in order if they let it; what they had to leave does not count."""
        now = self.clock.now()
        for child in self.children:
            if child.process is not None:
                child.process.terminate()  # all at once: then each is waited for
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
                if not child.killed:
                    self._limit(child, now)
                return
            self._end(child)
            child.process = None
            child.cold = child.cold or not self._has_claimed(child)
            _log.error("%s ended: %s", name, how_ended(code))
            self._fail(name, f"its process ended: {how_ended(code)}", now)
        if now - child.started_at >= _AGAIN_S:
            child.pulse.beat()
            mode = [COLD] if child.cold else []
            child.process = subprocess.Popen(
                [sys.executable, *self.command, str(child.number), *mode, *self.arguments],
                stdin=subprocess.PIPE,
                stderr=self.log_to,
            )
            child.started_at, child.killed = now, False

    def _has_claimed(self, child: _Child) -> bool:
        return self.journal.catalog.views.claimed_since(child.started_at, _name(child))

    def _limit(self, child: _Child, now: float) -> None:
        """End a performer that is frozen, or takes too long."""
        views = self.journal.catalog.views
        steps = views.claimed_by(_name(child))
        lost = {step.step_id for step in views.leases_lost(now)}
        too_long = f"it took longer than {self.step_limit_s:g} s"
        silent = SILENT_S < child.pulse.silence_s() < float("inf")  # that is: no file to look at
        if any(step.step_id in lost for step in steps) or silent:
            self._kill(child, _UNHEARD, now)
        elif any(now - (step.claimed_at or now) > self.step_limit_s for step in steps):
            self._kill(child, too_long, now)

    def _kill(self, child: _Child, reason: str, now: float) -> None:
        """What it has claimed failed; the next look finds its end."""
        _log.error("%s is ended: %s", _name(child), reason)
        if child.process is not None:
            child.process.kill()
            child.killed = True
        self._fail(_name(child), reason, now)

    def _fail(self, name: str, reason: str, now: float) -> None:
        for step in self.journal.catalog.views.claimed_by(name):
            self.journal.commit(self._failed(step, reason, now))

    def _failed(self, step: Step, reason: str, now: float) -> e.StepFailed:
        retry_at = now if step.attempt < self.max_attempts else None
        return e.StepFailed(at=now, step_id=step.step_id, reason=reason, retry_at=retry_at)

    def _end(self, child: _Child) -> None:
        """End a performer that lives, and let go of one that does not."""
        if child.process is None:
            return
        for end in (child.process.terminate, child.process.kill):  # nothing, if it has ended
            end()
            try:
                child.process.wait(_GRACE_S)
                break
            except subprocess.TimeoutExpired:
                _log.error("%s does not end", _name(child))
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


def how_ended(code: int) -> str:
    """A process, in words. code: as of subprocess."""
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
