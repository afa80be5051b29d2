"""One association as its requestor, for requests that may cross: one socket, one thread.

pynetdicom answers an N-EVENT-REPORT from a thread of its own, which can tear a message that is
being sent, and deadlock a release; so the services in which the peer may ask, too, are spoken here.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from dicom_node.dimse import command as dimse
from dicom_node.dimse import pdu, status
from dicom_node.dimse.contexts import UNCOMPRESSED
from dicom_node.dimse.contract import Limits, StoreAnswer
from dicom_node.dimse.message import Assembler, CommandSet, DataSetPart
from dicom_node.dimse.outcome import Outcome, Phase, Timeouts, answered
from dicom_node.dimse.pdu import AnsweredContext, ProposedContext, ProtocolError, Roles
from dicom_node.dimse.status import rejection_words
from dicom_node.dimse.stream import Aborted, Accepted, Event, Fragment, Rejected, Release, Stream
from dicom_node.dimse.tls import NoTls
from dicom_node.dimse.tls import words as tls_words
from dicom_node.dimse.transport import connected
from dicom_node.domain.errors import ConfigurationError, PeerError
from dicom_node.domain.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    is_ae_title,
    is_uid,
)
from dicom_node.domain.records import Peer

_BUFFER_BYTES = 64 * 1024
_LOOK_S = 0.1  # whether it is enough: that may be learned elsewhere
_RELEASE_S = 10.0  # a peer that does not answer a release is aborted
_CONTEXT_ID = 1


class Incoming(Protocol):
    """Where the data set of a peer's request goes, and what is answered to it."""

    def write(self, chunks: Sequence[memoryview]) -> None:
        """The next bytes; they are overwritten as soon as this returns."""

    def finish(self) -> StoreAnswer:
        """The request is whole: the status to answer."""


Serve = Callable[[dimse.Command, AnsweredContext], Incoming | StoreAnswer]
"""What becomes of a request of the peer: its data set is wanted, or it is refused at once."""


class Ended(Exception):
    """The association is over, or never was; `outcome` says how."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One abstract syntax, in the uncompressed transfer syntaxes; roles: None proposes none."""

    abstract_syntax: str
    roles: Roles | None = None


class Dialogue:
    """An established association. context, roles: as accepted."""

    def __init__(
        self, connection: socket.socket, proposal: Proposal, timeouts: Timeouts, serve: Serve
    ) -> None:
        limits = Limits()
        self.context = _context(proposal.abstract_syntax, 1, "")
        self.roles: Roles | None = None
        self._socket = connection
        self._timeouts = timeouts
        self._serve = serve
        self._stream = Stream(
            associate_bytes=limits.associate_bytes, pdu_bytes=limits.pdu_bytes, requestor=True
        )
        self._assembler = Assembler(limits)
        self._view = memoryview(bytearray(_BUFFER_BYTES))
        self._max_pdu = 0  # of the peer
        self._releasing = False
        self._over: Outcome | None = None
        self._message: CommandSet | None = None  # whose data set is coming
        self._incoming: Incoming | StoreAnswer | None = None
        self._awaited: tuple[int, int] | None = None  # field of the response, responded to
        self._response: dimse.Command | None = None  # that one; of others nothing is kept

    # --- what is done with it ---------------------------------------------------------------------

    def request(self, field: int, message_id: int, command: bytes, data_set: bytes) -> Outcome:
        """Send a request and wait for its response; answers what the peer asks meanwhile."""
        self._await((field | dimse.RESPONSE, message_id))
        self._send(dimse.encode_message(command, _CONTEXT_ID, self._max_pdu, data_set))
        until = time.monotonic() + self._timeouts.answer_s
        while (found := self._response) is None:
            if not self._hear(until):
                raise self._ended(_late(self._timeouts.answer_s))
        if found.status is None:
            raise ProtocolError("a response has no status")
        return answered(found.status, found.comment)

    def _await(self, response: tuple[int, int]) -> None:
        self._awaited, self._response = response, None

    def listen(self, enough: Callable[[], bool], seconds: float) -> None:
        """Answer what the peer asks, until it is enough or the time is over."""
        until = time.monotonic() + seconds
        while not enough() and time.monotonic() < until:
            self._hear(min(until, time.monotonic() + _LOOK_S))

    # --- the wire ---------------------------------------------------------------------------------

    def establish(self, request: bytes) -> None:
        """Ask for the association; raises Ended if it is not got."""
        self._send(request)
        until = time.monotonic() + self._timeouts.associate_s
        while not self._stream.established:
            if not self._hear(until):
                raise self._ended(_late(self._timeouts.associate_s))
        if self.context.result != 0 or self.context.transfer_syntax not in UNCOMPRESSED:
            self.release()
            raise Ended(
                Outcome(phase=Phase.NO_CONTEXT, detail="no presentation context was accepted")
            )

    def release(self) -> None:
        """Release what is established; what still comes is not answered any more."""
        if self._over is not None:
            return
        self._releasing = True
        until = time.monotonic() + min(_RELEASE_S, self._timeouts.answer_s)
        with suppress(Ended):
            self._send(pdu.encode_release_rq())
            while self._hear(until):
                pass
            self.abort()

    def abort(self, why: status.Abort = status.BY_US) -> None:
        """Tell the peer that it is over, if it is not."""
        if self._stream.established:
            self._stream.established = False
            with suppress(OSError):
                self._socket.sendall(pdu.encode_abort(why))

    def _hear(self, until: float) -> bool:
        """Take what comes next; False if nothing came in time. Raises Ended, ProtocolError."""
        if self._over is not None:
            raise Ended(self._over)
        left = until - time.monotonic()
        if left <= 0:
            return False
        try:
            self._socket.settimeout(left)
            count = self._socket.recv_into(self._view)
        except TimeoutError:
            return False
        except ssl.SSLError as error:  # what it thinks of our certificate comes only now
            raise self._ended(_without_tls(f"any more: {tls_words(error)}")) from None
        except OSError:
            count = 0
        if not count:
            raise self._ended(_gone("the peer closed the connection"))
        for event in self._stream.feed(self._view[:count]):
            if not self._take(event):  # what came before the end still counts: told next time
                break
        return True

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._timeouts.answer_s)
            self._socket.sendall(data)
        except TimeoutError:
            raise self._ended(_late(self._timeouts.answer_s)) from None
        except OSError:
            raise self._ended(_gone("the peer closed the connection")) from None

    def _ended(self, outcome: Outcome) -> Ended:
        self._over = self._over or outcome
        return Ended(self._over)

    def _take(self, event: Event) -> bool:
        """Whether the association goes on after this."""
        match event:
            case Fragment():
                self._fragment(event)
            case Accepted():
                self._accepted(pdu.decode_associate_ac(event.body))
            case Rejected():
                words = rejection_words(event.rejection)
                self._over = Outcome(phase=Phase.REJECT, detail=words, rejection=event.rejection)
            case Aborted():
                self._over = _gone("the peer aborted the association")
            case Release():
                self._send(pdu.encode_release_rp())
                if not self._releasing:  # else both released at once: its answer is yet to come
                    self._over = _gone("the peer released the association")
            case _:
                self._over = _gone("the association was released")
        if self._over is not None:
            self._stream.established = False
        return self._over is None

    def _accepted(self, answer: pdu.AssociateAnswer) -> None:
        result, syntax = answer.contexts.get(_CONTEXT_ID, (1, ""))
        self.context = _context(self.context.abstract_syntax, result, syntax)
        self.roles = answer.roles.get(self.context.abstract_syntax)
        self._max_pdu = answer.max_pdu
        self._stream.established = True

    # --- messages ---------------------------------------------------------------------------------

    def _fragment(self, fragment: Fragment) -> None:
        part = self._assembler.take(fragment)
        if isinstance(part, CommandSet):
            self._begin(part)
        elif isinstance(part, DataSetPart):
            if part.data and not isinstance(self._incoming, StoreAnswer | None):
                self._incoming.write([part.data])
            if part.last:
                self._finish()

    def _begin(self, message: CommandSet) -> None:
        command = message.command
        if message.context_id != _CONTEXT_ID or self.context.result != 0:
            raise ProtocolError("a message came on a context that was not accepted")
        self._message, self._incoming = message, None
        if not command.field & dimse.RESPONSE and command.field != dimse.C_CANCEL_RQ:
            if command.message_id is None:
                raise ProtocolError("a request has no message id")
            self._incoming = self._serve(command, self.context)
        if not command.has_data_set:
            self._finish()

    def _finish(self) -> None:
        message, self._message = self._message, None
        incoming, self._incoming = self._incoming, None
        if message is None:
            return
        if message.command.field & dimse.RESPONSE:
            if (message.command.field, message.command.responded_to) == self._awaited:
                self._response = message.command
        elif incoming is not None and not self._releasing:
            answer = incoming if isinstance(incoming, StoreAnswer) else incoming.finish()
            self._respond(message.command, answer)

    def _respond(self, command: dimse.Command, answer: StoreAnswer) -> None:
        response = dimse.Response(
            field=command.field | dimse.RESPONSE,
            responded_to=command.message_id or 0,
            status=answer.status,
            affected_class=command.sop_class if is_uid(command.sop_class) else "",
            affected_instance=command.sop_instance if is_uid(command.sop_instance) else "",
            comment=status.comment(answer.comment),
            event_type=command.event_type,
            action_type=command.action_type,
        )
        data = dimse.encode_response(response)
        self._send(dimse.encode_message(data, _CONTEXT_ID, self._max_pdu))


def _context(abstract_syntax: str, result: int, transfer_syntax: str) -> AnsweredContext:
    return AnsweredContext(
        context_id=_CONTEXT_ID,
        result=result,
        abstract_syntax=abstract_syntax,
        transfer_syntax=transfer_syntax,
    )


def _gone(words: str) -> Outcome:
    return Outcome(phase=Phase.ABORT, detail=words)


def _without_tls(why: str) -> Outcome:
    return Outcome(phase=Phase.TLS, detail=f"no TLS {why}")


def _late(seconds: float) -> Outcome:
    return Outcome(phase=Phase.TIMEOUT, detail=f"no answer within {seconds:g} s")


@contextmanager
def conversing(
    *, peer: Peer, calling_ae: str, proposal: Proposal, serve: Serve, timeouts: Timeouts
) -> Iterator[Dialogue]:
    """Associate with the peer, and release in the end. Raises Ended, also out of the block."""
    for title in (peer.ae_title, calling_ae):
        if not is_ae_title(title):
            raise PeerError(f"{title!r} is no AE title", permanent=True)
    request = pdu.encode_associate_rq(
        called_ae=peer.ae_title,
        calling_ae=calling_ae,
        contexts=(
            ProposedContext(
                context_id=_CONTEXT_ID,
                abstract_syntax=proposal.abstract_syntax,
                transfer_syntaxes=UNCOMPRESSED,
            ),
        ),
        roles={proposal.abstract_syntax: proposal.roles} if proposal.roles else {},
        max_pdu=Limits().pdu_bytes,
        implementation=(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
    )
    with _connected(peer, timeouts) as connection:
        dialogue = Dialogue(connection, proposal, timeouts, serve)
        try:
            dialogue.establish(request)
            yield dialogue
            with suppress(ProtocolError):  # what was to be said has been said
                dialogue.release()
        except ProtocolError as error:
            dialogue.abort(error.abort)
            raise Ended(_gone(f"the peer broke the protocol: {error}")) from error
        finally:
            dialogue.abort()


def _connected(peer: Peer, timeouts: Timeouts) -> socket.socket:
    where = f"{peer.host}:{peer.port}"
    try:
        return connected(peer, timeouts.connect_s)
    except NoTls as error:
        raise Ended(_without_tls(f"with {where}: {error}")) from None
    except ConfigurationError as error:
        raise Ended(Outcome(phase=Phase.TLS, detail="; ".join(error.mistakes))) from None
    except (OSError, UnicodeError):  # UnicodeError: what can be no host name
        words = f"cannot connect to {where}"
        raise Ended(Outcome(phase=Phase.CONNECT, detail=words)) from None
