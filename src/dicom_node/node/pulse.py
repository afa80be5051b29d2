"""Signs of life of the performers: what the supervisor, `status` and `doctor` go by.

The time of a file, set by the performer: it needs no room on the disk, and whoever may read the
data folder can look. It is the machine's uptime, which nobody sets.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from dicom_node.node import bell as bells
from dicom_node.node.clock import uptime_s

SILENT_S = 90.0
"""A performer looks up every 30 s when it has nothing to do, and every 20 s while it works."""
_STEM = "performer-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """That of one performer of the node with this data folder."""

    data_dir: Path
    number: int = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.data_dir / f"{_STEM}{self.number}.pulse"

    def beat(self) -> None:
        """Give a sign of life; never fails."""
        now = uptime_s()
        with contextlib.suppress(OSError):
            try:
                os.utime(self.path, (now, now))
            except FileNotFoundError:
                self.path.touch(mode=0o600)
                os.utime(self.path, (now, now))

    def silence_s(self) -> float:
        """Seconds since the last sign of life; infinity if there was none since the machine's
        start."""
        try:
            silence = uptime_s() - self.path.stat().st_mtime
        except OSError:
            return float("inf")
        return silence if silence >= 0 else float("inf")


def started(data_dir: Path) -> list[int]:
    """The numbers of the performers that the node has started: on each device one or several."""
    stems = (path.stem.removeprefix(_STEM) for path in data_dir.glob(f"{_STEM}*.pulse"))
    return sorted(int(number) for number in stems if number.isdecimal())


def forget(data_dir: Path, count: int) -> None:
    """There are but `count` performers from now on; never fails."""
    for number in [number for number in started(data_dir) if number >= count]:
        with contextlib.suppress(OSError):
            Pulse(data_dir=data_dir, number=number).path.unlink(missing_ok=True)


def living(data_dir: Path) -> int:
    """How many performers are there, and not frozen."""
    bell = bells.Bell(data_dir)
    heard = [n for n in started(data_dir) if bell.is_heard(bells.PERFORM, n)]
    bell.close()
    return sum(Pulse(data_dir=data_dir, number=n).silence_s() < SILENT_S for n in heard)
