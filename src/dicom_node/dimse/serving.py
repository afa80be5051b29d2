"""What an established association is asked for, one message at a time (PS3.7 §9, §10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicom_node.dimse import command as dimse
from dicom_node.dimse import committing, contexts, status, storing
from dicom_node.dimse.answers import asked
from dicom_node.dimse.committing import DEFAULT_ROLES, Committing, Told
from dicom_node.dimse.contract import AssociationRequest, Refusal, StoreAnswer, StoreRequest
from dicom_node.dimse.house import House
from dicom_node.dimse.message import Assembler, CommandSet
from dicom_node.dimse.pdu import AnsweredContext, ProtocolError, Roles
from dicom_node.dimse.storing import Storing
from dicom_node.dimse.stream import Fragment
from dicom_node.domain.identifiers import is_uid

_COMMITMENT = frozenset({dimse.N_ACTION_RQ, dimse.N_EVENT_REPORT_RQ})


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was agreed for one association.

    number: what the receiver calls it. accepted: by presentation context id. roles: of the peer,
    where it proposed any. max_pdu: of the peer.
    """

    request: AssociationRequest
    number: int
    accepted: Mapping[int, AnsweredContext]
    roles: Mapping[str, Roles]
    max_pdu: int


class Serving:
    """The messages of one association; used by its thread."""

    def __init__(self, house: House, terms: Terms, send: Callable[[bytes], None]) -> None:
        self._house = house
        self._terms = terms
        self._send = send
        self._assembler = Assembler(house.limits)
        self._command: CommandSet | None = None  # whose data set is coming
        self._incoming: Storing | Committing | None = None  # whose bytes are wanted
        self._chunks: list[memoryview] = []  # of the data set, since the last recv
        self._misfits = 0
        self.begun = 0  # messages

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._assembler.mid_message

    def take(self, fragment: Fragment) -> None:
        """The next piece of a message; ProtocolError if there can be no such one."""
        self.begun += not self._assembler.mid_message
        part = self._assembler.take(fragment)
        if part is None:
            return
        if isinstance(part, CommandSet):
            self._begin(part)
            return
        if part.data:
            self._chunks.append(part.data)
        if part.last:
            self._pass_on()
            self._finish()

    def _begin(self, message: CommandSet) -> None:
        context = self._terms.accepted.get(message.context_id)
        if context is None:
            raise ProtocolError("a message came on a context that was not accepted")
        self._command = message
        command = message.command
        if command.message_id is not None and self._refusal(command, context) is None:
            self._incoming = self._opened(command, context)
        if not command.has_data_set:
            self._finish()

    def _refusal(self, command: dimse.Command, context: AnsweredContext) -> StoreAnswer | None:
        """What is wrong with a request of a service that is served here; None if nothing."""
        if command.field == dimse.C_STORE_RQ:
            return storing.refusal(command, context)
        if command.field in _COMMITMENT:
            return committing.refusal(command, context, self._told())
        if command.field == dimse.C_ECHO_RQ:
            if command.sop_class == context.abstract_syntax == contexts.VERIFICATION:
                return None
            return StoreAnswer(
                status=status.CLASS_NOT_SUPPORTED,
                comment="C-ECHO is of the Verification SOP Class",
                offending=(dimse.AFFECTED_CLASS,),
            )
        return StoreAnswer(
            status=status.UNRECOGNISED_OPERATION, comment="this operation is not served here"
        )

    def _opened(
        self, command: dimse.Command, context: AnsweredContext
    ) -> Storing | Committing | None:
        """Where the data set of a request goes that is not refused."""
        limits = self._house.limits
        if command.field == dimse.C_STORE_RQ:
            request = self._store_request(command, context)
            return Storing(self._house.receiver.begin, request, limits.object_bytes)
        if command.field in _COMMITMENT:
            return Committing(command=command, context=context, told=self._told(), limits=limits)
        return None

    def _told(self) -> Told:
        """A report is taken in either role: not every peer that sends one negotiates it."""
        committer, request = self._house.committer, self._terms.request
        roles = self._terms.roles.get(contexts.STORAGE_COMMITMENT, DEFAULT_ROLES)
        if committer is None:
            return Told(asked=None, reported=None, sender_ae=request.calling_ae)
        return Told(
            asked=(lambda one: committer.asked(request, one)) if roles.scu else None,
            reported=lambda one: committer.reported(request, one),
            sender_ae=request.calling_ae,
        )

    def _store_request(self, command: dimse.Command, context: AnsweredContext) -> StoreRequest:
        return StoreRequest(
            association=self._terms.number,
            sop_class_uid=command.sop_class,
            sop_instance_uid=command.sop_instance,
            transfer_syntax_uid=context.transfer_syntax,
            message_id=command.message_id or 0,
            calling_ae=self._terms.request.calling_ae,
        )

    def flush(self) -> None:
        """The bytes of the pieces taken so far are about to be overwritten."""
        if self._chunks:
            self._pass_on()

    def abort(self) -> None:
        """The association is over: what is not whole is forgotten."""
        if self._incoming is not None:
            self._incoming.abort()

    def _pass_on(self) -> None:
        if self._incoming is not None:
            self._incoming.write(self._chunks)
        self._chunks.clear()

    def _finish(self) -> None:
        """A message is whole: answer it, if it is one that is answered."""
        message, self._command = self._command, None
        if message is None:
            return
        command = message.command
        if command.field & dimse.RESPONSE or command.field == dimse.C_CANCEL_RQ:
            return  # nothing of ours is under way that it could mean
        if command.message_id is None:
            raise ProtocolError("a request has no message id")
        answer = self._answer(command, self._terms.accepted[message.context_id])
        self._respond(message, command.message_id, answer)
        if answer.status == status.SUCCESS:
            if command.field == dimse.C_ECHO_RQ:
                asked(lambda: self._house.receiver.echoed(self._terms.request))
        elif answer.status >> 12 != 0xB:  # a warning
            self._tell(command, answer)

    def _tell(self, command: dimse.Command, answer: StoreAnswer) -> None:
        """After the answer: what a refusal costs to record, the peer does not wait for."""
        if not answer.recorded:
            refusal = Refusal(
                association=self._terms.number,
                caller=self._terms.request,
                request=dimse.NAMES.get(command.field, f"0x{command.field:04X}"),
                sop_instance_uid=command.sop_instance if is_uid(command.sop_instance) else "",
                answer=answer,
            )
            asked(lambda: self._house.receiver.refused(refusal))
        if command.field == dimse.C_STORE_RQ and answer.status == status.CLASS_NOT_SUPPORTED:
            self._misfits += 1
            if self._misfits >= self._house.limits.misfits_max:
                raise ProtocolError(
                    f"{self._misfits} objects were not of the class of their context", status.BY_US
                )

    def _answer(self, command: dimse.Command, context: AnsweredContext) -> StoreAnswer:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            return incoming.finish()
        return self._refusal(command, context) or StoreAnswer(status=status.SUCCESS)

    def _respond(self, message: CommandSet, message_id: int, answer: StoreAnswer) -> None:
        command = message.command
        response = dimse.Response(
            field=command.field | dimse.RESPONSE,
            responded_to=message_id,
            status=answer.status,
            affected_class=command.sop_class if is_uid(command.sop_class) else "",
            affected_instance=command.sop_instance if is_uid(command.sop_instance) else "",
            offending=answer.offending,
            comment=status.comment(answer.comment),
            event_type=command.event_type,
            action_type=command.action_type,
        )
        data = dimse.encode_response(response)
        self._send(dimse.encode_message(data, message.context_id, self._terms.max_pdu))
