"""A sender that costs next to nothing: PDUs encoded beforehand, one blocking socket.

Each instance waits for its response, as with any sender that offers no asynchronous operations.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """data_set: encoded as the association's transfer syntax has it."""

    sop_instance_uid: str
    data_set: bytes


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What one association is for."""

    calling_ae: str = "BENCH"
    called_ae: str = "RECEIVER"
    sop_class_uid: str = CT
    transfer_syntax_uid: str = EXPLICIT

    def encoded(self) -> bytes:
        """The A-ASSOCIATE-RQ PDU."""
        request = A_ASSOCIATE()
        request.application_context_name = "1.2.840.10008.3.1.1.1"
        request.calling_ae_title, request.called_ae_title = self.calling_ae, self.called_ae
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received = 131072
        implementation.implementation_class_uid = "1.2.826.0.1.3680043.2.7"
        request.user_information = [length, implementation]
        context = build_context(self.sop_class_uid, [self.transfer_syntax_uid])
        context.context_id = 1
        request.presentation_context_definition_list = [context]
        encoded = A_ASSOCIATE_RQ()
        encoded.from_primitive(request)
        return encoded.encode()


def message(number: int, instance: Instance, sop_class_uid: str, max_pdu: int) -> bytes:
    """A C-STORE request as its PDUs."""

    def element(tag: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, tag, len(value)) + value

    def uid(text: str) -> bytes:
        return text.encode() + b"\0" * (len(text) % 2)

    body = element(0x0002, uid(sop_class_uid)) + element(0x0100, struct.pack("<H", 1))
    body += element(0x0110, struct.pack("<H", number % 65535)) + element(0x0700, bytes(2))
    body += element(0x0800, struct.pack("<H", 1))
    body += element(0x1000, uid(instance.sop_instance_uid))
    command = element(0, struct.pack("<I", len(body))) + body
    pieces = []
    for data, control in ((command, 1), (instance.data_set, 0)):
        room = max_pdu - 6
        for start in range(0, len(data), room):
            piece = data[start : start + room]
            last = 2 if start + room >= len(data) else 0
            length = len(piece) + 2
            head = struct.pack(">BxIIBB", 4, length + 4, length, 1, control | last)
            pieces.append(head + piece)
    return b"".join(pieces)


class Sender:
    """One association. pace_s: an instance is not sent sooner than so long after the last."""

    def __init__(
        self,
        port: int,
        work: Sequence[tuple[int, Instance]],
        proposal: Proposal | None = None,
        *,
        pace_s: float = 0.0,
    ) -> None:
        proposal = proposal or Proposal()
        self.socket = connected(port)
        self.socket.sendall(proposal.encoded())
        kind, body = self.receive()
        if kind != 2:
            raise SystemExit(f"the receiver answered the association request with PDU {kind}")
        at = body.index(b"\x51\x00\x00\x04", 68)
        max_pdu = min(int.from_bytes(body[at + 4 : at + 8], "big") or 131072, 131072)
        self.messages = [message(n, one, proposal.sop_class_uid, max_pdu) for n, one in work]
        self.waits_s: list[float] = []
        self.failures = 0
        self._pace_s = pace_s

    def receive(self) -> tuple[int, bytes]:
        header = self.exactly(6)
        return header[0], self.exactly(int.from_bytes(header[2:], "big"))

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise SystemExit("the receiver closed the connection")
            data += more
        return data

    def run(self) -> None:
        due_at = 0.0
        for one in self.messages:
            time.sleep(max(0.0, due_at - time.perf_counter()))
            due_at = time.perf_counter() + self._pace_s
            self.socket.sendall(one)
            sent_at = time.perf_counter()
            _, body = self.receive()
            self.waits_s.append(time.perf_counter() - sent_at)
            self.failures += status_of(body[6:]) != 0

    def release(self) -> None:
        self.socket.sendall(bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
        self.receive()
        self.socket.close()


def connected(port: int) -> socket.socket:
    until = time.monotonic() + 30
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection


def status_of(command: bytes) -> int:
    offset = 0
    while offset < len(command):
        _, tag, length = struct.unpack_from("<HHI", command, offset)
        if tag == 0x0900:
            return int.from_bytes(command[offset + 8 : offset + 10], "little")
        offset += 8 + length
    return -1
