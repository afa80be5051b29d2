"""One long computation at a time, beside threads that answer."""

from __future__ import annotations

import sys
import threading

_TURN_S = 0.0005


class Heavy:
    """A lock for what computes for long, in Python alone.

    Whoever waits for the interpreter gets it after a turn, five milliseconds as a rule; and an
    answer takes some ten such waits. While the lock is held a turn is a tenth of that.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usual_s = sys.getswitchinterval()

    def __enter__(self) -> None:
        self._lock.acquire()
        sys.setswitchinterval(_TURN_S)

    def __exit__(self, *_: object) -> None:
        sys.setswitchinterval(self._usual_s)
        self._lock.release()
