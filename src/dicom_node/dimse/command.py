"""Command sets (PS3.7 §6.3, Annex E): implicit VR little endian to values and back. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_node.dimse.pdu import ProtocolError

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF  # PS3.7 Table E.1-1
N_EVENT_REPORT_RQ, N_ACTION_RQ = 0x0100, 0x0130
_REQUESTING = frozenset({0x0110, 0x0120, N_ACTION_RQ, 0x0150})  # they name a Requested SOP Class
RESPONSE = 0x8000
NO_DATA_SET = 0x0101  # PS3.7 §E.1: any other value says that a data set follows
_DATA_SET_FOLLOWS = 0x0001
_PDU_BYTES = 128 * 1024  # to a peer without a limit

NAMES = {  # PS3.7 Table E.1-1
    C_STORE_RQ: "C-STORE",
    0x0010: "C-GET",
    0x0020: "C-FIND",
    0x0021: "C-MOVE",
    C_ECHO_RQ: "C-ECHO",
    N_EVENT_REPORT_RQ: "N-EVENT-REPORT",
    0x0110: "N-GET",
    0x0120: "N-SET",
    N_ACTION_RQ: "N-ACTION",
    0x0140: "N-CREATE",
    0x0150: "N-DELETE",
}
AFFECTED_CLASS, AFFECTED_INSTANCE = 0x00000002, 0x00001000  # as Offending Element

_GROUP_LENGTH, _AFFECTED_CLASS, _REQUESTED_CLASS, _FIELD = 0x0000, 0x0002, 0x0003, 0x0100
_MESSAGE_ID, _RESPONDED_TO, _DATA_SET_TYPE, _STATUS = 0x0110, 0x0120, 0x0800, 0x0900
_OFFENDING, _COMMENT, _AFFECTED_INSTANCE, _REQUESTED_INSTANCE = 0x0901, 0x0902, 0x1000, 0x1001
_EVENT_TYPE, _ACTION_TYPE = 0x1002, 0x1008


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The elements of a command set that somebody here looks at.

    sop_class, sop_instance: Affected, or Requested for the services that request (PS3.7 §E.1).
    A UID that is absent is ""; what is present is as received, not yet judged.
    """

    field: int
    message_id: int | None
    sop_class: str
    sop_instance: str
    has_data_set: bool
    responded_to: int | None = None
    status: int | None = None
    comment: str = ""
    event_type: int | None = None
    action_type: int | None = None


def decode_command(data: bytes | bytearray) -> Command:
    """Read a command set; raises ProtocolError if it is malformed or lacks what all must have."""
    elements = _elements(data)
    command_field, data_set = _number(elements, _FIELD), _number(elements, _DATA_SET_TYPE)
    if command_field is None or data_set is None:
        raise ProtocolError("the command set lacks its command field or data set type")
    named = (_AFFECTED_CLASS, _AFFECTED_INSTANCE)
    if command_field in _REQUESTING:
        named = (_REQUESTED_CLASS, _REQUESTED_INSTANCE)
    return Command(
        field=command_field,
        message_id=_number(elements, _MESSAGE_ID),
        sop_class=_text_of(elements, named[0]),
        sop_instance=_text_of(elements, named[1]),
        has_data_set=data_set != NO_DATA_SET,
        responded_to=_number(elements, _RESPONDED_TO),
        status=_number(elements, _STATUS),
        comment=_text_of(elements, _COMMENT),
        event_type=_number(elements, _EVENT_TYPE),
        action_type=_number(elements, _ACTION_TYPE),
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
        if element in elements:
            raise ProtocolError("an element comes twice in the command set")
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


def _text_of(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("latin-1").rstrip(" \0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response without a data set; texts that are "" and numbers that are None are left out."""

    field: int
    responded_to: int
    status: int
    affected_class: str = ""
    affected_instance: str = ""
    offending: tuple[int, ...] = ()
    comment: str = ""
    event_type: int | None = None
    action_type: int | None = None


def encode_response(response: Response) -> bytes:
    """Write the command set of a response (PS3.7 §9.3, §10.3): elements in ascending order."""
    return _command_set(
        _text(_AFFECTED_CLASS, response.affected_class, b"\0"),
        _short(_FIELD, response.field),
        _short(_RESPONDED_TO, response.responded_to),
        _short(_DATA_SET_TYPE, NO_DATA_SET),
        _short(_STATUS, response.status),
        _tags(_OFFENDING, response.offending),
        _text(_COMMENT, response.comment, b" "),
        _text(_AFFECTED_INSTANCE, response.affected_instance, b"\0"),
        _short(_EVENT_TYPE, response.event_type),
        _short(_ACTION_TYPE, response.action_type),
    )


def encode_event_report(
    *, message_id: int, sop_class: str, sop_instance: str, event_type: int
) -> bytes:
    """Write the command set of an N-EVENT-REPORT-RQ that a data set follows (PS3.7 §10.3.1.1)."""
    return _command_set(
        _text(_AFFECTED_CLASS, sop_class, b"\0"),
        _short(_FIELD, N_EVENT_REPORT_RQ),
        _short(_MESSAGE_ID, message_id),
        _short(_DATA_SET_TYPE, _DATA_SET_FOLLOWS),
        _text(_AFFECTED_INSTANCE, sop_instance, b"\0"),
        _short(_EVENT_TYPE, event_type),
    )


def encode_action(*, message_id: int, sop_class: str, sop_instance: str, action_type: int) -> bytes:
    """Write the command set of an N-ACTION-RQ that a data set follows (PS3.7 §10.3.4.1)."""
    return _command_set(
        _text(_REQUESTED_CLASS, sop_class, b"\0"),
        _short(_FIELD, N_ACTION_RQ),
        _short(_MESSAGE_ID, message_id),
        _short(_DATA_SET_TYPE, _DATA_SET_FOLLOWS),
        _text(_REQUESTED_INSTANCE, sop_instance, b"\0"),
        _short(_ACTION_TYPE, action_type),
    )


def _command_set(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return struct.pack("<HHII", 0, _GROUP_LENGTH, 4, len(body)) + body


def _short(element: int, number: int | None) -> bytes:
    return b"" if number is None else struct.pack("<HHIH", 0, element, 2, number)


def _tags(element: int, tags: tuple[int, ...]) -> bytes:
    if not tags:
        return b""
    value = b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in tags)
    return struct.pack("<HHI", 0, element, len(value)) + value


def _text(element: int, text: str, pad: bytes) -> bytes:
    if not text:
        return b""
    value = text.encode("ascii", "replace")
    value += pad * (len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value


def encode_message(command: bytes, context_id: int, max_pdu: int, data_set: bytes = b"") -> bytes:
    """Put a message into P-DATA PDUs that the peer can take (PS3.8 §9.3.5); 0 is no limit.

    data_set: b"" if the message has none.
    """
    room = (max_pdu or _PDU_BYTES) - 6
    parts = [_fragments(command, context_id, 1, room)]
    if data_set:
        parts.append(_fragments(data_set, context_id, 0, room))
    return b"".join(parts)


def _fragments(data: bytes, context_id: int, kind: int, room: int) -> bytes:
    pieces = []
    for start in range(0, len(data), room):
        piece = data[start : start + room]
        control = kind | (2 if start + room >= len(data) else 0)
        length = len(piece) + 2
        pieces.append(struct.pack(">BxIIBB", 0x04, length + 4, length, context_id, control) + piece)
    return b"".join(pieces)
