"""Fragments put together to messages: a command set, then its data set (PS3.7 §6.3.1). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.dimse.command import C_STORE_RQ, Command, decode_command
from dicom_node.dimse.contract import Limits
from dicom_node.dimse.pdu import ProtocolError
from dicom_node.dimse.status import BY_US, UNEXPECTED_PARAMETER
from dicom_node.dimse.stream import Fragment


@dataclass(slots=True)
class CommandSet:
    """A whole command set."""

    context_id: int
    command: Command


@dataclass(slots=True)
class DataSetPart:
    """The next bytes of the data set that belongs to the last command set."""

    data: memoryview
    last: bool


class Assembler:
    """Holds at most one command set, and no data set at all: that is counted, wanted or not."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._command = bytearray()
        self._context_id = 0
        self._in_command = False
        self._in_data_set = False
        self._data_left = 0  # that the data set may have

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._in_command or self._in_data_set

    def take(self, fragment: Fragment) -> CommandSet | DataSetPart | None:
        """The fragment's meaning, or None while a command set is not whole; ProtocolError."""
        if fragment.command == self._in_data_set or not (fragment.command or self.mid_message):
            raise ProtocolError(
                "command set and data set do not follow one another", UNEXPECTED_PARAMETER
            )
        if self.mid_message and fragment.context_id != self._context_id:
            raise ProtocolError("a message changes its presentation context", UNEXPECTED_PARAMETER)
        if not fragment.command:
            self._in_data_set = not fragment.last
            self._data_left -= len(fragment.data)
            if self._data_left < 0:
                raise ProtocolError("the data set does not end", BY_US)
            return DataSetPart(fragment.data, fragment.last)
        self._in_command, self._context_id = True, fragment.context_id
        if len(self._command) + len(fragment.data) > self._limits.command_bytes:
            raise ProtocolError("the command set is longer than any may be")
        self._command += fragment.data
        if not fragment.last:
            return None
        command = decode_command(self._command)
        self._command.clear()
        self._in_command, self._in_data_set = False, command.has_data_set
        stores = command.field == C_STORE_RQ
        most = self._limits.object_bytes if stores else self._limits.commitment_bytes
        self._data_left = 2 * most
        return CommandSet(fragment.context_id, command)
