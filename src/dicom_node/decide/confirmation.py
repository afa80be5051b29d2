"""What follows from a peer's word on what it was sent: proof, another question, or sending again.

0x0000 to a C-STORE says that the peer received an object, not that it keeps it. Where a peer offers
Storage Commitment (PS3.4 Annex J) or queries, it is asked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.decide import retry
from dicom_node.domain.records import Delivery
from dicom_node.domain.states import DeliveryState


class Ask(StrEnum):
    """How a peer can be asked; the values are those of a peer's `offers`."""

    COMMIT = "commit"
    QUERY = "query"


class Reply(StrEnum):
    """What came of a request for commitment."""

    ACCEPTED = "accepted"  # a report is promised
    REFUSED = "refused"  # the peer was there and will not
    UNHEARD = "unheard"  # the peer was not there, or busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """ask_after_s: from sending to the first question. listed_within_s: for so long a peer may not
    list yet what it was sent. report_within_s: for so long a report is waited for. resend_max: how
    often is sent again what a peer says it lacks. back_off: between questions that get no answer.
    """

    back_off: retry.Policy
    ask_after_s: float = 5.0
    listed_within_s: float = 120.0
    report_within_s: float = 3600.0
    resend_max: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """state: SENT is that the proof is still awaited: asked for by `ask` at due_at."""

    state: DeliveryState
    due_at: float
    reason: str = ""
    ask: str = ""
    tries: int = 0


DUPLICATE_TRANSACTION = 0x0131  # PS3.3 §C.14.1.1
NO_SUCH_OBJECT = 0x0112
_LACKING = frozenset(
    {NO_SUCH_OBJECT, 0x0110, 0x0213}
)  # and processing failure, resource limitation
_PROVEN_BY_REPORT = frozenset(
    {
        DeliveryState.SENT,
        DeliveryState.VERIFIED,
        DeliveryState.UNCONFIRMED,
        DeliveryState.DEFERRED,
        DeliveryState.PARKED,
        DeliveryState.DEAD,
    }
)
_REFUTABLE = frozenset({DeliveryState.SENT, DeliveryState.UNCONFIRMED})


def ways(offers: Collection[str]) -> tuple[Ask, ...]:
    """How a peer with these offers can be asked, the better one first; () if not at all."""
    return tuple(ask for ask in Ask if ask in offers)


def ask_of(delivery: Delivery, offers: Collection[str]) -> Ask | None:
    """How the peer is asked now: as was decided before, if that is still offered."""
    offered = ways(offers)
    if delivery.ask in offered:
        return Ask(delivery.ask)
    return offered[0] if offered else None


def given_up(delivery: Delivery, policy: Policy, now: float) -> Next | None:
    """The end of a delivery whose peer was asked in vain for too long; None to ask (again)."""
    in_vain = delivery.ask == Ask.COMMIT or (delivery.ask == Ask.QUERY and delivery.tries > 0)
    if not in_vain or _sent_at(delivery) > policy.back_off.gives_up_before(now):
        return None
    return _unconfirmed(delivery.reason, policy, now)


def after_request(
    delivery: Delivery,
    reply: Reply,
    offers: Collection[str],
    policy: Policy,
    now: float,
    luck: float,
    detail: str = "",
) -> Next:
    """What follows a request for commitment. luck in [0, 1)."""
    instead = Ask.QUERY if Ask.QUERY in offers else Ask.COMMIT
    if reply is Reply.ACCEPTED:
        return Next(
            state=DeliveryState.SENT,
            due_at=now + policy.report_within_s,
            reason="asked to keep it: a report is awaited",
            ask=instead,
        )
    if reply is Reply.REFUSED and instead is Ask.QUERY:
        return Next(state=DeliveryState.SENT, due_at=now, reason=detail, ask=instead)
    return _again(delivery, Ask.COMMIT, detail, policy, now, luck)


def after_listing(
    delivery: Delivery,
    listed: bool | None,
    policy: Policy,
    now: float,
    luck: float,
    detail: str = "",
) -> Next:
    """What follows a query; listed is None if it could not be asked. luck in [0, 1)."""
    if listed:
        return Next(state=DeliveryState.VERIFIED, due_at=now)
    if listed is None:
        return _again(delivery, Ask.QUERY, detail, policy, now, luck)
    if now - _sent_at(delivery) < policy.listed_within_s:
        return _again(delivery, Ask.QUERY, "not listed yet", policy, now, luck)
    return _returned(delivery, "it does not list what it was sent", policy, now, luck)


def after_report(
    delivery: Delivery,
    transaction_uid: str,
    failure: int | None,
    policy: Policy,
    now: float,
    luck: float,
    words: str = "",
) -> Next | None:
    """What follows a report; failure is None for what is committed. None: nothing follows.

    Any report proves; only that on the last request refutes, for others are of what was before.
    """
    if failure is None:
        proven = delivery.state in _PROVEN_BY_REPORT
        return Next(state=DeliveryState.COMMITTED, due_at=now) if proven else None
    listed = delivery.state is DeliveryState.VERIFIED
    if transaction_uid != delivery.transaction_uid or not (
        delivery.state in _REFUTABLE or (listed and failure == NO_SUCH_OBJECT)
    ):
        return None
    said = f"it does not keep it: 0x{failure:04X}{f' ({words})' if words else ''}"
    if failure == DUPLICATE_TRANSACTION:
        if delivery.state is not DeliveryState.SENT:
            return None
        return _again(delivery, Ask.COMMIT, said, policy, now, luck)
    if failure in _LACKING:
        return _returned(delivery, said, policy, now, luck)
    return Next(state=DeliveryState.PARKED, due_at=now, reason=said)


def _again(
    delivery: Delivery, ask: Ask, reason: str, policy: Policy, now: float, luck: float
) -> Next:
    """Another question, later and later; without an answer for too long there is no proof."""
    if _sent_at(delivery) <= policy.back_off.gives_up_before(now):
        return _unconfirmed(reason, policy, now)
    tries = delivery.tries + 1
    return Next(
        state=DeliveryState.SENT,
        due_at=now + retry.wait_s(tries, policy.back_off, luck),
        reason=reason,
        ask=ask,
        tries=tries,
    )


def _unconfirmed(reason: str, policy: Policy, now: float) -> Next:
    days = policy.back_off.give_up_s / 86400
    return Next(
        state=DeliveryState.UNCONFIRMED,
        due_at=now,
        reason=f"no proof within {days:.1f} days: {reason}",
    )


def _returned(delivery: Delivery, reason: str, policy: Policy, now: float, luck: float) -> Next:
    """The peer lacks it: sent again, but not for ever."""
    times = delivery.returns + 1
    if times > policy.resend_max:
        return Next(
            state=DeliveryState.PARKED, due_at=now, reason=f"sent {times} times in vain: {reason}"
        )
    return Next(
        state=DeliveryState.DEFERRED,
        due_at=now + retry.wait_s(times, policy.back_off, luck),
        reason=reason,
    )


def _sent_at(delivery: Delivery) -> float:
    return delivery.created_at if delivery.sent_at is None else delivery.sent_at
