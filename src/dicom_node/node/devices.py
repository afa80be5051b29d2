"""Which performers there are: one or several on each device, and what falls to each of them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # without one of them nobody need ask torch
_ASK = "import torch; print(torch.cuda.device_count())"
_ASK_S = 120.0
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
LEFT_S = 0.25
"""So long a step is left to the performer that may have worked ahead on its Series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What falls to performer `number` of those that `devices` names, one name for each."""

    number: int
    devices: tuple[str, ...]

    @property
    def device(self) -> str:
        """Its own."""
        return self.devices[self.number % len(self.devices)]

    def threads(self, asked: int, cores: int) -> int:
        """Of the CPU: what is asked for, else its share of the cores."""
        return asked or max(1, cores // len(self.devices))

    def is_mine(self, series_uid: str) -> bool:
        """Whether it is this performer that works ahead on a Series; it is always one of them."""
        return zlib.crc32(series_uid.encode()) % len(self.devices) == self.number

    def leaves_s(self, series_uid: str) -> float:
        """Seconds for which a step on the Series is left to another performer."""
        return 0.0 if self.is_mine(series_uid) else LEFT_S


def alone(device: str) -> Place:
    """The only performer there is, such as a command that runs models itself."""
    return Place(number=0, devices=(device,))


def places(device: str, each: int) -> tuple[str, ...]:
    """The device of every performer: `each` of them on each device that `device` stands for.

    device: as in the configuration. "auto" with one GPU, or none, is left to the performer.
    """
    found: Sequence[str] = (device,)
    if device in ("auto", "cuda"):
        count = _cuda_devices()
        if count > 1 or (count and device == "cuda"):
            found = [f"cuda:{index}" for index in range(count)]
    return tuple(found) * each


def _cuda_devices() -> int:
    """As torch counts them, in a process of its own: the node itself does without torch."""
    if not any(path.exists() for path in _DRIVERS):
        return 0
    try:
        said = subprocess.run(
            [sys.executable, "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=True,
        )
        return int(said.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def cores(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Cores that this process may use: as it is pinned, and as its control groups allow."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(pinned or 1, _quota(cgroups, membership)))


def _quota(cgroups: Path, membership: Path) -> int:
    """The smallest CPU limit of the process's control group and those above it, rounded up."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = cgroups / own.strip("/")
    limits = [_limit(at) for at in (folder, *folder.parents) if at.is_relative_to(cgroups)]
    return math.ceil(min(limits))


def _limit(folder: Path) -> float:
    """Cores that one control group (version 2) allows."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError):  # no such file; "max"
        return 1e9
