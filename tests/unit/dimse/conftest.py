"""Bytes of the upper layer as a peer would send them; requests are encoded by pynetdicom."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace

import pytest
from pynetdicom import build_context, build_role
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
INSTANCE = "1.2.826.0.1.3680043.2.1.1"


def associate_rq(
    contexts: Sequence[tuple[str, Sequence[str]]] = ((CT, (EXPLICIT,)),),
    roles: Mapping[str, tuple[bool, bool]] | None = None,
    max_pdu: int = 16384,
    calling: str = "SENDER",
    called: str = "DICOMNODE",
) -> bytes:
    """A whole A-ASSOCIATE-RQ with the contexts 1, 3, 5 ..."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = calling, called
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = "1.2.3.4"
    items = [build_role(u, scu_role=scu, scp_role=scp) for u, (scu, scp) in (roles or {}).items()]
    request.user_information = [length, implementation, *items]
    proposed = []
    for number, (abstract, transfer) in enumerate(contexts):
        context = build_context(abstract, list(transfer))
        context.context_id = 2 * number + 1
        proposed.append(context)
    request.presentation_context_definition_list = proposed
    encoded = A_ASSOCIATE_RQ()
    encoded.from_primitive(request)
    return encoded.encode()


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def command_set(elements: Mapping[int, int | str]) -> bytes:
    """A command set: numbers are US, texts are UIDs."""
    body = b""
    for number, value in sorted(elements.items()):
        if isinstance(value, int):
            body += element(number, struct.pack("<H", value))
        else:
            raw = value.encode("latin-1")
            body += element(number, raw + b"\0" * (len(raw) % 2))
    return element(0, struct.pack("<I", len(body))) + body


def c_store(message_id: int = 7, sop_class: str = CT, instance: str = INSTANCE) -> bytes:
    return command_set(
        {0x0002: sop_class, 0x0100: 1, 0x0110: message_id, 0x0700: 0, 0x0800: 1, 0x1000: instance}
    )


def c_echo(message_id: int = 1) -> bytes:
    return command_set(
        {0x0002: "1.2.840.10008.1.1", 0x0100: 0x30, 0x0110: message_id, 0x0800: 0x101}
    )


def pdv(data: bytes, context_id: int = 1, *, command: bool, last: bool = True) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, command | last << 1) + data


def p_data(*values: bytes) -> bytes:
    return struct.pack(">BxI", 4, sum(map(len, values))) + b"".join(values)


class Caller:
    """A peer on a raw socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: its type and its body; (0, b"") when the connection is closed."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                return data
            data += more
        return data

    def associate(self, **request: object) -> A_ASSOCIATE_AC:
        """Ask for an association, and get it."""
        self.send(associate_rq(**request))
        kind, body = self.receive()
        assert kind == 2, (kind, body)
        answer = A_ASSOCIATE_AC()
        answer.decode(struct.pack(">BxI", kind, len(body)) + body)
        return answer

    def response(self) -> dict[int, bytes]:
        """The next response's command set, element number -> value; fragments are joined."""
        command, last = b"", False
        while not last:
            kind, body = self.receive()
            assert kind == 4, (kind, body)
            length, _, control = struct.unpack(">IBB", body[:6])
            assert length == len(body) - 4
            command += body[6:]
            last = bool(control & 2)
        elements, offset = {}, 0
        while offset < len(command):
            _, number, length = struct.unpack_from("<HHI", command, offset)
            elements[number] = command[offset + 8 : offset + 8 + length]
            offset += 8 + length
        return elements

    def status(self) -> int:
        return int.from_bytes(self.response()[0x0900], "little")

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def wire() -> Iterator[SimpleNamespace]:
    """The builders above, and call(port) -> Caller, closed afterwards."""
    callers: list[Caller] = []

    def call(port: int) -> Caller:
        callers.append(Caller(port))
        return callers[-1]

    yield SimpleNamespace(
        associate_rq=associate_rq,
        command_set=command_set,
        c_store=c_store,
        c_echo=c_echo,
        pdv=pdv,
        p_data=p_data,
        call=call,
        CT=CT,
        EXPLICIT=EXPLICIT,
        INSTANCE=INSTANCE,
        VERIFICATION="1.2.840.10008.1.1",
    )
    for caller in callers:
        caller.close()
