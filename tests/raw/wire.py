"""Bytes of the upper layer as a peer would send them; requests are encoded by pynetdicom."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence

from pynetdicom import build_context, build_role
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
INSTANCE = "1.2.826.0.1.3680043.2.1.1"
ABORT = bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0])
RELEASE = bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0])
TIMED_OUT = -1  # in place of a PDU type


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
    return command_set({0x0002: VERIFICATION, 0x0100: 0x30, 0x0110: message_id, 0x0800: 0x101})


def pdv(data: bytes, context_id: int = 1, *, command: bool, last: bool = True) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, command | last << 1) + data


def p_data(*values: bytes) -> bytes:
    return struct.pack(">BxI", 4, sum(map(len, values))) + b"".join(values)


def message(command: bytes, data_set: bytes | None, context_id: int = 1) -> bytes:
    """A command set and its data set as PDUs of at most 64 KiB."""
    pdus = [p_data(pdv(command, context_id, command=True))]
    if data_set is not None:
        room = 65536 - 12
        for start in range(0, max(len(data_set), 1), room):
            piece, last = data_set[start : start + room], start + room >= len(data_set)
            pdus.append(p_data(pdv(piece, context_id, command=False, last=last)))
    return b"".join(pdus)


class Caller:
    """A peer on a raw socket. source: its address, if not that of everybody else. tls: how it
    speaks TLS; raises OSError where that does not come about."""

    def __init__(
        self,
        port: int,
        timeout_s: float = 20.0,
        source: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0)
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            plain = self.socket
            try:
                self.socket = tls.wrap_socket(plain, server_hostname="localhost")
            except OSError:
                plain.close()
                raise

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: its type and its body; (0, b"") when the connection is closed."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, self._exactly(length)

    def hear(self, within_s: float) -> tuple[int, bytes]:
        """As receive(), but (TIMED_OUT, b"") when nothing comes."""
        self.socket.settimeout(within_s)
        try:
            return self.receive()
        except TimeoutError:
            return TIMED_OUT, b""

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except (ConnectionResetError, ssl.SSLEOFError):
                more = b""
            if not more:
                break
            data += more
        return bytes(data)

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
            piece, last = fragment_of(body)
            command += piece
        return command_elements(command)

    def status(self) -> int:
        return int.from_bytes(self.response()[0x0900], "little")

    def close(self) -> None:
        self.socket.close()


def fragment_of(body: bytes) -> tuple[bytes, bool]:
    """The bytes of the only data value of a P-DATA PDU, and whether it is the last."""
    length, _, control = struct.unpack(">IBB", body[:6])
    assert length == len(body) - 4
    return body[6:], bool(control & 2)


def command_elements(command: bytes) -> dict[int, bytes]:
    """A command set as element number -> value."""
    elements, offset = {}, 0
    while offset < len(command):
        _, number, length = struct.unpack_from("<HHI", command, offset)
        elements[number] = command[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return elements


def echo(
    port: int,
    calling: str,
    within_s: float,
    *,
    called: str = "DICOMNODE",
    source: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> str:
    """A whole association for one C-ECHO: "" if it was answered in time."""
    until = time.monotonic() + within_s
    try:
        caller = Caller(port, within_s, source, tls)
    except OSError as error:
        return f"no connection: {type(error).__name__}"
    try:
        contexts = [(VERIFICATION, (EXPLICIT,))]
        caller.send(associate_rq(contexts, calling=calling, called=called))
        for awaited, data in ((2, p_data(pdv(c_echo(), command=True))), (4, RELEASE), (6, b"")):
            kind, body = caller.hear(max(until - time.monotonic(), 0.001))
            if kind != awaited:
                return f"{in_words(kind, body)} in place of an answer"
            caller.send(data)
    except OSError as error:
        return f"broken off: {type(error).__name__}"
    finally:
        caller.close()
    return ""


def in_words(kind: int, body: bytes) -> str:
    """A PDU that is no response, as the tables have it."""
    if kind == 3:
        return "RJ " + ",".join(map(str, body[1:4]))
    if kind == 7:
        return f"abort {body[2]},{body[3]}"
    return {TIMED_OUT: "silence", 0: "closed", 2: "accepted", 6: "released"}.get(
        kind, f"PDU {kind}"
    )
