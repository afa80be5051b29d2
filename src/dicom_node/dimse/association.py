"""One association as its acceptor: a blocking socket and one thread (PS3.8 §7, §9.2)."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import replace

from dicom_node.decide.patience import AFRESH, heard, left_s
from dicom_node.dimse import contexts, pdu, status, tls
from dicom_node.dimse.answers import asked
from dicom_node.dimse.contract import AssociationRequest, Ending, Rejection, StoreAnswer
from dicom_node.dimse.house import House
from dicom_node.dimse.pdu import AssociateRequest, ProtocolError
from dicom_node.dimse.serving import Serving, Terms
from dicom_node.dimse.stream import Aborted, Associate, Event, Fragment, Release, Stream
from dicom_node.dimse.transport import below_tls, deafen, give_up, say_goodbye
from dicom_node.domain.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    is_ae_title,
)

_FIRST_BUFFER_BYTES = 8 * 1024  # enough for a request; a silent connection costs no more
_BUFFER_BYTES = 256 * 1024  # as good as or better than 64 KiB and 1 MiB


_ABORT_S = 1.0  # for an A-ABORT to be on its way
_LOOK_S = 1.0  # whether it is to end, while nothing of what is sent is taken


class Stopped(Exception):
    """interrupt() was called."""


class Unheard(Exception):
    """The peer takes nothing of what it is sent."""


def _how_slow(*, mid_pdu: bool, mid_message: bool) -> str:
    if mid_pdu:
        return "a PDU of it came too slowly, or not to its end"
    if mid_message:
        return "a message of it came too slowly, or not to its end"
    return "it said nothing for too long"


class Acceptor:
    """Serves one connection from its first byte to its last; run() in a thread of its own."""

    def __init__(self, connection: socket.socket, address: tuple[str, int], house: House) -> None:
        self._socket = connection
        self._address = address
        self._house = house
        self._opened_at = time.monotonic()
        self._pdu_waited_s = 0.0  # since the header of the present PDU
        self._pdu = self._message = AFRESH
        self._patience = house.limits.patience
        self._stream = Stream(
            associate_bytes=house.limits.associate_bytes, pdu_bytes=house.limits.pdu_bytes
        )
        self._stopping = False
        self._fault = ""  # of the peer, for which it ends
        self._unsecured = ""  # why there was no TLS
        self._unheard = False  # what was sent to it last was not taken
        self._ending: Ending | None = None
        self._number: int | None = None  # given by the receiver when it admits
        self._request = AssociationRequest(
            calling_ae="", called_ae="", address=address[0], port=address[1]
        )
        self._serving: Serving | None = None  # once established

    @property
    def address(self) -> str:
        """Whence it comes."""
        return self._address[0]

    def interrupt(self, reason: str = "") -> None:
        """End the association soon, from another thread: it is told so by A-ABORT.

        reason: what the peer did; "": nothing.
        """
        self._fault = reason
        self._stopping = True
        deafen(self._socket)

    def run(self) -> None:
        """Serve until the association ends; raises nothing that the peer can cause."""
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._house.secure is not None:
                self._shake_hands(self._house.secure)
            self._converse()
        except ProtocolError as error:
            self._fault = str(error)
            self._end(Ending.MALFORMED, error.abort)
        except TimeoutError:
            if self._stream.established:
                self._fault = _how_slow(
                    mid_pdu=self._stream.mid_pdu, mid_message=self._mid_message()
                )
            self._end(Ending.TIMED_OUT, status.NO_REASON_GIVEN)
        except Stopped:
            self._end(Ending.STOPPED, status.BY_US)
        except Unheard:  # an A-ABORT would not be, either
            self._unheard = True
            self._ending = Ending.STOPPED
            if not self._stopping:
                self._fault, self._ending = "it took nothing of its answer", Ending.TIMED_OUT
        except ssl.SSLError as error:
            self._break(error)
        except OSError:
            self._ending = Ending.DISCONNECTED
        finally:
            self._close()

    def _shake_hands(self, secure: tls.Contexts) -> None:
        """Begin TLS: in all within handshake_s, however the bytes drip in."""
        self._socket = connection = below_tls(self._socket, secure)
        if self._stopping:  # while the socket changed hands
            raise Stopped
        connection.settimeout(self._house.limits.handshake_s)
        connection.do_handshake()
        self._request = replace(
            self._request,
            over_tls=True,
            tls_version=tls.version_of(connection),
            certificate=tls.certificate_of(connection),
        )

    def _break(self, error: ssl.SSLError) -> None:
        """TLS did not come about, or broke. A connection that is only closed is told of nobody."""
        if tls.is_gone(error):
            self._ending = Ending.DISCONNECTED
            return
        self._ending = Ending.MALFORMED
        if self._request.over_tls:
            self._fault = f"its TLS broke: {tls.words(error)}"
        else:
            self._unsecured = tls.words(error)

    def _end(self, ending: Ending, abort: status.Abort) -> None:
        """A connection that has said nothing is closed without a word (PS3.8 §9.1.4)."""
        self._ending = ending
        if self._stream.established or ending is Ending.MALFORMED:
            try:
                self._send(pdu.encode_abort(abort), _ABORT_S)
            except (OSError, Unheard):
                self._unheard = True

    def _close(self) -> None:
        receiver, number = self._house.receiver, self._number
        how = str(self._ending or Ending.DISCONNECTED)
        if how in (Ending.DISCONNECTED, Ending.ABORTED) and self._mid_message():
            self._fault = f"it was {how} inside a message"
        if self._serving is not None:
            self._serving.abort()
        if self._fault:
            asked(lambda: receiver.broke(self._request, number, self._fault))
        if self._unsecured:
            asked(lambda: receiver.unsecured(self._request, self._unsecured))
        if number is not None:
            asked(lambda: receiver.ended(number, how))
        if self._unheard:
            give_up(self._socket)
        elif self._ending not in (Ending.DISCONNECTED, Ending.ABORTED):
            self._stopping = False  # from here on it is who must make room for others
            if self._house.gate.see_out(self):
                goodbye_s = self._house.limits.goodbye_s
                say_goodbye(self._socket, goodbye_s, lambda: self._stopping)
        self._socket.close()
        self._house.gate.leave(self)

    # --- the loop ---------------------------------------------------------------------------------

    def _converse(self) -> None:
        view = memoryview(bytearray(_FIRST_BUFFER_BYTES))
        while self._ending is None:
            if self._stopping:
                raise Stopped
            self._socket.settimeout(self._patience_s())
            began_at = time.monotonic()
            count = self._socket.recv_into(view)
            waited_s = time.monotonic() - began_at
            if not count:
                if self._stopping:
                    raise Stopped
                self._ending = Ending.DISCONNECTED
                return
            self._hear(view[:count], waited_s)
            if self._stream.established and len(view) < _BUFFER_BYTES:
                view = memoryview(bytearray(_BUFFER_BYTES))

    def _patience_s(self) -> float:
        if self._stream.established:
            left = left_s(
                self._patience,
                pdu=self._pdu if self._stream.mid_pdu else None,
                pdu_waited_s=self._pdu_waited_s,
                message=self._message if self._mid_message() else None,
            )
        else:
            left = self._opened_at + self._house.limits.associate_s - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _mid_message(self) -> bool:
        return self._serving is not None and self._serving.mid_message

    def _hear(self, data: memoryview, waited_s: float) -> None:
        known, was_mid_pdu = self._stream.pdus, self._stream.mid_pdu
        begun = self._serving.begun if self._serving is not None else 0
        for event in self._stream.feed(data):
            self._take(event)
            if self._ending is not None:
                return
        if self._serving is None:
            return
        self._serving.flush()
        if self._stream.pdus != known or not was_mid_pdu:  # another one
            self._pdu_waited_s, self._pdu = 0.0, AFRESH
        else:
            self._pdu_waited_s += waited_s
            self._pdu = heard(self._pdu, waited_s, len(data), self._patience)
        if self._serving.begun != begun:
            self._message = AFRESH
        else:
            self._message = heard(self._message, waited_s, len(data), self._patience)

    def _take(self, event: Event) -> None:
        match event:
            case Fragment() if self._serving is not None:
                self._serving.take(event)
            case Associate():
                self._associate(pdu.decode_associate_rq(event.body))
            case Release():
                if self._mid_message():
                    raise ProtocolError("released inside a message", status.UNEXPECTED_PDU)
                self._send(pdu.encode_release_rp())
                self._ending = Ending.RELEASED
            case Aborted():
                self._ending = Ending.ABORTED

    def _send(self, data: bytes, within_s: float | None = None) -> None:
        """Raises Unheard if the peer does not take it; within_s: None is as long as for a PDU."""
        until = time.monotonic() + (within_s or self._house.limits.patience.pdu_s)
        left = memoryview(data)
        while left:
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise Unheard
            self._socket.settimeout(min(_LOOK_S, left_s))
            try:
                left = left[self._socket.send(left) :]
            except TimeoutError:
                if self._stopping:
                    raise Unheard from None

    # --- establishment ----------------------------------------------------------------------------

    def _associate(self, request: AssociateRequest) -> None:
        self._request = replace(
            self._request,
            calling_ae=request.calling_ae,
            called_ae=request.called_ae,
            proposes_storage=any(
                proposed.abstract_syntax not in contexts.NOT_STORED for proposed in request.contexts
            ),
            identity=request.identity,
        )
        rejection = self._rejection(request)
        if rejection is None:
            rejection = self._admit()
        else:
            self._tell(rejection)
        if rejection is not None:
            self._house.gate.see_out(self)
            self._send(pdu.encode_associate_rj(rejection))
            self._ending = Ending.STOPPED
            return
        self._request = replace(self._request, identity=None)  # a passcode is not kept
        answered, roles = contexts.answer(request, self._house.contexts)
        terms = Terms(
            request=self._request,
            number=self._number or 0,
            accepted={context.context_id: context for context in answered if not context.result},
            roles=roles,
            max_pdu=request.max_pdu,
        )
        self._serving = Serving(self._house, terms, self._send)
        self._stream.established = True
        self._send(
            pdu.encode_associate_ac(
                echoed=request.echoed,
                contexts=answered,
                roles=roles,
                max_pdu=self._house.limits.pdu_bytes,
                implementation=(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
                identified=self._is_identified(request),
            )
        )

    def _rejection(self, request: AssociateRequest) -> Rejection | None:
        if not request.protocol_version & 1:  # only this bit is tested (PS3.8 §9.3.2)
            return status.PROTOCOL_VERSION_NOT_SUPPORTED
        if request.application_context != pdu.APPLICATION_CONTEXT:
            return status.APPLICATION_CONTEXT_NOT_SUPPORTED
        if not is_ae_title(request.called_ae):
            return status.CALLED_AE_UNKNOWN
        if not is_ae_title(request.calling_ae):
            return status.CALLING_AE_UNKNOWN
        return None if self._house.gate.admit(self) else status.LOCAL_LIMIT_EXCEEDED

    def _admit(self) -> Rejection | None:
        receiver, request = self._house.receiver, self._request
        verdict = asked(lambda: receiver.admit(request))
        if isinstance(verdict, Rejection):
            return verdict
        if isinstance(verdict, StoreAnswer):  # the receiver failed
            self._tell(status.TEMPORARY_CONGESTION)
            return status.TEMPORARY_CONGESTION
        self._number = verdict
        idle_s = asked(lambda: receiver.idle_s(verdict))
        if isinstance(idle_s, float):
            self._patience = replace(self._patience, idle_s=idle_s)
        return None

    def _is_identified(self, request: AssociateRequest) -> bool:
        """Whether to say that its user identity was accepted (PS3.7 §D.3.3.7.2)."""
        number = self._number
        if number is None or request.identity is None or not request.identity.wants_answer:
            return False
        return asked(lambda: self._house.receiver.identifies(number)) is True

    def _tell(self, rejection: Rejection) -> None:
        asked(lambda: self._house.receiver.rejected(self._request, rejection))
