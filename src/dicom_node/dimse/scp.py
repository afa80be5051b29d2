"""The SCP: `serve_storage`, and what it asks of the node behind it.

Storage, Verification, and Storage Commitment in both roles.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

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

__all__ = [
    "AssociationRequest",
    "CommitmentReport",
    "CommitmentRequest",
    "Committer",
    "Ending",
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
    "serve_storage",
]


def serve_storage(
    *,
    ae_title: str,
    host: str,
    port: int,
    receiver: Receiver,
    committer: Committer | None = None,
    limits: Limits | None = None,
    extra_classes: Sequence[str] = (),
    extra_syntaxes: Sequence[str] = (),
) -> Server:
    """Listen on host:port (0: any free port) and serve until stop().

    committer: None, and Storage Commitment is refused at negotiation.
    extra_classes, extra_syntaxes: UIDs taken beside all that the standard knows (see contexts).
    Raises ConfigurationError if the address cannot be had.
    """
    listener = listen(
        ae_title=ae_title,
        host=host,
        port=port,
        acceptable=acceptor_contexts(
            extra_classes, extra_syntaxes, commitment=committer is not None
        ),
    )
    listener.open(receiver, limits or Limits(), committer)
    thread = threading.Thread(target=listener.serve_forever, name="listener", daemon=True)
    thread.start()
    return Server(listener=listener, thread=thread)
