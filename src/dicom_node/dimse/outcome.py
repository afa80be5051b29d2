"""How an operation with a peer ended, as a value; whether to try again is judged elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.dimse.contract import Rejection
from dicom_node.dimse.status import COMMENT_MAX, meaning


class Phase(StrEnum):
    """Where an operation ended."""

    CONNECT = "connect"  # no TCP connection
    TLS = "tls"  # a connection, but no TLS, or not with whom it should be
    REJECT = "reject"  # A-ASSOCIATE-RJ
    ABORT = "abort"  # A-ABORT, or the connection was closed
    TIMEOUT = "timeout"  # no answer in time
    NO_CONTEXT = "no-context"  # the peer accepts no presentation context for it
    OBJECT = "object"  # our own object cannot be read or converted
    STATUS = "status"  # the peer answered with a status


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The facts. status: None unless phase is STATUS. comment: the peer's Error Comment.

    detail: what happened, in words. rejection: the peer's, if phase is REJECT.
    """

    phase: Phase
    status: int | None = None
    comment: str = ""
    detail: str = ""
    rejection: Rejection | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the peer answered with success, not with a warning (PS3.7 Annex C)."""
        return self.status == 0


def answered(status: int, comment: str) -> Outcome:
    """The outcome of a response with that status and Error Comment, of which LO's length counts."""
    comment = comment[:COMMENT_MAX]
    detail = f"status 0x{status:04X} ({meaning(status)})" + (f": {comment}" if comment else "")
    return Outcome(phase=Phase.STATUS, status=status, comment=comment, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for a peer. answer_s: for each response, or each piece of an answer."""

    connect_s: float = 10.0
    associate_s: float = 30.0
    answer_s: float = 60.0
