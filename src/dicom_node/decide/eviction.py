"""Which connection gives way when too many have not asked for an association yet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """per_address: connections of one address that wait. total: of all. grace_s: for so long from
    its coming a connection gives way to none of its own address: it may be about to ask."""

    per_address: int = 8
    total: int = 64
    grace_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A connection without an association: whence, and since when.

    leaving: it has been told its last, and waits for the peer to close.
    """

    address: str
    since: float
    leaving: bool = False


def gives_way(waiting: Sequence[Waiting], address: str, now: float, crowd: Crowd) -> int | None:
    """Which of those waiting is closed as one more comes from an address; None: none.

    waiting: in the order of their coming. The oldest of the same address goes, if that has too
    many; if there are too many in all, the oldest of the address that has the most: who is slow
    and honest stays, however many connections somebody else opens. Who is leaving goes before who
    may yet ask.
    """
    own = [number for number, one in enumerate(waiting) if one.address == address]
    ripe = [number for number in own if now - waiting[number].since >= crowd.grace_s]
    if len(own) >= crowd.per_address and ripe:
        return _first(waiting, ripe)
    if len(waiting) < crowd.total:
        return None
    count = Counter(one.address for one in waiting)
    count[address] += 1
    most = max(count[one.address] for one in waiting)
    return _first(waiting, [n for n, one in enumerate(waiting) if count[one.address] == most])


def _first(waiting: Sequence[Waiting], numbers: Sequence[int]) -> int:
    return min(numbers, key=lambda number: (not waiting[number].leaving, number))
