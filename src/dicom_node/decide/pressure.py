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
_ROOM_BYTES = 64 * _MIB


def judge(
    limits: Limits,
    free_bytes: int,
    backlog: int,
    *,
    reserve_used: bool = False,
    before: Level = Level.OPEN,
) -> Pressure:
    """reserve_used: what was kept aside for the catalog is being used up.

    before: the level so far; it gets better only some way beyond its limit, so that a disk that is
    filled to the limit and emptied below it does not change it with every object.
    """
    free = f"{free_bytes // _MIB} MiB are free on the disk"
    stop_bytes = _beyond(limits.stop_free_bytes, before is Level.CLOSED)
    if free_bytes < stop_bytes:
        need = stop_bytes // _MIB
        return Pressure(level=Level.CLOSED, reason=f"{free}, and associations need {need} MiB")
    if reserve_used:
        return Pressure(level=Level.CLOSED, reason=f"the disk was full: {free}")
    if limits.max_backlog and backlog >= limits.max_backlog:
        reason = f"{backlog} steps wait, and at most {limits.max_backlog} may"
        return Pressure(level=Level.CLOSED, reason=reason)
    if free_bytes < _beyond(limits.min_free_bytes, before is Level.REFUSING):
        need = limits.min_free_bytes // _MIB
        return Pressure(level=Level.REFUSING, reason=f"{free}: below {need} objects are refused")
    return Pressure(level=Level.OPEN)


def _beyond(limit_bytes: int, below: bool) -> int:
    """The limit; for what is below it, how much there must be to be above it again."""
    return limit_bytes + min(_ROOM_BYTES, limit_bytes // 10) if below else limit_bytes
