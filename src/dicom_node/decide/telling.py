"""What is told of things that repeat: the first of them one by one, then a count. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """first: so many are told one by one. then: of the rest as soon as so many have gathered; None:
    not before again_s. again_s: after so long it begins anew."""

    first: int = 1
    then: int | None = None
    again_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """began_at: when the first of the present ones was told. told: how often something was told
    since. kept: how many happened that were not told yet."""

    began_at: float = -math.inf
    told: int = 0
    kept: int = 0


def happened(count: Count, now: float, pace: Pace) -> tuple[Count, int]:
    """Once more: the new count, and of how many to tell now, this one included; 0: keep quiet."""
    kept = count.kept + 1
    if abs(now - count.began_at) >= pace.again_s:  # a clock set back begins anew, too
        return Count(began_at=now, told=1), kept
    if count.told < pace.first or (pace.then is not None and kept >= pace.then):
        return Count(began_at=count.began_at, told=count.told + 1), kept
    return Count(began_at=count.began_at, told=count.told, kept=kept), 0
