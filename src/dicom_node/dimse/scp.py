"""The SCP: `serve_storage`, and what it asks of the node behind it.

Storage, Verification, and Storage Commitment in both roles.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext

from dicom_node.dimse.contexts import acceptor_contexts
from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    Committer,
    Ending,
    FailedReference,
    Limits,
    Receiver,
    Reference,
    Refusal,
    Rejection,
    Sink,
    StoreAnswer,
    StoreRequest,
)
from dicom_node.dimse.front import Server, listen
from dicom_node.dimse.house import Elsewhere

__all__ = [
    "AssociationRequest",
    "CommitmentReport",
    "CommitmentRequest",
    "Committer",
    "Ending",
    "Extra",
    "FailedReference",
    "Limits",
    "Receiver",
    "Reference",
    "Refusal",
    "Rejection",
    "Server",
    "Sink",
    "StoreAnswer",
    "StoreRequest",
    "acceptable",
    "serve_storage",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """UIDs that the operator adds to those of SOP Classes, and of transfer syntaxes."""

    classes: Sequence[str] = ()
    syntaxes: Sequence[str] = ()


def acceptable(extra: Extra, *, commitment: bool) -> list[PresentationContext]:
    """What a server takes."""
    return acceptor_contexts(extra.classes, extra.syntaxes, commitment=commitment)


def serve_storage(
    *,
    ae_title: str,
    host: str,
    port: int,
    receiver: Receiver,
    committer: Committer | None = None,
    limits: Limits | None = None,
    extra: Extra | None = None,
    elsewhere: Elsewhere | None = None,
) -> Server:
    """Listen on host:port (0: any free port) and serve until stop().

    committer: None, and Storage Commitment is refused at negotiation.
    extra: UIDs taken beside all that the standard knows (see contexts).
    elsewhere: other processes that are given the connections; None: all are served in this one.
    Raises ConfigurationError if the address cannot be had.
    """
    listener = listen(
        ae_title=ae_title,
        host=host,
        port=port,
        acceptable=acceptable(extra or Extra(), commitment=committer is not None),
    )
    listener.open(receiver, limits or Limits(), committer, elsewhere)
    thread = threading.Thread(target=listener.serve_forever, name="listener", daemon=True)
    thread.start()
    return Server(listener=listener, thread=thread)
