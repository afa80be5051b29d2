"""Can the clock be believed, of a node that starts much later than anything it has recorded.

A clock that is years ahead makes everything old at once: what is removed or given up for its age
would be, and cannot be had back. So that waits, until the node has run for a day; a person sees it
meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAP_S = 30 * 86400.0
"""A node may well have been off for so long."""

TRIAL_S = 86400.0
"""So long it runs before a time beyond that is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start of the node. at: by its clock. believed_at: the newest time that is beyond doubt.

    doubt_s: for so long from then on, of uptime, nothing goes by age; 0 is no doubt.
    """

    at: float
    believed_at: float
    doubt_s: float = 0.0

    @property
    def doubted_until(self) -> float:
        """By the clock of this start."""
        return self.at + self.doubt_s


def start(now: float, newest_at: float | None, before: Start | None) -> Start:
    """Judge the clock at a start. newest_at: of the last event; before: the last start.

    A doubt outlives a restart, less the time that the node has run with it.
    """
    if newest_at is None:
        return Start(at=now, believed_at=now)
    left_s = before.doubt_s - max(0.0, newest_at - before.at) if before is not None else 0.0
    believed_at = before.believed_at if before is not None and left_s > 0 else newest_at
    if now - believed_at <= LEAP_S:
        return Start(at=now, believed_at=max(now, believed_at))
    goes_on = left_s > 0 and abs(now - newest_at) <= LEAP_S
    return Start(at=now, believed_at=believed_at, doubt_s=left_s if goes_on else TRIAL_S)
