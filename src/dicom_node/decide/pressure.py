"""How much may come in: by the room on the disk, and by the work that waits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """What the node takes."""

    OPEN = "open"
    REFUSING = "refusing"  # associations, but no objects: C-STORE is answered A700
    CLOSED = "closed"  # associations that propose storage are rejected for now


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """min_free_bytes: below it objects are refused. stop_free_bytes: below it associations are.

    max_backlog: so many steps may wait for a performer; 0 is any number.
    """

    min_free_bytes: int
    stop_free_bytes: int
    max_backlog: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """The level, and why it is not open."""

    level: Level
    reason: str = ""


_MIB = 1024 * 1024


def judge(limits: Limits, free_bytes: int, backlog: int, *, reserve_used: bool = False) -> Pressure:
    """reserve_used: what was kept aside for the catalog is being used up."""
    free = f"{free_bytes // _MIB} MiB are free on the disk"
    if free_bytes < limits.stop_free_bytes:
        need = limits.stop_free_bytes // _MIB
        return Pressure(level=Level.CLOSED, reason=f"{free}, and associations need {need} MiB")
    if reserve_used:
        return Pressure(level=Level.CLOSED, reason=f"the disk was full: {free}")
    if limits.max_backlog and backlog >= limits.max_backlog:
        reason = f"{backlog} steps wait, and at most {limits.max_backlog} may"
        return Pressure(level=Level.CLOSED, reason=reason)
    if free_bytes < limits.min_free_bytes:
        need = limits.min_free_bytes // _MIB
        return Pressure(level=Level.REFUSING, reason=f"{free}, and objects need {need} MiB")
    return Pressure(level=Level.OPEN)
