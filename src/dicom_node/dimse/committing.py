"""One message of Storage Commitment: checks before belief, then its content to whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dicom_node.dimse import command as dimse
from dicom_node.dimse import status
from dicom_node.dimse.answers import asked
from dicom_node.dimse.command import Command
from dicom_node.dimse.commitment import (
    ALL_COMMITTED,
    REQUEST_COMMITMENT,
    SOME_FAILED,
    WELL_KNOWN_INSTANCE,
    decode_report,
    decode_request,
)
from dicom_node.dimse.contexts import EXPLICIT_LITTLE, STORAGE_COMMITMENT
from dicom_node.dimse.contract import CommitmentReport, CommitmentRequest, Limits, StoreAnswer
from dicom_node.dimse.pdu import AnsweredContext, Roles
from dicom_node.domain.identifiers import is_uid

DEFAULT_ROLES = Roles(scu=True, scp=False)  # of a requestor that proposes none (PS3.7 §D.3.3.4)

C = TypeVar("C", CommitmentRequest, CommitmentReport)

_NOT_AGREED = StoreAnswer(
    status=status.UNRECOGNISED_OPERATION, comment="the role for it was not negotiated"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Whom a message of Storage Commitment concerns; None: that kind is not taken here."""

    asked: Callable[[CommitmentRequest], StoreAnswer] | None
    reported: Callable[[CommitmentReport], StoreAnswer] | None
    sender_ae: str


def refusal(command: Command, context: AnsweredContext, told: Told) -> StoreAnswer | None:
    """What is wrong with a request before its data set is seen; None if nothing."""
    event = command.field == dimse.N_EVENT_REPORT_RQ
    number = command.event_type if event else command.action_type
    if context.abstract_syntax != STORAGE_COMMITMENT:
        return StoreAnswer(
            status=status.UNRECOGNISED_OPERATION, comment="not served on this presentation context"
        )
    if command.sop_class != STORAGE_COMMITMENT:
        return StoreAnswer(status=status.NO_SUCH_CLASS, comment="not the SOP Class of the context")
    if not command.sop_instance or number is None or not command.has_data_set:
        return StoreAnswer(
            status=status.MISTYPED_ARGUMENT, comment="SOP Instance, type or data set is missing"
        )
    if not is_uid(command.sop_instance):
        return StoreAnswer(status=status.INVALID_INSTANCE, comment="SOP Instance UID is not a UID")
    if command.sop_instance != WELL_KNOWN_INSTANCE:
        return StoreAnswer(status=status.NO_SUCH_INSTANCE, comment="not the well-known instance")
    return _refused_type(number, event=event) or _refused_role(told, event=event)


def _refused_type(number: int, *, event: bool) -> StoreAnswer | None:
    if event and number not in (ALL_COMMITTED, SOME_FAILED):
        return StoreAnswer(status=status.NO_SUCH_EVENT, comment="Event Type ID is 1 or 2")
    if not event and number != REQUEST_COMMITMENT:
        return StoreAnswer(status=status.NO_SUCH_ACTION, comment="Action Type ID is 1")
    return None


def _refused_role(told: Told, *, event: bool) -> StoreAnswer | None:
    return _NOT_AGREED if (told.reported if event else told.asked) is None else None


class Committing:
    """The data set of a request or a report on its way in; what is too long is dropped."""

    def __init__(
        self, *, command: Command, context: AnsweredContext, told: Told, limits: Limits
    ) -> None:
        self._command = command
        self._explicit = context.transfer_syntax == EXPLICIT_LITTLE
        self._told = told
        self._limits = limits
        self._data = bytearray()
        self._size = 0

    def write(self, chunks: Sequence[memoryview]) -> None:
        """The next bytes of the data set."""
        self._size += sum(map(len, chunks))
        if self._size <= self._limits.commitment_bytes:
            for chunk in chunks:
                self._data += chunk
        else:
            self._data.clear()

    def finish(self) -> StoreAnswer:
        """The data set is whole: the status to answer."""
        if self._size > self._limits.commitment_bytes:
            return StoreAnswer(
                status=status.RESOURCE_LIMITATION, comment="the data set is too long"
            )
        if self._command.field == dimse.N_EVENT_REPORT_RQ:
            return self._report()
        return self._request()

    def abort(self) -> None:
        """The data set will not be whole."""
        self._data.clear()

    def _request(self) -> StoreAnswer:
        content = decode_request(
            memoryview(self._data),
            explicit=self._explicit,
            references_max=self._limits.references_max,
        )
        return _passed_on(content, self._told.asked)

    def _report(self) -> StoreAnswer:
        content = decode_report(
            memoryview(self._data),
            explicit=self._explicit,
            references_max=self._limits.references_max,
            event_type=self._command.event_type or 0,
            sender_ae=self._told.sender_ae,
        )
        return _passed_on(content, self._told.reported)


def _passed_on(content: C | StoreAnswer, take: Callable[[C], StoreAnswer] | None) -> StoreAnswer:
    if isinstance(content, StoreAnswer):
        return content
    if take is None:
        return _NOT_AGREED
    answer = asked(lambda: take(content))
    if answer.status == status.OUT_OF_RESOURCES:  # of Storage; this service has its own
        return StoreAnswer(status=status.RESOURCE_LIMITATION, comment=answer.comment)
    return answer
