"""The only place that reads the clock and makes random UIDs."""

from __future__ import annotations

import random
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """What the stages may know of time and chance."""

    def now(self) -> float:
        """UTC seconds since the epoch."""

    def luck(self) -> float:
        """A number in [0, 1), for jitter."""

    def new_uid(self) -> str:
        """A UID that nobody has used (PS3.5 §B.2)."""


class SystemClock:
    """The real ones."""

    def now(self) -> float:
        """UTC seconds since the epoch."""
        return time.time()

    def luck(self) -> float:
        """A number in [0, 1), for jitter."""
        return random.random()  # noqa: S311  # jitter is no secret

    def new_uid(self) -> str:
        """A UID that nobody has used (PS3.5 §B.2)."""
        return f"2.25.{uuid.uuid4().int}"
