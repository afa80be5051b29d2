"""How much a peer may send at a time: objects a minute, and bytes in flight. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """None is no limit. per_minute: objects, after a rest as many at once. in_flight_bytes: of
    objects that have begun to come and are not stored yet, over all associations of the peer."""

    per_minute: int | None = None
    in_flight_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of the objects a minute. left: at that time; None: nothing was sent yet."""

    left: float | None = None
    at: float = 0.0


def one_more(allowance: Allowance, quota: Quota, now: float) -> tuple[Allowance, bool]:
    """An object begins: what is left then, and whether it may. now: seconds, of any clock.

    One that may not costs nothing. A clock that was set back gives nothing, and takes nothing.
    """
    if quota.per_minute is None:
        return allowance, True
    left = float(quota.per_minute)
    if allowance.left is not None:
        gained = max(0.0, now - allowance.at) * quota.per_minute / _MINUTE_S
        left = min(left, allowance.left + gained)
    may = left >= 1.0
    return Allowance(left=left - 1.0 if may else left, at=now), may


def is_crowded(quota: Quota, objects: int, in_flight_bytes: int) -> bool:
    """Whether so many objects of so many bytes in all are too much at a time.

    One that comes alone never is: how large it may be is another limit.
    """
    limit = quota.in_flight_bytes
    return limit is not None and objects > 1 and in_flight_bytes > limit
