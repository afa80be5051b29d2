"""What the SCP and the rest of the node agree on: values, and three protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from dicom_node.decide.eviction import Crowd
from dicom_node.decide.patience import Patience
from dicom_node.domain.security import Certificate, Identity

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one receiver bears; every limit has its test.

    crowd: connections that have no association, not yet or not any more. handshake_s: of TLS, in
    all. goodbye_s: for the peer to close its connection after our last word.
    associate_s: from the connection to the whole A-ASSOCIATE-RQ. patience: from then on.
    object_bytes: of a C-STORE. commitment_bytes, references_max: of one message of Storage
    Commitment. A data set of more than twice as many bytes (of commitment_bytes, where its message
    is no C-STORE) is not believed to end. misfits_max: objects of another class than their
    presentation context's, before the association is aborted.
    """

    associations_max: int = 64
    crowd: Crowd = field(default_factory=Crowd)
    handshake_s: float = 10.0
    goodbye_s: float = 2.0
    associate_s: float = 30.0
    patience: Patience = field(default_factory=Patience)
    pdu_bytes: int = 128 * 1024
    associate_bytes: int = MIB
    command_bytes: int = 16 * 1024
    object_bytes: int = 4096 * MIB
    commitment_bytes: int = 4 * MIB  # holds references_max references with UIDs of full length
    references_max: int = 20_000
    misfits_max: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """Who calls whom, and from where. proposes_storage: more than Verification and Storage
    Commitment, whether or not any of it will be accepted.

    certificate: by which it has proven itself; over_tls: whether it could; tls_version: such as
    "TLS 1.3". identity: what user it says it is, which nobody has looked at.
    """

    calling_ae: str
    called_ae: str
    address: str
    port: int
    proposes_storage: bool = True
    over_tls: bool = False
    tls_version: str = ""
    certificate: Certificate | None = None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why an association is refused (PS3.8 Table 9-21)."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A C-STORE request that has passed the checks of the command set (PS3.7 §9.1.1)."""

    association: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    message_id: int
    calling_ae: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """The status of a response; the comment goes out as Error Comment (0000,0902).

    offending: tags of the elements at fault, sent as Offending Element (0000,0901). recorded: the
    receiver has recorded it already; what it has not, it is told of by refused().
    """

    status: int
    comment: str = ""
    offending: tuple[int, ...] = ()
    recorded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that was answered with a failure, and by what.

    request: its name in PS3.7. sop_instance_uid: "" where the request named none, or no UID.
    """

    association: int
    caller: AssociationRequest
    request: str
    sop_instance_uid: str
    answer: StoreAnswer


class Reference(NamedTuple):
    """An item of the Referenced SOP Sequence (PS3.3 §C.14)."""

    sop_class_uid: str
    sop_instance_uid: str


class FailedReference(NamedTuple):
    """An item of the Failed SOP Sequence; reason: see status.meaning (PS3.3 §C.14.1.1)."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """What is to be kept for good, no instance twice (PS3.4 §J.3.2.1)."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What became of a request (PS3.4 §J.3.3.1). sender_ae: AE title of who reports.

    No instance is both committed and failed. Whether all that was asked for is in it, and whether
    it was asked at all, is not judged here.
    """

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[FailedReference, ...] = ()
    sender_ae: str = ""


class Ending(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"  # by the peer
    DISCONNECTED = "disconnected"
    TIMED_OUT = "timed out"
    MALFORMED = "malformed"  # the peer broke the protocol, and was told so
    STOPPED = "stopped"  # by us


class Sink(Protocol):
    """Where one object goes: a DICOM file (PS3.10), in pieces. Used by one thread."""

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        """Take the next bytes; they are overwritten as soon as this returns."""

    def finish(self) -> StoreAnswer:
        """The object is whole. A success status means that it is durable."""

    def abort(self) -> None:
        """The object will not be whole, or an answer is no longer wanted: forget it."""


class Receiver(Protocol):
    """The node behind the SCP. Called from many threads; an exception is answered as a failure."""

    def admit(self, request: AssociationRequest) -> int | Rejection:
        """Judge an association: its number, or why not."""

    def begin(self, request: StoreRequest) -> Sink | StoreAnswer:
        """Open a sink, or refuse the object at once."""

    def ended(self, association: int, how: str) -> None:
        """An admitted association is over; how: see Ending."""

    def idle_s(self, association: int) -> float | None:
        """How long an admitted association may say nothing; None: as long as any other."""

    def identifies(self, association: int) -> bool:
        """Whether the user identity of an admitted association was looked at, and is right."""

    def echoed(self, request: AssociationRequest) -> None:
        """A C-ECHO was answered on the association of that request."""

    def refused(self, refusal: Refusal) -> None:
        """A request was answered with a failure that the receiver has not recorded itself."""

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        """An association was rejected without admit(), or because that failed."""

    def broke(self, request: AssociationRequest, association: int | None, reason: str) -> None:
        """It ended by a fault of the peer's. Told before ended(), and of connections, too, that
        are no association: then the request has an address, and hardly more."""

    def unsecured(self, request: AssociationRequest, reason: str) -> None:
        """A connection was to be one of TLS, and is none; the request has an address alone."""


class Committer(Protocol):
    """The node behind Storage Commitment, in both roles. Called as a Receiver is."""

    def asked(self, request: AssociationRequest, commitment: CommitmentRequest) -> StoreAnswer:
        """A peer asks us to keep what it names; success promises it a report (PS3.4 §J.3.2)."""

    def reported(self, request: AssociationRequest, report: CommitmentReport) -> StoreAnswer:
        """A peer says what it keeps; success means that this is durably known here."""
