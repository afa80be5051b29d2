"""The SCP: `serve_storage`, and what it asks of the node behind it.

Storage, Verification, and Storage Commitment in both roles.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from dicom_node.dimse.front import Listener, Server, listen
from dicom_node.dimse.house import Elsewhere
from dicom_node.dimse.seam import doubt
from dicom_node.dimse.tls import Contexts

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
    "SecurePort",
    "Server",
    "Sink",
    "StoreAnswer",
    "StoreRequest",
    "acceptable",
    "serve_beside",
    "serve_storage",
]


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """UIDs that the operator adds to those of SOP Classes, and of transfer syntaxes."""

    classes: Sequence[str] = ()
    syntaxes: Sequence[str] = ()


def acceptable(extra: Extra, *, commitment: bool) -> list[PresentationContext]:
    """What a server takes."""
    return acceptor_contexts(extra.classes, extra.syntaxes, commitment=commitment)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurePort:
    """A port on which every connection begins with TLS (PS3.15 §B.12)."""

    number: int
    contexts: Contexts


def serve_storage(
    *,
    ae_title: str,
    host: str,
    port: int | SecurePort,
    receiver: Receiver,
    committer: Committer | None = None,
    limits: Limits | None = None,
    extra: Extra | None = None,
    elsewhere: Elsewhere | None = None,
) -> Server:
    """Listen on host:port (0: any free port) and serve until stop(). port: for TLS, a SecurePort.

    committer: None, and Storage Commitment is refused at negotiation.
    extra: UIDs taken beside all that the standard knows (see contexts).
    elsewhere: other processes that are given the connections; None: all are served in this one.
    Raises ConfigurationError if the address cannot be had.
    """
    number, secure = (port, None) if isinstance(port, int) else (port.number, port.contexts)
    listener = listen(
        ae_title=ae_title,
        host=host,
        port=number,
        acceptable=acceptable(extra or Extra(), commitment=committer is not None),
    )
    if doubt():
        _log.warning("%s", doubt())
    listener.open(receiver, limits or Limits(), committer, elsewhere, secure)
    return _running(listener)


def serve_beside(server: Server, *, host: str, port: SecurePort) -> Server:
    """Listen on another port, too: the same node, the same limits, by TLS.

    Raises ConfigurationError if the address cannot be had; then the server is as it was.
    """
    listener = listen(
        ae_title=server.listener.ae.ae_title,
        host=host,
        port=port.number,
        acceptable=server.listener.contexts,
    )
    listener.open_beside(server.listener, port.contexts)
    return replace(server, beside=_running(listener))


def _running(listener: Listener) -> Server:
    thread = threading.Thread(target=listener.serve_forever, name="listener", daemon=True)
    thread.start()
    return Server(listener=listener, thread=thread)
