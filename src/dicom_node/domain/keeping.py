"""What happened, continued: proof of delivery, promises given, files removed, and being full.

As in events, where these belong to the union of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.domain.states import DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequested:
    """A peer is about to be asked to keep what it was sent (PS3.4 §J.3.2)."""

    at: float
    transaction_uid: str
    destination: str
    delivery_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReported:
    """A peer has said what it keeps (PS3.4 §J.3.3); what follows for each delivery comes with it.

    destination: whom the transaction was with, "" for one that this node did not ask for.
    """

    at: float
    transaction_uid: str
    sender_ae: str
    destination: str
    committed: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofAwaited:
    """There is no proof yet that a peer has what it was sent. due_at: it is asked then.

    ask: how, "commit" or "query". tries: how often it could not be asked, since it was sent.
    """

    at: float
    delivery_id: int
    ask: str
    tries: int
    reason: str
    due_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfirmed:
    """The proof of a delivery, or what follows from there being none."""

    at: float
    delivery_id: int
    state: DeliveryState
    reason: str
    due_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentAsked:
    """A peer asked this node to keep instances: it is owed a report (PS3.4 §J.3.2).

    references: SOP Class UID -> SOP Instance UIDs.
    """

    at: float
    transaction_uid: str
    peer: str
    references: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentJudged:
    """What the report will say. failed: reason (PS3.3 §C.14.1.1) as 4 digits -> instances."""

    at: float
    transaction_uid: str
    peer: str
    committed: int
    failed: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPromised:
    """A peer was promised that instances of a Series are kept.

    seen: number of the newest event of the Series when its files were looked at.
    """

    at: float
    series_uid: str
    transaction_uid: str
    peer: str
    instances: int
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReportEnded:
    """One attempt to report is over. due_at: of the next; None if it is done, or given up."""

    at: float
    transaction_uid: str
    peer: str
    reason: str
    due_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPurged:
    """The files of a Series, and those of its results, are to be removed; the facts stay.

    seen: number of the newest event of the Series when that was judged: void if another came.
    """

    at: float
    series_uid: str
    reason: str
    files: int
    size: int
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesRemoved:
    """What was to be removed of a Series is gone from the disk."""

    at: float
    series_uid: str
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRestored:
    """An object whose file had been removed came again: the same bytes.

    judge_at: when its Series is judged anew, if it waits for that. association: over which; None
    where that is not known.
    """

    at: float
    sop_instance_uid: str
    series_uid: str
    sha256: str
    path: str
    judge_at: float
    association: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLost:
    """The file of a result is not there, though nobody removed it. series_uid: of its sources.

    Who was still to get it does not, until it is made again. reason: what follows, and what to do.
    """

    at: float
    sop_instance_uid: str
    series_uid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUnreachable:
    """No association with a peer could be had: whatever was due for it by now waits until due_at.

    tries: how often in a row. given_up_before: where it has been so since before that time, what is
    owed since before that time is given up.
    """

    at: float
    destination: str
    tries: int
    due_at: float
    reason: str
    given_up_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerReached:
    """A peer that could not be reached takes associations again: what waited for it is due."""

    at: float
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureChanged:
    """The node takes in less, or all again. level: open, refusing objects, or closed."""

    at: float
    level: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstancesMissed:
    """SOP Instances that came together with those of a Series, and were refused: it may lack them.

    They are told of one by one, with the reason, by InstanceRefused.
    """

    at: float
    series_uid: str
    sop_instance_uids: tuple[str, ...]


Keeping = (
    CommitmentRequested
    | CommitmentReported
    | InstancesMissed
    | ProofAwaited
    | DeliveryConfirmed
    | CommitmentAsked
    | CommitmentJudged
    | SeriesPromised
    | CommitmentReportEnded
    | SeriesPurged
    | FilesRemoved
    | InstanceRestored
    | ResultLost
    | PeerUnreachable
    | PeerReached
    | PressureChanged
)
