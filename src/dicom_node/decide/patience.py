"""How long a peer may take: in a PDU, in a message, and between messages. Pure.

Counted is only the time for which we waited: a disk of ours that is slow is not the peer's fault.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """pdu_s: from the header to the last byte of a PDU. idle_s: nothing received. rate_bytes_s: as
    slow as a peer may be inside a PDU, on the average over rate_s."""

    pdu_s: float = 60.0
    idle_s: float = 60.0
    rate_s: float = 30.0
    rate_bytes_s: float = 1024.0


@dataclass(frozen=True, slots=True)
class Trickle:
    """What came since it was last enough: for how long we waited, and how many bytes."""

    waited_s: float = 0.0
    received: int = 0


AFRESH = Trickle()


def heard(trickle: Trickle, waited_s: float, received: int, patience: Patience) -> Trickle:
    """So many bytes more, after a wait. As soon as it is enough for rate_s, it begins afresh."""
    together = trickle.received + received
    if together >= patience.rate_bytes_s * patience.rate_s:
        return AFRESH
    return Trickle(trickle.waited_s + waited_s, together)


def left_s(
    patience: Patience, *, pdu: Trickle | None, pdu_waited_s: float, message: Trickle | None
) -> float:
    """How long to wait for the next byte; 0 or less: the peer's time is up.

    pdu, message: of what is under way; None: nothing is. pdu_waited_s: since the PDU's header.
    A message may pause between PDUs for idle_s, and may not drag on by PDUs of a few bytes.
    """
    left = patience.idle_s if message is None else patience.idle_s - message.waited_s
    if pdu is not None:
        left = min(left, patience.pdu_s - pdu_waited_s, patience.rate_s - pdu.waited_s)
    return left
