"""The only place that reads the clock and makes random UIDs."""

from __future__ import annotations

import random
import time
import uuid
from typing import Protocol

# Linux counts suspended time in BOOTTIME; elsewhere MONOTONIC has to do
_UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


_LOOKS = 5


class Clock(Protocol):
    """What the stages may know of time and chance."""

    def now(self) -> float:
        """UTC seconds since the epoch."""

    def luck(self) -> float:
        """A number in [0, 1), for jitter."""

    def new_uid(self) -> str:
        """A UID that nobody has used (PS3.5 §B.2)."""


class SystemClock:
    """The real ones; steady: setting the system's clock does not move it.

    offset: from the machine's uptime to UTC, as another process of the node took it; without it,
    as it is now. So all processes of one node have one time, whatever happens to the wall clock.
    """

    def __init__(self, offset: float | None = None) -> None:
        self.offset = _offset() if offset is None else offset

    def now(self) -> float:
        """UTC seconds since the epoch."""
        return uptime_s() + self.offset

    def drift_s(self) -> float:
        """How far the system's clock was set since: positive, if forward."""
        return time.time() - self.now()

    def luck(self) -> float:
        """A number in [0, 1), for jitter."""
        return random.random()  # noqa: S311  # jitter is no secret

    def new_uid(self) -> str:
        """A UID that nobody has used (PS3.5 §B.2)."""
        return f"2.25.{uuid.uuid4().int}"


def _offset() -> float:
    """From uptime to UTC: of several looks the one that took least, for between the two readings
    the machine may have had something else to do."""
    looks = []
    for _ in range(_LOOKS):
        before, wall, after = uptime_s(), time.time(), uptime_s()
        looks.append((after - before, wall - (before + after) / 2))
    return min(looks)[1]


def uptime_s() -> float:
    """Seconds since the machine started, sleep included; the same for all processes."""
    return time.clock_gettime(_UPTIME)
