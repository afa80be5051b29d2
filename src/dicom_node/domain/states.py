"""The state machines, as tables: what is not listed here cannot happen.

The diagrams of docs/architecture.md are drawn from these tables, and the triggers of the catalog
that refuse any other transition are made from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class SeriesState(StrEnum):
    """How far a Series is known to have arrived."""

    RECEIVING = "RECEIVING"  # instances may still come; judged when due
    COMPLETE = "COMPLETE"  # judged whole: its steps are scheduled, or a reason why none
    INCOMPLETE = "INCOMPLETE"  # given up: the evidence says that something is missing
    HELD = "HELD"  # an operator stopped it: no judgment, no step, no delivery until released


class StepState(StrEnum):
    """The Procedure Step of PS3.4 §CC.1.1, and QUARANTINED for one that keeps failing."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    QUARANTINED = "QUARANTINED"


class DeliveryState(StrEnum):
    """How far a result is on its way to one peer."""

    QUEUED = "QUEUED"
    SENDING = "SENDING"
    SENT = "SENT"  # the peer answered success
    COMMITTED = "COMMITTED"  # the peer took responsibility (PS3.4 Annex J)
    VERIFIED = "VERIFIED"  # the peer lists it when queried
    UNCONFIRMED = "UNCONFIRMED"  # sent; no proof could be had
    DEFERRED = "DEFERRED"  # a transient failure: tried again when due
    PARKED = "PARKED"  # a permanent refusal: a person decides
    DEAD = "DEAD"  # given up after the last attempt
    WITHDRAWN = "WITHDRAWN"  # superseded before it was sent, in another kind, or its file is gone


_S, _P, _D = SeriesState, StepState, DeliveryState

SERIES_TRANSITIONS: Mapping[SeriesState, frozenset[SeriesState]] = {
    _S.RECEIVING: frozenset({_S.COMPLETE, _S.INCOMPLETE, _S.HELD}),
    _S.COMPLETE: frozenset({_S.RECEIVING, _S.HELD}),
    _S.INCOMPLETE: frozenset({_S.RECEIVING, _S.HELD}),
    _S.HELD: frozenset({_S.RECEIVING, _S.COMPLETE, _S.INCOMPLETE}),
}

STEP_TRANSITIONS: Mapping[StepState, frozenset[StepState]] = {
    _P.SCHEDULED: frozenset({_P.IN_PROGRESS, _P.CANCELED}),
    # back to SCHEDULED is the lost lease or the failed attempt: the next attempt of the same step
    _P.IN_PROGRESS: frozenset({_P.COMPLETED, _P.CANCELED, _P.SCHEDULED, _P.QUARANTINED}),
    _P.COMPLETED: frozenset(),
    _P.CANCELED: frozenset({_P.SCHEDULED}),
    _P.QUARANTINED: frozenset({_P.SCHEDULED}),
}

DELIVERY_TRANSITIONS: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    _D.QUEUED: frozenset({_D.SENDING, _D.DEAD, _D.WITHDRAWN}),
    # back to DEFERRED without an answer is the sender that died: the object is sent again
    _D.SENDING: frozenset({_D.SENT, _D.DEFERRED, _D.PARKED, _D.DEAD}),
    # back to DEFERRED is the peer that says, when asked, that it does not have the object;
    # back to QUEUED is the operator who knows that it was lost there
    _D.SENT: frozenset(
        {_D.COMMITTED, _D.VERIFIED, _D.UNCONFIRMED, _D.DEFERRED, _D.PARKED, _D.QUEUED}
    ),
    _D.COMMITTED: frozenset({_D.QUEUED}),
    _D.VERIFIED: frozenset({_D.COMMITTED, _D.DEFERRED, _D.PARKED, _D.QUEUED}),
    _D.UNCONFIRMED: frozenset({_D.COMMITTED, _D.VERIFIED, _D.DEFERRED, _D.PARKED, _D.QUEUED}),
    # to COMMITTED is the report that comes late: the peer has it after all
    _D.DEFERRED: frozenset({_D.SENDING, _D.QUEUED, _D.COMMITTED, _D.DEAD, _D.WITHDRAWN}),
    _D.PARKED: frozenset({_D.QUEUED, _D.COMMITTED, _D.DEAD, _D.WITHDRAWN}),
    _D.DEAD: frozenset({_D.QUEUED, _D.COMMITTED, _D.WITHDRAWN}),
    # where no newer one took its place: its file is there again, or a person asks for it
    _D.WITHDRAWN: frozenset({_D.QUEUED}),
}
