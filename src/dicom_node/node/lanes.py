"""One thread for each peer that something is done with: a slow one keeps nobody waiting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dicom_node.node.stage import AFTER_ERROR_S, attempt

_log = logging.getLogger("dicom_node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """what: for the names of the threads, and the log. wake: called whenever a lane is free.

    A lane whose work has failed is free a little later.
    """

    what: str
    wake: Callable[[], None]
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)

    def busy(self) -> frozenset[str]:
        """The names that something is done for."""
        with self._lock:
            return frozenset(self._threads)

    def start(self, name: str, work: Callable[[], None]) -> bool:
        """Do the work in a thread, unless something is done for this name, or no thread is to be
        had."""
        thread = threading.Thread(
            target=self._run, args=(name, work), name=f"{self.what} {name}", daemon=True
        )
        with self._lock:
            if name in self._threads:
                return False
            self._threads[name] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads: later
            self._free(name)
            _log.error("cannot start a thread to %s %s", self.what, name)
            return False
        return True

    def ending(self) -> bool:
        """Whether the node waits for what is under way to finish."""
        return self._ending.is_set()

    def finish(self, seconds: float) -> None:
        """Wait for what is under way."""
        self._ending.set()
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(seconds)

    def _run(self, name: str, work: Callable[[], None]) -> None:
        def done() -> bool:
            work()
            return True

        if not attempt(f"{self.what} {name}", done, otherwise=False):
            self._ending.wait(AFTER_ERROR_S)  # what failed is due at once: not in a busy loop
        self._free(name)  # before the bell: who wakes must find the lane free
        self.wake()

    def _free(self, name: str) -> None:
        with self._lock:
            self._threads.pop(name, None)
