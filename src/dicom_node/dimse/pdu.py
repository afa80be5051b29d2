"""The PDUs of PS3.8 §9.3 that are not P-DATA: bytes to values, values to bytes. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dicom_node.dimse.contract import Rejection
from dicom_node.dimse.status import (
    INVALID_PARAMETER,
    UNEXPECTED_PARAMETER,
    Abort,
)
from dicom_node.domain.errors import PeerError
from dicom_node.domain.security import Identity

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 0x01, 0x02, 0x03
P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 0x04, 0x05, 0x06, 0x07

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 §A.2.1
CONTEXTS_MAX = 128  # odd identifiers from 1 to 255 (PS3.8 §9.3.2.2)
SYNTAXES_MAX = 128  # of a context: twice as many as there are
_ITEMS_MAX = 512  # side by side elsewhere: four for each context, known or not
_ASSUMED_MAX_PDU = 16384  # of a peer that does not say; the usual default
_USER_IDENTITY, _IDENTITY_ACCEPTED = 0x58, 0x59
_FIXED_BYTES = 68  # of an A-ASSOCIATE body, before its items (PS3.8 Table 9-11)


class ProtocolError(PeerError):
    """The peer broke the protocol; `abort` is what it is told."""

    def __init__(self, message: str, abort: Abort = INVALID_PARAMETER) -> None:
        self.abort = abort
        super().__init__(message, permanent=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedContext:
    """A presentation context of an A-ASSOCIATE-RQ (PS3.8 Table 9-13)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredContext:
    """A presentation context of an A-ASSOCIATE-AC; result 0 is acceptance (PS3.8 Table 9-18)."""

    context_id: int
    result: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What the requestor proposes to be, or may be, for a SOP Class (PS3.7 §D.3.3.4)."""

    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ. max_pdu: 0 is no limit. echoed: the 64 bytes that the answer repeats."""

    protocol_version: int
    called_ae: str
    calling_ae: str
    echoed: bytes
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_pdu: int
    roles: Mapping[str, Roles] = field(default_factory=dict)
    identity: Identity | None = None


def decode_associate_rq(body: bytes | bytearray) -> AssociateRequest:
    """Read the body of an A-ASSOCIATE-RQ, after its six bytes of header (PS3.8 §9.3.2).

    Items that the standard does not know are ignored. Raises ProtocolError.
    """
    if len(body) < _FIXED_BYTES:
        raise ProtocolError("the A-ASSOCIATE-RQ is too short")
    data = memoryview(body)
    application_context: str | None = None
    contexts: list[ProposedContext] = []
    user: memoryview | None = None
    for kind, item in _items(data[_FIXED_BYTES:]):
        if kind == 0x10 and application_context is None:
            application_context = _text(item)
        elif kind == 0x20:
            if len(contexts) == CONTEXTS_MAX:
                raise ProtocolError("the presentation contexts are too many")
            contexts.append(_proposed_context(item))
        elif kind == 0x50 and user is None:
            user = item
        elif kind in (0x10, 0x50):
            raise ProtocolError("an item of the A-ASSOCIATE-RQ stands twice", UNEXPECTED_PARAMETER)
    if application_context is None or not contexts or user is None:
        raise ProtocolError("the A-ASSOCIATE-RQ lacks an item that it must have")
    if len({context.context_id for context in contexts}) != len(contexts):
        raise ProtocolError("presentation contexts share an identifier")
    max_pdu, roles = _user_information(user)
    return AssociateRequest(
        protocol_version=int.from_bytes(data[0:2], "big"),
        called_ae=_text(data[4:20]),
        calling_ae=_text(data[20:36]),
        echoed=bytes(data[4:68]),
        application_context=application_context,
        contexts=tuple(contexts),
        max_pdu=max_pdu,
        roles=roles,
        identity=_identity(user),
    )


def _items(data: memoryview, most: int = _ITEMS_MAX) -> Iterator[tuple[int, memoryview]]:
    """Each item's type and value; ProtocolError as soon as they are cut, or more than `most`."""
    offset = count = 0
    while offset < len(data):
        count += 1
        if count > most:
            raise ProtocolError("an A-ASSOCIATE PDU has more items than anything needs")
        if len(data) - offset < 4:
            raise ProtocolError("an item header is cut short")
        length = int.from_bytes(data[offset + 2 : offset + 4], "big")
        if length > len(data) - offset - 4:
            raise ProtocolError("an item is longer than what holds it")
        yield data[offset], data[offset + 4 : offset + 4 + length]
        offset += 4 + length


def _text(value: memoryview) -> str:
    return bytes(value).decode("latin-1").strip(" \0")


def _proposed_context(item: memoryview) -> ProposedContext:
    if len(item) < 4 or item[0] % 2 == 0:
        raise ProtocolError("a presentation context has no odd identifier")
    abstract: str | None = None
    transfer: list[str] = []
    for kind, sub_item in _items(item[4:], 1 + SYNTAXES_MAX):
        if kind == 0x30 and abstract is None:
            abstract = _text(sub_item)
        elif kind == 0x30:
            raise ProtocolError("a context has two abstract syntaxes", UNEXPECTED_PARAMETER)
        elif kind == 0x40:
            transfer.append(_text(sub_item))
    if abstract is None or not transfer:
        raise ProtocolError("a presentation context lacks a syntax")
    return ProposedContext(
        context_id=item[0], abstract_syntax=abstract, transfer_syntaxes=tuple(transfer)
    )


def _user_information(item: memoryview) -> tuple[int, dict[str, Roles]]:
    max_pdu, roles = _ASSUMED_MAX_PDU, dict[str, Roles]()
    for kind, value in _items(item):
        if kind == 0x51:
            if len(value) != 4:
                raise ProtocolError("the maximum length item is not four bytes long")
            max_pdu = int.from_bytes(value, "big")
        elif kind == 0x54:
            sop_class, proposed = _roles(value)
            roles[sop_class] = proposed
    if 0 < max_pdu < 7:  # not one byte of a message would fit
        raise ProtocolError("the maximum length is too small for any message")
    return max_pdu, roles


def _roles(value: memoryview) -> tuple[str, Roles]:
    length = int.from_bytes(value[:2], "big")
    if len(value) < 4 or length != len(value) - 4:
        raise ProtocolError("a role selection item does not fit its length")
    return _text(value[2 : 2 + length]), Roles(scu=value[-2] == 1, scp=value[-1] == 1)


def _identity(user: memoryview) -> Identity | None:
    """The User Identity item of a request, whatever its type (PS3.7 Table D.3-14)."""
    found = [value for kind, value in _items(user) if kind == _USER_IDENTITY]
    if not found:
        return None
    if len(found) > 1:
        raise ProtocolError("there are two user identities", UNEXPECTED_PARAMETER)
    (value,) = found
    first = int.from_bytes(value[2:4], "big")
    second = int.from_bytes(value[4 + first : 6 + first], "big")
    if len(value) < 6 or len(value) != 6 + first + second:
        raise ProtocolError("a user identity does not fit its lengths")
    return Identity(
        kind=value[0],
        wants_answer=value[1] == 1,
        primary=bytes(value[4 : 4 + first]),
        secondary=bytes(value[6 + first :]),
    )


def encode_associate_rq(
    *,
    called_ae: str,
    calling_ae: str,
    contexts: Sequence[ProposedContext],
    roles: Mapping[str, Roles],
    max_pdu: int,
    implementation: tuple[str, str],
) -> bytes:
    """Write an A-ASSOCIATE-RQ (PS3.8 §9.3.2); AE titles must be such."""
    items = _item(0x10, APPLICATION_CONTEXT.encode())
    for context in contexts:
        syntaxes = b"".join(_item(0x40, uid.encode()) for uid in context.transfer_syntaxes)
        head = bytes((context.context_id, 0, 0, 0))
        items += _item(0x20, head + _item(0x30, context.abstract_syntax.encode()) + syntaxes)
    items += _user_item(roles, max_pdu, implementation)
    titles = called_ae.encode("ascii").ljust(16) + calling_ae.encode("ascii").ljust(16)
    return _pdu(ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + titles + bytes(32) + items)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateAnswer:
    """An A-ASSOCIATE-AC. contexts: identifier -> result, transfer syntax. max_pdu: 0 is no limit.

    roles: what the acceptor lets the requestor be, where it answers a proposal.
    """

    contexts: Mapping[int, tuple[int, str]]
    max_pdu: int
    roles: Mapping[str, Roles]


def decode_associate_ac(body: bytes) -> AssociateAnswer:
    """Read the body of an A-ASSOCIATE-AC (PS3.8 §9.3.3); raises ProtocolError."""
    if len(body) < _FIXED_BYTES:
        raise ProtocolError("the A-ASSOCIATE-AC is too short")
    contexts: dict[int, tuple[int, str]] = {}
    max_pdu, roles = _ASSUMED_MAX_PDU, dict[str, Roles]()
    for kind, item in _items(memoryview(body)[_FIXED_BYTES:]):
        if kind == 0x21:
            if len(item) < 4:
                raise ProtocolError("a presentation context is cut short")
            syntaxes = [_text(value) for sub, value in _items(item[4:]) if sub == 0x40]
            contexts[item[0]] = (item[2], syntaxes[0] if syntaxes else "")
        elif kind == 0x50:
            max_pdu, roles = _user_information(item)
    return AssociateAnswer(contexts=contexts, max_pdu=max_pdu, roles=roles)


def encode_associate_ac(
    *,
    echoed: bytes,
    contexts: Sequence[AnsweredContext],
    roles: Mapping[str, Roles],
    max_pdu: int,
    implementation: tuple[str, str],
    identified: bool = False,
) -> bytes:
    """Write an A-ASSOCIATE-AC (PS3.8 §9.3.3); implementation: class UID and version name.

    identified: says that the user identity was accepted; there is nothing to say beside, for name
    and passcode (PS3.7 Table D.3-15).
    """
    items = _item(0x10, APPLICATION_CONTEXT.encode())
    for context in contexts:
        head = bytes((context.context_id, 0, context.result, 0))
        items += _item(0x21, head + _item(0x40, context.transfer_syntax.encode()))
    accepted = _item(_IDENTITY_ACCEPTED, bytes(2)) if identified else b""
    items += _user_item(roles, max_pdu, implementation, accepted)
    return _pdu(ASSOCIATE_AC, struct.pack(">HH", 1, 0) + echoed + items)


def _user_item(
    roles: Mapping[str, Roles], max_pdu: int, implementation: tuple[str, str], more: bytes = b""
) -> bytes:
    user = _item(0x51, struct.pack(">I", max_pdu)) + _item(0x52, implementation[0].encode())
    for sop_class, role in roles.items():
        uid = sop_class.encode("latin-1")
        user += _item(0x54, struct.pack(">H", len(uid)) + uid + bytes((role.scu, role.scp)))
    return _item(0x50, user + _item(0x55, implementation[1].encode()) + more)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def encode_associate_rj(rejection: Rejection) -> bytes:
    """Write an A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""
    return _pdu(ASSOCIATE_RJ, bytes((0, rejection.result, rejection.source, rejection.reason)))


def encode_abort(abort: Abort) -> bytes:
    """Write an A-ABORT (PS3.8 §9.3.8)."""
    return _pdu(ABORT, bytes((0, 0, abort.source, abort.reason)))


def encode_release_rq() -> bytes:
    """Write an A-RELEASE-RQ (PS3.8 §9.3.6)."""
    return _pdu(RELEASE_RQ, bytes(4))


def encode_release_rp() -> bytes:
    """Write an A-RELEASE-RP (PS3.8 §9.3.7)."""
    return _pdu(RELEASE_RP, bytes(4))
