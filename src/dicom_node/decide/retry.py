"""What to do after an attempt: again, later, or never."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.domain.states import DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Exponential back-off: first_s, times factor an attempt, at most max_s, until give_up_s.

    jitter: up to this share of the wait is added, so that many deliveries do not return at once.
    doubted_until: nothing is given up before, for the clock may be wrong.
    """

    first_s: float = 5.0
    factor: float = 2.0
    max_s: float = 3600.0
    give_up_s: float = 3 * 86400.0
    jitter: float = 0.25
    doubted_until: float = 0.0

    def gives_up_before(self, now: float) -> float:
        """What began then, or earlier, is given up; before all times, where nothing is."""
        return now - self.give_up_s if now >= self.doubted_until else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How one attempt to store one instance ended.

    status: of the C-STORE response, None if there was none. permanent: an association rejection of
    the permanent kind, or no presentation context for the object. detail: what happened, in words.
    """

    status: int | None
    permanent: bool = False
    detail: str = ""


class Fate(StrEnum):
    """What an attempt means."""

    DONE = "done"
    AGAIN = "again"
    PERSON = "person"


_AGAIN = frozenset({0x0110, 0x0213})  # processing failure, resource limitation (PS3.7 §C.5)
_DONE = frozenset({0x0000, 0x0111})  # success; duplicate: the peer has it (PS3.7 §C.5.5)


def fate_of(attempt: Attempt) -> Fate:
    """Sort an attempt by its status (PS3.4 §B.2.3, PS3.7 Annex C)."""
    status = attempt.status
    if status is None:
        return Fate.PERSON if attempt.permanent else Fate.AGAIN
    if status in _DONE or 0xB000 <= status <= 0xBFFF:
        return Fate.DONE
    if status in _AGAIN or 0xA700 <= status <= 0xA7FF:
        return Fate.AGAIN
    return Fate.PERSON


_OF_ITS_KIND = (  # SOP Class not supported; data set mismatch; cannot understand (PS3.4 §B.2.3)
    (0x0122, 0x0122),
    (0xA900, 0xA9FF),
    (0xC000, 0xCFFF),
)


def kind_refused(status: int) -> bool:
    """Whether a status says that the peer will not have this kind of object, whoever sends it."""
    return any(low <= status <= high for low, high in _OF_ITS_KIND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """The delivery's next state; due_at is when it is looked at again."""

    state: DeliveryState
    due_at: float
    reason: str


def after(
    attempt: Attempt, number: int, first_at: float, policy: Policy, now: float, luck: float
) -> Next:
    """What follows attempt `number` (from 1) of a delivery owed since first_at; luck in [0, 1)."""
    fate = fate_of(attempt)
    detail = attempt.detail or (f"status 0x{attempt.status:04X}" if attempt.status else "")
    if fate is Fate.DONE:
        return Next(state=DeliveryState.SENT, due_at=now, reason=detail)
    if fate is Fate.PERSON:
        return Next(state=DeliveryState.PARKED, due_at=now, reason=detail)
    if first_at <= policy.gives_up_before(now):
        days = policy.give_up_s / 86400
        return Next(
            state=DeliveryState.DEAD, due_at=now, reason=f"given up after {days:.1f} days: {detail}"
        )
    return Next(
        state=DeliveryState.DEFERRED, due_at=now + wait_s(number, policy, luck), reason=detail
    )


def wait_s(number: int, policy: Policy, luck: float) -> float:
    """Seconds to wait after failed attempt `number` (from 1); luck in [0, 1)."""
    exponent = min(number - 1, 64)  # beyond that, any factor > 1 has met the maximum
    wait = min(policy.max_s, policy.first_s * policy.factor**exponent)
    return wait * (1 + policy.jitter * luck)


class Trouble(StrEnum):
    """What a step failed of: its tool, a place that time or a person mends, or lack of room."""

    TOOL = "tool"  # it ran, and failed: soon a person has to look
    PLACE = "place"  # a file or a model is not to be had now: a share is away, weights are copied
    ROOM = "room"  # the disk is full: it waits as long as it takes


_STEP = {
    Trouble.TOOL: Policy(first_s=2.0, factor=4.0, max_s=300.0),
    Trouble.PLACE: Policy(first_s=2.0, factor=4.0, max_s=600.0),
    Trouble.ROOM: Policy(first_s=2.0, factor=4.0, max_s=300.0),
}
_PATIENCE = 10  # attempts: with their waits about an hour


def step_wait_s(attempt: int, max_attempts: int, trouble: Trouble, luck: float) -> float | None:
    """Seconds until a step is tried again after failed attempt `attempt` (from 1); None: never.

    max_attempts is what the configuration grants a tool that fails; luck in [0, 1).
    """
    most = max(max_attempts, _PATIENCE) if trouble is Trouble.PLACE else max_attempts
    if attempt >= most and trouble is not Trouble.ROOM:
        return None
    return wait_s(attempt, _STEP[trouble], luck)
