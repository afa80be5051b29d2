"""What happened, as values: the catalog appends them and folds them into its tables.

Each event says when (`at`, UTC seconds) and about what (`subject`, a UID or a name: what `why`
searches for). Nothing changes in the catalog but by an event.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.domain import keeping as k
from dicom_node.domain import security as s
from dicom_node.domain.records import Delivery, Instance, Result, Step
from dicom_node.domain.states import DeliveryState, SeriesState


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted:
    """The node came up; whatever was under way when it went down is now known to have ended.

    believed_at: the newest time that is beyond doubt, if the clock is not; for doubt_s of uptime
    from now nothing is removed or given up for its age.
    """

    at: float
    version: str
    believed_at: float | None = None
    doubt_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationOpened:
    """A peer was admitted, and has begun to store.

    user: whom it proved to be, if it must. secured: by which TLS, and as whom; "" if in clear.
    """

    at: float
    number: int
    calling_ae: str
    called_ae: str
    address: str
    user: str = ""
    secured: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationEnded:
    """how: released, aborted, lost or timed out."""

    at: float
    number: int
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRejected:
    """A peer was not admitted (PS3.8 §9.3.4). times: since this was last recorded of it.

    user: where that was for its user identity, the name that it gave; None where it was not.
    """

    at: float
    calling_ae: str
    called_ae: str
    address: str
    reason: str
    times: int = 1
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceArrived:
    """A SOP Instance is durable in the spool.

    The catalog decides while it commits whether it is new, a repetition with the same bytes, or a
    conflict (same UID, other bytes), which is kept apart. judge_at: when its Series is to be judged
    at the latest. warning: what is wrong with it all the same; its sender was told so.
    """

    at: float
    instance: Instance
    judge_at: float
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRefused:
    """A SOP Instance was answered with a failure; nothing of it is kept.

    others: SOP Instances that were refused likewise, and are told of together with this one.
    unnamed: so many more, of which only the number was kept.
    """

    at: float
    association: int
    calling_ae: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    status: int
    reason: str
    others: tuple[str, ...] = ()
    unnamed: int = 0

    @property
    def times(self) -> int:
        """How many SOP Instances that were."""
        return 1 + len(self.others) + self.unnamed


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefused:
    """A request that names no SOP Instance was answered with a failure.

    request: its name in PS3.7. times: since this was last recorded of it.
    """

    at: float
    association: int
    calling_ae: str
    address: str
    request: str
    status: int
    reason: str
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationBroken:
    """A connection ended by a fault of the peer's. number: of the association; None: it was none.

    calling_ae: "" where it had not said who it is. times: since this was last recorded of it.
    """

    at: float
    calling_ae: str
    address: str
    reason: str
    number: int | None = None
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesJudged:
    """The verdict on a Series, with its evidence in words. due_at: judged again then.

    ask: the source is to be asked how many instances it has. instances, was_due_at: as they were
    when the evidence was taken; if they have changed, the verdict is void (None: not checked).
    """

    at: float
    series_uid: str
    revision: int
    state: SeriesState
    reasons: tuple[str, ...]
    due_at: float | None = None
    ask: bool = False
    instances: int | None = None
    was_due_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCounted:
    """The source was asked how many instances a Series has. count: None if it could not say.

    at: when the query went out, so that what arrives later is known to be later. source: who was
    asked, and how the count was learned or why it was not.
    """

    at: float
    series_uid: str
    revision: int
    count: int | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHeld:
    """A Series was stopped: no judgment, no step, no delivery until an operator releases it."""

    at: float
    series_uid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReleased:
    """An operator let a Series go on; one that was not complete is declared whole.

    revision: of the Series as the operator found it, with what that release withdraws in the same
    transaction; if it has changed, the release is void (None: not checked).
    """

    at: float
    series_uid: str
    reason: str
    revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReopened:
    """An operator wants a COMPLETE Series judged anew: by the routes and models as they are now."""

    at: float
    series_uid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesUnrouted:
    """No route takes the Series: one sentence a route."""

    at: float
    series_uid: str
    revision: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScheduled:
    """A tool is to be run on a Series; earlier steps of the same route on it are canceled."""

    at: float
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepClaimed:
    """A performer took the step (PS3.4 §CC.2.1: it locks it with a Transaction UID)."""

    at: float
    step_id: int
    transaction_uid: str
    performer: str
    lease_until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompleted:
    """The tool ran; its results follow in the same transaction. seconds: of each part.

    replaces: which earlier results its own name, after all; None: as it was scheduled.
    """

    at: float
    step_id: int
    transaction_uid: str
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    replaces: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCanceled:
    """The step cannot or need not be done: unsuitable input, or superseded.

    transaction_uid: whose claim it ends; None for any.
    """

    at: float
    step_id: int
    reason: str
    transaction_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """The step's run ended without a result; retry_at None puts it into quarantine.

    transaction_uid: whose claim it ends; None for any.
    """

    at: float
    step_id: int
    reason: str
    retry_at: float | None
    transaction_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReturned:
    """Its performer was ended in order before it was done: the attempt does not count."""

    at: float
    step_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReset:
    """An operator asked for the step to be tried anew."""

    at: float
    step_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultStored:
    """A SOP Instance made by a step is durable in the spool."""

    at: float
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryQueued:
    """A result is owed to a peer; owed already, it stays as it is, unless it was withdrawn."""

    at: float
    delivery: Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryClaimed:
    """The deliverer is about to send."""

    at: float
    delivery_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryEnded:
    """One attempt to send is over: the new state, the peer's status if it gave one, the reason."""

    at: float
    delivery_id: int
    state: DeliveryState
    status: int | None
    reason: str
    due_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryWithdrawn:
    """What is owed to a peer is not to be sent any more: something else takes its place."""

    at: float
    delivery_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionOwed:
    """A peer has a result that was replaced, and is to be told so by a rejection note (IHE IOCM).

    delivery_id: of the result that was replaced. note_uid: SOP Instance UID of the note, whose own
    delivery is queued in the same transaction.
    """

    at: float
    delivery_id: int
    note_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReset:
    """An operator asked for the delivery to be tried anew."""

    at: float
    delivery_id: int


Event = (
    NodeStarted
    | AssociationOpened
    | AssociationEnded
    | AssociationRejected
    | InstanceArrived
    | InstanceRefused
    | RequestRefused
    | AssociationBroken
    | SeriesJudged
    | SourceCounted
    | SeriesHeld
    | SeriesReleased
    | SeriesReopened
    | SeriesUnrouted
    | StepScheduled
    | StepClaimed
    | StepCompleted
    | StepCanceled
    | StepFailed
    | StepReturned
    | StepReset
    | ResultStored
    | DeliveryQueued
    | DeliveryClaimed
    | DeliveryEnded
    | DeliveryWithdrawn
    | RejectionOwed
    | DeliveryReset
    | k.Keeping
    | s.Security
)
