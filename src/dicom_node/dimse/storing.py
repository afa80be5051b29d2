"""One C-STORE: checks before belief, then the data set into the sink (PS3.7 §9.1.1, PS3.4 §B.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dicom_node.dimse import status
from dicom_node.dimse.answers import asked
from dicom_node.dimse.command import AFFECTED_CLASS, AFFECTED_INSTANCE, Command
from dicom_node.dimse.contexts import NOT_STORED
from dicom_node.dimse.contract import Sink, StoreAnswer, StoreRequest
from dicom_node.dimse.part10 import file_head
from dicom_node.dimse.pdu import AnsweredContext
from dicom_node.domain.identifiers import is_uid


def refusal(command: Command, context: AnsweredContext) -> StoreAnswer | None:
    """What is wrong with a C-STORE request before its data set is seen; None if nothing."""
    if context.abstract_syntax in NOT_STORED:
        return StoreAnswer(status=status.CLASS_NOT_SUPPORTED, comment="not a Storage SOP Class")
    if not command.sop_class:
        return StoreAnswer(
            status=status.MISTYPED_ARGUMENT,
            comment="Affected SOP Class UID is missing",
            offending=(AFFECTED_CLASS,),
        )
    if command.sop_class != context.abstract_syntax:
        return StoreAnswer(
            status=status.CLASS_NOT_SUPPORTED,
            comment="SOP Class is not that of the presentation context",
            offending=(AFFECTED_CLASS,),
        )
    if not command.sop_instance:
        return StoreAnswer(
            status=status.MISTYPED_ARGUMENT,
            comment="Affected SOP Instance UID is missing",
            offending=(AFFECTED_INSTANCE,),
        )
    if not is_uid(command.sop_instance):
        return StoreAnswer(
            status=status.INVALID_INSTANCE,
            comment="Affected SOP Instance UID is not a UID",
            offending=(AFFECTED_INSTANCE,),
        )
    if not command.has_data_set:
        return StoreAnswer(status=status.MISTYPED_ARGUMENT, comment="the data set is missing")
    return None


class Storing:
    """The object on its way in; once it is refused, its bytes are dropped as they come."""

    def __init__(
        self,
        begin: Callable[[StoreRequest], Sink | StoreAnswer],
        request: StoreRequest,
        object_bytes: int,
    ) -> None:
        self._object_bytes = object_bytes
        self._size = 0
        self._sink: Sink | None = None
        self._answer: StoreAnswer | None = None
        opened = asked(lambda: begin(request))
        if isinstance(opened, StoreAnswer):
            self._answer = opened
            return
        self._sink = opened
        head = file_head(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
        )
        self._pass_on(opened, (head,))

    def write(self, chunks: Sequence[memoryview]) -> None:
        """The next bytes of the data set."""
        self._size += sum(map(len, chunks))
        if self._sink is not None and self._size > self._object_bytes:
            self._refuse(StoreAnswer(status=status.OUT_OF_RESOURCES, comment="object too large"))
        if self._sink is not None:
            self._pass_on(self._sink, chunks)

    def finish(self) -> StoreAnswer:
        """The data set is whole: the status to answer."""
        if self._sink is not None and self._size == 0:
            self._refuse(
                StoreAnswer(status=status.CANNOT_UNDERSTAND, comment="the data set is empty")
            )
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._answer = asked(sink.finish)
        return self._answer or StoreAnswer(status=status.PROCESSING_FAILURE)

    def abort(self) -> None:
        """The data set will not be whole."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            asked(sink.abort)

    def _pass_on(self, sink: Sink, chunks: Sequence[memoryview | bytes]) -> None:
        failed = asked(lambda: sink.write(chunks))
        if failed is not None:
            self._refuse(failed)

    def _refuse(self, answer: StoreAnswer) -> None:
        self._answer = answer
        self.abort()
