"""The server of pynetdicom as it comes, in place of the front: `[receive] front = "stock"`.

For the day on which a peer, or another version of pynetdicom, does not get on with the front. Who
may associate, what is checked before an object is acknowledged, and what is recorded are the same:
the same receiver stands behind it. What the front bears this server does not: the operator is told
of that at each start. There is no TLS, and so nobody whose passcode would count.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from io import BytesIO
from socketserver import TCPServer
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt, register_uid
from pynetdicom.pdu import A_ABORT_RQ, A_RELEASE_RQ
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.dimse import command as dimse
from dicom_node.dimse import committing, contexts, pdu, status, stock_words, storing
from dicom_node.dimse.answers import asked
from dicom_node.dimse.contract import (
    AssociationRequest,
    Committer,
    Ending,
    Limits,
    Receiver,
    Refusal,
    Rejection,
    StoreAnswer,
    StoreRequest,
)
from dicom_node.dimse.pdu import ProtocolError, Roles
from dicom_node.dimse.scp import Extra, acceptable
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    is_ae_title,
    is_uid,
)

_POLL_S = 0.1  # how soon its accept loop sees that it is to end
_ENDED_S = 10.0
_ABORT_S = 1.0  # for a peer that does not read
_SILENT = "it said nothing for too long"
_MALFORMED = "it broke the protocol"

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    """One association that was admitted. how: it ended, as far as that was seen. aborted: set once
    the A-ABORT of a server that stops is on the connection."""

    number: int
    request: AssociationRequest
    how: Ending = Ending.DISCONNECTED
    thread: threading.Thread | None = None
    aborted: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True, kw_only=True, eq=False)
class StockServer:
    """A running SCP."""

    receiver: Receiver
    committer: Committer | None
    limits: Limits
    stopping: bool = False
    server: Any = None
    _calls: dict[Any, _Call] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server.server_address[1])

    @property
    def tls_port(self) -> int | None:
        """The port for TLS: there is none."""
        return None

    def active(self) -> int:
        """How many associations there are."""
        return len(self._calls)

    def stop(self, grace_s: float) -> None:
        """Accept nobody any more; associations still there after grace_s seconds are aborted."""
        TCPServer.shutdown(self.server)  # its own forgets a server that another way made
        self.server.server_close()
        self._wait(grace_s)
        self.stopping = True
        for association in self.server.active_associations:
            if association in self._calls:
                self._abort(association, self._calls[association])
            else:  # it never asked for one
                association.dul.socket.close()
        self._wait(_ENDED_S)
        if self._calls:
            _log.error("%d associations did not end", len(self._calls))

    def handlers(self) -> list[tuple[Any, Any]]:
        """What pynetdicom is to call."""
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_PDU_RECV, self._pdu_received),
            (evt.EVT_PDU_SENT, self._pdu_sent),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._commitment),
            (evt.EVT_N_EVENT_REPORT, self._commitment),
        ]

    def _abort(self, association: Any, call: _Call) -> None:
        """Its own blocking way may close the connection before the A-ABORT is on it."""
        association.abort(block=False)
        call.aborted.wait(_ABORT_S)
        association.kill()

    def _wait(self, seconds: float) -> None:
        """Until every association has ended, at most so long."""
        until = time.monotonic() + seconds
        for call in list(self._calls.values()):
            if call.thread is not None:
                call.thread.join(max(0.0, until - time.monotonic()))

    # --- establishment, and the end ---------------------------------------------------------------

    def _requested(self, event: Any) -> None:
        association = event.assoc
        asks = association.requestor.primitive
        address = association.requestor.address_info
        request = AssociationRequest(
            calling_ae=str(asks.calling_ae_title).strip(),
            called_ae=str(asks.called_ae_title).strip(),
            address=address.address,
            port=address.port,
            proposes_storage=any(
                str(proposed.abstract_syntax) not in contexts.NOT_STORED
                for proposed in asks.presentation_context_definition_list
            ),
            identity=stock_words.identity(association.requestor.user_identity),
        )
        impossible = _impossible(request, str(asks.application_context_name))
        if impossible is not None:
            asked(lambda: self.receiver.rejected(request, impossible))
        rejection = impossible or self._admit(association, request)
        if rejection is not None:
            association.acse.send_reject(rejection.result, rejection.source, rejection.reason)
            association.kill()

    def _admit(self, association: Any, request: AssociationRequest) -> Rejection | None:
        verdict = asked(lambda: self.receiver.admit(request))
        if isinstance(verdict, Rejection):
            return verdict
        if isinstance(verdict, StoreAnswer):  # the receiver failed
            asked(lambda: self.receiver.rejected(request, status.TEMPORARY_CONGESTION))
            return status.TEMPORARY_CONGESTION
        idle_s = asked(lambda: self.receiver.idle_s(verdict))
        if isinstance(idle_s, float):
            association.network_timeout = idle_s
        self._identify(association, request, verdict)
        call = _Call(number=verdict, request=replace(request, identity=None))  # holds a passcode
        call.thread = threading.Thread(
            target=self._see_out, args=(association, call), name="association's end", daemon=True
        )
        self._calls[association] = call
        call.thread.start()
        return None

    def _identify(self, association: Any, request: AssociationRequest, number: int) -> None:
        """Say that its user identity was accepted, if it asks for that (PS3.7 §D.3.3.7.2)."""
        if request.identity is None or not request.identity.wants_answer:
            return
        if asked(lambda: self.receiver.identifies(number)) is True:
            accepted = UserIdentityNegotiation()
            accepted.server_response = b""  # of a name there is nothing to say beside
            association.acceptor.add_negotiation_item(accepted)

    def _rejected(self, event: Any) -> None:
        """pynetdicom found that there are too many, although it was admitted."""
        call = self._calls[event.assoc]
        call.how = Ending.STOPPED
        asked(lambda: self.receiver.rejected(call.request, status.LOCAL_LIMIT_EXCEEDED))

    def _pdu_received(self, event: Any) -> None:
        call = self._calls.get(event.assoc)
        if call is not None and isinstance(event.pdu, A_RELEASE_RQ):
            call.how = Ending.RELEASED
        elif call is not None and isinstance(event.pdu, A_ABORT_RQ):
            call.how = Ending.ABORTED

    def _pdu_sent(self, event: Any) -> None:
        call = self._calls.get(event.assoc)
        if call is None or not isinstance(event.pdu, A_ABORT_RQ):
            return
        if self.stopping:
            call.how = Ending.STOPPED
            call.aborted.set()
        else:
            silent = event.assoc.dul.idle_timer_expired()
            call.how = Ending.TIMED_OUT if silent else Ending.MALFORMED

    def _see_out(self, association: Any, call: _Call) -> None:
        """Tell of the end of an association when nothing of it can be stored any more."""
        association.join()
        reason = {Ending.TIMED_OUT: _SILENT, Ending.MALFORMED: _MALFORMED}.get(call.how)
        if reason is not None:
            asked(lambda: self.receiver.broke(call.request, call.number, reason))
        asked(lambda: self.receiver.ended(call.number, str(call.how)))
        del self._calls[association]

    # --- services ---------------------------------------------------------------------------------

    def _echo(self, event: Any) -> Dataset:
        call = self._calls[event.assoc]
        if event.context.abstract_syntax != contexts.VERIFICATION:
            answer = StoreAnswer(
                status=status.CLASS_NOT_SUPPORTED, comment="C-ECHO is of the Verification SOP Class"
            )
            self._tell(call, stock_words.command(event, dimse.C_ECHO_RQ), answer)
            return _said(answer)
        asked(lambda: self.receiver.echoed(call.request))
        return _said(StoreAnswer(status=status.SUCCESS))

    def _store(self, event: Any) -> Dataset:
        call = self._calls[event.assoc]
        command, context = stock_words.command(event, dimse.C_STORE_RQ), stock_words.context(event)
        answer = storing.refusal(command, context)
        if answer is None:
            request = StoreRequest(
                association=call.number,
                sop_class_uid=command.sop_class,
                sop_instance_uid=command.sop_instance,
                transfer_syntax_uid=context.transfer_syntax,
                message_id=command.message_id or 0,
                calling_ae=call.request.calling_ae,
            )
            incoming = storing.Storing(self.receiver.begin, request, self.limits.object_bytes)
            answer = _taken(incoming, event.request.DataSet)
        if answer.status != status.SUCCESS and answer.status >> 12 != 0xB:  # a warning
            self._tell(call, command, answer)
        return _said(answer)

    def _commitment(self, event: Any) -> tuple[Dataset, None]:
        call = self._calls[event.assoc]
        reported = event.event is evt.EVT_N_EVENT_REPORT
        field_number = dimse.N_EVENT_REPORT_RQ if reported else dimse.N_ACTION_RQ
        command, context = stock_words.command(event, field_number), stock_words.context(event)
        told = self._told(event.assoc, call.request)
        answer = committing.refusal(command, context, told)
        if answer is None:
            incoming = committing.Committing(
                command=command, context=context, told=told, limits=self.limits
            )
            answer = _taken(incoming, stock_words.information(event))
        if answer.status != status.SUCCESS:
            self._tell(call, command, answer)
        return _said(answer), None

    def _told(self, association: Any, request: AssociationRequest) -> committing.Told:
        committer, roles = self.committer, committing.DEFAULT_ROLES
        proposed = association.requestor.role_selection.get(contexts.STORAGE_COMMITMENT)
        if proposed is not None:
            roles = Roles(scu=bool(proposed.scu_role), scp=bool(proposed.scp_role))
        if committer is None:
            return committing.Told(asked=None, reported=None, sender_ae=request.calling_ae)
        return committing.Told(
            asked=(lambda one: committer.asked(request, one)) if roles.scu else None,
            reported=lambda one: committer.reported(request, one),
            sender_ae=request.calling_ae,
        )

    def _tell(self, call: _Call, command: dimse.Command, answer: StoreAnswer) -> None:
        if answer.recorded:
            return
        refusal = Refusal(
            association=call.number,
            caller=call.request,
            request=dimse.NAMES[command.field],
            sop_instance_uid=command.sop_instance if is_uid(command.sop_instance) else "",
            answer=answer,
        )
        asked(lambda: self.receiver.refused(refusal))


def serve_with_stock(
    *,
    ae_title: str,
    host: str,
    port: int,
    receiver: Receiver,
    committer: Committer | None = None,
    limits: Limits | None = None,
    extra: Extra | None = None,
) -> StockServer:
    """As scp.serve_storage, with the server of pynetdicom. Raises ConfigurationError."""
    bears = limits or Limits()
    more = extra or Extra()
    for uid in set(more.classes) - contexts.NOT_STORED:
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, f"Extra_{uid.replace('.', '_')}", StorageServiceClass)
    entity = AE(ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_associations = bears.associations_max
    entity.maximum_pdu_size = bears.pdu_bytes
    entity.acse_timeout = bears.associate_s
    entity.dimse_timeout = bears.patience.pdu_s
    entity.network_timeout = bears.patience.idle_s
    running = StockServer(receiver=receiver, committer=committer, limits=bears)
    try:
        running.server = entity.make_server(
            (host, port),
            server_class=ThreadedAssociationServer,
            evt_handlers=running.handlers(),
            contexts=acceptable(more, commitment=committer is not None),
        )
    except OSError as error:
        raise ConfigurationError([f"cannot listen on {host}:{port}: {error.strerror}"]) from error
    serving = running.server.serve_forever
    threading.Thread(target=serving, args=(_POLL_S,), name="listener", daemon=True).start()
    return running


def _impossible(request: AssociationRequest, application_context: str) -> Rejection | None:
    if application_context != pdu.APPLICATION_CONTEXT:
        return status.APPLICATION_CONTEXT_NOT_SUPPORTED
    if not is_ae_title(request.called_ae):
        return status.CALLED_AE_UNKNOWN
    return None if is_ae_title(request.calling_ae) else status.CALLING_AE_UNKNOWN


def _taken(
    incoming: storing.Storing | committing.Committing, data_set: BytesIO | None
) -> StoreAnswer:
    """The whole data set given to who takes it in pieces from the front."""
    with memoryview(data_set.getvalue() if data_set is not None else b"") as content:
        try:
            incoming.write([content] if content else [])
        except ProtocolError as error:  # it would not end: here it has, and its limit is its answer
            _log.info("a data set is too long: %s", error)
        return incoming.finish()


def _said(answer: StoreAnswer) -> Dataset:
    said = Dataset()
    said.Status = answer.status
    if answer.comment:
        said.ErrorComment = status.comment(answer.comment)
    if answer.offending:
        said.OffendingElement = list(answer.offending)
    return said
