"""The node as requestor: echo, find, move, get, store, Storage Commitment.

How each ended is a value (see outcome).
"""

from __future__ import annotations

from pynetdicom import build_context

from dicom_node.dimse.commitment_scu import Asked, ask_commitment, report_commitment
from dicom_node.dimse.contexts import UNCOMPRESSED, VERIFICATION
from dicom_node.dimse.holdings import Counted, Held, Learned, count_series, held_instances
from dicom_node.dimse.outcome import Outcome, Phase, Timeouts
from dicom_node.dimse.query import Found, Progress, find, get, move
from dicom_node.dimse.requestor import associated
from dicom_node.dimse.sending import StoreItem, StoreOutcome, store
from dicom_node.domain.records import Peer

__all__ = [
    "Asked",
    "Counted",
    "Found",
    "Held",
    "Learned",
    "Outcome",
    "Phase",
    "Progress",
    "StoreItem",
    "StoreOutcome",
    "Timeouts",
    "ask_commitment",
    "count_series",
    "echo",
    "find",
    "get",
    "held_instances",
    "move",
    "report_commitment",
    "store",
]


def echo(*, peer: Peer, calling_ae: str, timeouts: Timeouts | None = None) -> Outcome:
    """Ask the peer whether it is there (PS3.7 §9.1.5)."""
    with associated(
        peer=peer,
        calling_ae=calling_ae,
        contexts=[build_context(VERIFICATION, list(UNCOMPRESSED))],
        timeouts=timeouts or Timeouts(),
    ) as requestor:
        if requestor.failure is not None:
            return requestor.failure
        requestor.asking()
        return requestor.answered(requestor.association.send_c_echo())
