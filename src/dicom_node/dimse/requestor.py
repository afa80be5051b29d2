"""One association as its requestor, over pynetdicom: opened, watched, released."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pynetdicom import _config, evt
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext

from dicom_node.dimse.contract import Rejection
from dicom_node.dimse.entity import Entity
from dicom_node.dimse.outcome import Outcome, Phase, Timeouts, answered
from dicom_node.dimse.status import rejection_words
from dicom_node.dimse.tls import ClientContext, client_context
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.domain.records import Peer

MAX_PDU = 128 * 1024  # what we take from the peer; what it takes is its own business


def hush() -> None:
    """Keep pynetdicom from logging identifiers; what happens is told by outcomes."""
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True  # files go out byte for byte, never re-encoded
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


class Requestor:
    """A live association, or the outcome of the attempt to get one.

    association: pynetdicom's; use it only if `failure` is None.
    """

    def __init__(self, peer: Peer, timeouts: Timeouts) -> None:
        self.association: Any = None
        self.failure: Outcome | None = None
        self.context: ClientContext | None = None  # of TLS
        self._peer = peer
        self._timeouts = timeouts
        self._asked_at = 0.0
        self._connected = False
        self._aborted_by_peer = False
        self._rejection: Rejection | None = None

    def watchers(self) -> list[tuple[Any, Any]]:
        """What has to be heard of pynetdicom's events."""
        return [
            (evt.EVT_CONN_OPEN, self._on_open),
            (evt.EVT_PDU_SENT, self._on_sent),
            (evt.EVT_PDU_RECV, self._on_received),
        ]

    def _on_open(self, event: Any) -> None:
        self._connected = True
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_sent(self, event: Any) -> None:
        """A peer that waits for our ACK (Nagle) would stall us 40 ms for each message."""
        if hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError, AttributeError):  # the connection may just have been closed
                event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _on_received(self, event: Any) -> None:
        if isinstance(event.pdu, A_ABORT_RQ):
            self._aborted_by_peer = True
        elif isinstance(event.pdu, A_ASSOCIATE_RJ):
            # pynetdicom 3.0.4 forgets a rejection that comes before it has looked at the socket
            # again, and calls it an abort: so the PDU is what counts.
            self._rejection = Rejection(
                result=event.pdu.result,
                source=event.pdu.source,
                reason=event.pdu.reason_diagnostic,
            )

    def asking(self) -> None:
        """Call before each wait for the peer: tells a timeout from an abort."""
        self._asked_at = time.monotonic()

    def answered(self, response: Any) -> Outcome:
        """The outcome that a status data set of pynetdicom means; an empty one is none."""
        if "Status" not in response:
            return self._unanswered(self._timeouts.answer_s)
        return answered(int(response.Status), str(response.get("ErrorComment", "") or ""))

    def established(self) -> Outcome | None:
        """None if the association is there, else why it is not."""
        association = self.association
        if association.is_established:
            return None
        where = f"{self._peer.host}:{self._peer.port}"
        if self._rejection is not None:
            words = rejection_words(self._rejection)
            return Outcome(phase=Phase.REJECT, detail=words, rejection=self._rejection)
        if self._trouble:
            return self._without_tls()
        if not self._connected:
            return Outcome(phase=Phase.CONNECT, detail=f"cannot connect to {where}")
        if association.rejected_contexts and not association.accepted_contexts:
            return Outcome(phase=Phase.NO_CONTEXT, detail="no presentation context was accepted")
        return self._unanswered(self._timeouts.associate_s)

    @property
    def associated(self) -> bool:
        """Whether the peer has accepted the association, if only without any context."""
        return self.failure is None or self.failure.phase is Phase.NO_CONTEXT

    def close(self) -> None:
        """Release what is established."""
        if self.association is not None and self.association.is_established:
            self.association.release()

    @property
    def _trouble(self) -> str:
        return self.context.trouble if self.context is not None else ""

    def _without_tls(self) -> Outcome:
        where = f"{self._peer.host}:{self._peer.port}"
        return Outcome(phase=Phase.TLS, detail=f"no TLS with {where}: {self._trouble}")

    def _unanswered(self, patience_s: float) -> Outcome:
        if self._trouble:
            return self._without_tls()
        waited_s = time.monotonic() - self._asked_at
        if not self._aborted_by_peer and waited_s >= 0.95 * patience_s:
            return Outcome(phase=Phase.TIMEOUT, detail=f"no answer within {patience_s:g} s")
        words = "aborted the association" if self._aborted_by_peer else "closed the connection"
        return Outcome(phase=Phase.ABORT, detail=f"the peer {words}")


@contextmanager
def associated(
    *,
    peer: Peer,
    calling_ae: str,
    contexts: Sequence[PresentationContext],
    timeouts: Timeouts,
    handlers: Sequence[tuple[Any, Any]] = (),
    negotiation: Sequence[Any] = (),
) -> Iterator[Requestor]:
    """Associate with the peer, and release in the end; look at `failure` first."""
    hush()
    requestor = Requestor(peer, timeouts)
    entity = Entity(calling_ae)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = timeouts.connect_s
    entity.acse_timeout = timeouts.associate_s
    entity.dimse_timeout = entity.network_timeout = timeouts.answer_s
    requestor.asking()
    try:
        requestor.context = context = client_context(peer) if peer.tls else None
        requestor.association = entity.associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            max_pdu=MAX_PDU,
            ext_neg=list(negotiation),
            tls_args=None if context is None else (context, context.server_name),
            evt_handlers=[*requestor.watchers(), *handlers],
        )
        requestor.failure = requestor.established()
    except ConfigurationError as error:
        requestor.failure = Outcome(phase=Phase.TLS, detail="; ".join(error.mistakes))
    except (OSError, UnicodeError) as error:  # a name that cannot be resolved, or is none
        words = error.strerror if isinstance(error, OSError) else "this is no host name"
        requestor.failure = Outcome(
            phase=Phase.CONNECT, detail=f"cannot connect to {peer.host}: {words}"
        )
    try:
        yield requestor
    finally:
        requestor.close()
