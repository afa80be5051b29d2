"""How full the node is: looked at by those who let somebody in, told where it changes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.decide import pressure
from dicom_node.decide.pressure import Level, Limits, Pressure
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError, SpoolError
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal

RESERVE_BYTES = 64 * 1024 * 1024
_LOOK_S = 1.0


@dataclass(slots=True, kw_only=True)
class Reserve:
    """A file that is removed when the disk is full, so that the catalog has room to record what is
    removed for good; made again when there is room."""

    path: Path
    size: int = RESERVE_BYTES
    used: bool = False

    @property
    def held(self) -> bool:
        """Whether it is there."""
        return self.path.exists()

    def keep(self, free_bytes: int) -> None:
        """Make it where there is plenty of room, remove it where there is next to none.

        Raises SpoolError.
        """
        self.relieve(free_bytes)
        if not self.held and free_bytes >= 4 * self.size:
            self._make()
            self.used = False

    def relieve(self, free_bytes: int) -> None:
        """Remove it where there is next to no room; raises SpoolError."""
        if self.held and free_bytes < self.size // 4:
            self.give()

    def give(self) -> None:
        """Free its room; raises SpoolError."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise SpoolError(f"cannot remove {self.path}: {error.strerror}") from error
        self.used = True

    def _make(self) -> None:
        draft = self.path.with_name(f"{self.path.name}.part")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.size)
            finally:
                os.close(descriptor)
            draft.rename(self.path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise SpoolError(f"cannot make {self.path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """The pressure, as it was at most a second ago; a change of its level is recorded.

    free_bytes: raises SpoolError.
    """

    limits: Limits
    free_bytes: Callable[[], int]
    reserve: Reserve
    journal: Journal
    clock: Clock
    _last: list[tuple[float, Pressure]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> Pressure:
        """The pressure now. A disk that cannot be asked is no reason to turn anybody away."""
        now = self.clock.now()
        with self._lock:
            if self._last and 0 <= now - self._last[0][0] < _LOOK_S:
                return self._last[0][1]
            before = self._last[0][1] if self._last else Pressure(level=Level.OPEN)
            found = before
            with contextlib.suppress(SpoolError, CatalogError):
                found = self._judged(before.level)
            self._last[:] = [(now, found)]
        if found.level is not before.level:
            with contextlib.suppress(CatalogError):  # on a full disk
                self.journal.commit(
                    k.PressureChanged(at=now, level=found.level, reason=found.reason)
                )
        return found

    def closed(self) -> bool:
        """Whether nobody is let in who wants to store."""
        return self.look().level is Level.CLOSED

    def _judged(self, before: Level) -> Pressure:
        backlog = self.journal.catalog.keeping.waiting_steps() if self.limits.max_backlog else 0
        return pressure.judge(
            self.limits,
            self.free_bytes(),
            backlog,
            reserve_used=self.reserve.used,
            before=before,
        )
