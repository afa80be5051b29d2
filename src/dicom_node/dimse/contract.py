"""What the SCP and the rest of the node agree on: values, and two protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one receiver bears; every limit has its test.

    pending_max: connections that have not asked for an association yet; the oldest gives way.
    associate_s: from the connection to the whole A-ASSOCIATE-RQ. pdu_s: from the header to the last
    byte of a PDU. idle_s: nothing received on an association.
    """

    associations_max: int = 64
    pending_max: int = 64
    associate_s: float = 30.0
    pdu_s: float = 60.0
    idle_s: float = 60.0
    pdu_bytes: int = 128 * 1024
    associate_bytes: int = MIB
    command_bytes: int = 16 * 1024
    object_bytes: int = 4096 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """Who calls whom, and from where."""

    calling_ae: str
    called_ae: str
    address: str
    port: int


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
    """The status of a C-STORE response; the comment goes out as Error Comment (0000,0902)."""

    status: int
    comment: str = ""


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

    def echoed(self, request: AssociationRequest) -> None:
        """A C-ECHO was answered on the association of that request."""
