"""May the files of a Series be removed: what is settled, and whose time is up."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.domain.states import DeliveryState, SeriesState, StepState

_PROVEN = frozenset({DeliveryState.COMMITTED, DeliveryState.VERIFIED, DeliveryState.WITHDRAWN})
_ENDED = frozenset({StepState.COMPLETED, StepState.CANCELED})
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Times since the last instance of a Series; None is for ever.

    keep_s: of what is settled. unsettled_s: of what is not. promised_s: of what a peer was promised
    is kept, since the promise. routes: after whose deliveries a Series goes at once. doubted_until:
    nothing goes for its age before, for the clock may be wrong.
    """

    keep_s: float | None = None
    unsettled_s: float | None = None
    promised_s: float | None = None
    routes: frozenset[str] = frozenset()
    doubted_until: float = 0.0

    def at(self, now: float) -> Policy:
        """What holds now."""
        return self if now >= self.doubted_until else Policy(routes=self.routes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """steps: of all revisions. routes: of the steps on what the Series is now.

    deliveries: the state of each, and whether its peer offers a proof that could be had.
    note_due: a peer has a result that was replaced, and is to be told so.
    """

    state: SeriesState
    last_at: float
    promised_at: float | None = None
    steps: tuple[StepState, ...] = ()
    routes: frozenset[str] = frozenset()
    deliveries: tuple[tuple[DeliveryState, bool], ...] = ()
    note_due: bool = False


def unsettled(facts: Facts) -> str:
    """What there is still to do, or to be decided by a person; "" if nothing is."""
    if facts.state is not SeriesState.COMPLETE:
        return f"it is {facts.state}"
    for step in facts.steps:
        if step not in _ENDED:
            return f"a step is {step}"
    for state, offers_proof in facts.deliveries:
        if state not in _PROVEN and (state is not DeliveryState.SENT or offers_proof):
            return f"a delivery is {state}"
    return "a rejection note is due" if facts.note_due else ""


def under_way(facts: Facts) -> bool:
    """Whether something is being done with it right now."""
    return (
        facts.state is SeriesState.RECEIVING
        or StepState.IN_PROGRESS in facts.steps
        or any(state is DeliveryState.SENDING for state, _ in facts.deliveries)
    )


def purge(facts: Facts, policy: Policy, now: float, *, short: bool) -> str:
    """The reason why its files are to be removed now; "" to keep them.

    short: there is less room on the disk than there should be. What a peer was promised goes by its
    age alone, and what is under way never.
    """
    policy = policy.at(now)
    age_s = now - facts.last_at
    if unsettled(facts):
        if under_way(facts) or not _over(age_s, policy.unsettled_s):
            return ""
        return f"unsettled for {_days(policy.unsettled_s)}"
    if facts.promised_at is not None:
        since_s = now - max(facts.promised_at, facts.last_at)
        if not _over(since_s, policy.promised_s):
            return ""
        return f"promised, and kept for {_days(policy.promised_s)} since"
    delivered = any(state is not DeliveryState.WITHDRAWN for state, _ in facts.deliveries)
    if delivered and facts.routes and facts.routes <= policy.routes:
        return "delivered"
    if _over(age_s, policy.keep_s):
        return f"kept for {_days(policy.keep_s)}"
    return "room was needed" if short else ""


def oldest_wanted(policy: Policy, now: float, *, short: bool) -> float:
    """Series that received nothing since then may be due, whatever their routes; 0.0: none."""
    if short:
        return now
    policy = policy.at(now)
    times = [policy.keep_s, policy.unsettled_s, policy.promised_s]
    return max((now - time for time in times if time is not None), default=0.0)


def _over(seconds: float, limit_s: float | None) -> bool:
    return limit_s is not None and seconds >= limit_s


def _days(seconds: float | None) -> str:
    days = (seconds or 0.0) / _DAY_S
    return f"{days:g} day" if days == 1 else f"{days:g} days"
