"""Command sets (PS3.7 §6.3, Annex E): implicit VR little endian to values and back. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_node.dimse.pdu import ProtocolError

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF  # PS3.7 Table E.1-1
RESPONSE = 0x8000
NO_DATA_SET = 0x0101  # PS3.7 §E.1: any other value says that a data set follows

_GROUP_LENGTH, _AFFECTED_CLASS, _FIELD = 0x0000, 0x0002, 0x0100
_MESSAGE_ID, _RESPONDED_TO, _DATA_SET_TYPE, _STATUS = 0x0110, 0x0120, 0x0800, 0x0900
_COMMENT, _AFFECTED_INSTANCE = 0x0902, 0x1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The elements of a command set that an SCP of Storage and Verification looks at.

    A UID that is absent is ""; what is present is as received, not yet judged.
    """

    field: int
    message_id: int | None
    affected_class: str
    affected_instance: str
    has_data_set: bool


def decode_command(data: bytes | bytearray) -> Command:
    """Read a command set; raises ProtocolError if it is malformed or lacks what all must have."""
    elements = _elements(data)
    command_field, data_set = _number(elements, _FIELD), _number(elements, _DATA_SET_TYPE)
    if command_field is None or data_set is None:
        raise ProtocolError("the command set lacks its command field or data set type")
    return Command(
        field=command_field,
        message_id=_number(elements, _MESSAGE_ID),
        affected_class=_uid(elements, _AFFECTED_CLASS),
        affected_instance=_uid(elements, _AFFECTED_INSTANCE),
        has_data_set=data_set != NO_DATA_SET,
    )


def _elements(data: bytes | bytearray) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        if len(data) - offset < 8:
            raise ProtocolError("an element of the command set is cut short")
        group, element, length = struct.unpack_from("<HHI", data, offset)
        offset += 8
        if group != 0 or length > len(data) - offset:
            raise ProtocolError("an element of the command set is foreign, or too long")
        elements[element] = bytes(data[offset : offset + length])
        offset += length
    return elements


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element)
    if value is None:
        return None
    if len(value) != 2:
        raise ProtocolError("a number of the command set is not two bytes long")
    return int.from_bytes(value, "little")


def _uid(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("latin-1").rstrip(" \0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response without a data set; texts that are "" are left out."""

    field: int
    responded_to: int
    status: int
    affected_class: str = ""
    affected_instance: str = ""
    comment: str = ""


def encode_response(response: Response) -> bytes:
    """Write the command set of a response (PS3.7 §9.3): elements in ascending order."""
    body = b"".join(
        (
            _text(_AFFECTED_CLASS, response.affected_class, b"\0"),
            struct.pack("<HHIH", 0, _FIELD, 2, response.field),
            struct.pack("<HHIH", 0, _RESPONDED_TO, 2, response.responded_to),
            struct.pack("<HHIH", 0, _DATA_SET_TYPE, 2, NO_DATA_SET),
            struct.pack("<HHIH", 0, _STATUS, 2, response.status),
            _text(_COMMENT, response.comment, b" "),
            _text(_AFFECTED_INSTANCE, response.affected_instance, b"\0"),
        )
    )
    return struct.pack("<HHII", 0, _GROUP_LENGTH, 4, len(body)) + body


def _text(element: int, text: str, pad: bytes) -> bytes:
    if not text:
        return b""
    value = text.encode("ascii", "replace")
    value += pad * (len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value


def encode_message(command: bytes, context_id: int, max_pdu: int) -> bytes:
    """Put a command set into P-DATA PDUs that the peer can take (PS3.8 §9.3.5); 0 is no limit."""
    room = max_pdu - 6 if max_pdu else len(command)
    pieces = []
    for start in range(0, len(command), room):
        piece = command[start : start + room]
        control = 3 if start + room >= len(command) else 1
        length = len(piece) + 2
        pieces.append(struct.pack(">BxIIBB", 0x04, length + 4, length, context_id, control) + piece)
    return b"".join(pieces)
