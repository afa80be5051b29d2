"""A sender that costs next to nothing: PDUs encoded beforehand, one blocking socket.

Each instance waits for its response, as with any sender that offers no asynchronous operations.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
LARGEST_PDU = 131072
RELEASE = bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0])


@dataclass(frozen=True, kw_only=True)
class Instance:
    """data_set: encoded as the association's transfer syntax has it."""

    sop_instance_uid: str
    data_set: bytes


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What one association is for. max_pdu: none is sent that is longer."""

    calling_ae: str = "BENCH"
    called_ae: str = "RECEIVER"
    sop_class_uid: str = CT
    transfer_syntax_uid: str = EXPLICIT
    max_pdu: int = LARGEST_PDU

    def encoded(self) -> bytes:
        """The A-ASSOCIATE-RQ PDU."""
        return _encoded(self)


@cache
def _encoded(proposal: Proposal) -> bytes:
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = proposal.calling_ae, proposal.called_ae
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = LARGEST_PDU
    implementation.implementation_class_uid = "1.2.826.0.1.3680043.2.7"
    request.user_information = [length, implementation]
    context = build_context(proposal.sop_class_uid, [proposal.transfer_syntax_uid])
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    encoded = A_ASSOCIATE_RQ()
    encoded.from_primitive(request)
    return encoded.encode()


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, tag, len(value)) + value


def command_set(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return element(0, struct.pack("<I", len(body))) + body


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def store_command(number: int, sop_instance_uid: str, sop_class_uid: str) -> bytes:
    """The command set of a C-STORE request."""
    return command_set(
        element(0x0002, uid(sop_class_uid)),
        element(0x0100, struct.pack("<H", 1)),
        element(0x0110, struct.pack("<H", number % 65535)),
        element(0x0700, bytes(2)),
        element(0x0800, struct.pack("<H", 1)),
        element(0x1000, uid(sop_instance_uid)),
    )


ECHO_COMMAND = command_set(
    element(0x0002, uid(VERIFICATION)),
    element(0x0100, struct.pack("<H", 0x30)),
    element(0x0110, struct.pack("<H", 1)),
    element(0x0800, struct.pack("<H", 0x101)),
)


def pdus(data: Iterable[bytes], control: int, max_pdu: int) -> Iterator[bytes]:
    """P-DATA PDUs of one part of a message. control: 1 for a command set, 0 for a data set."""
    room, held = max_pdu - 6, bytearray()
    for piece in data:
        held += piece
        while len(held) > room:
            yield _pdu(held[:room], control)
            del held[:room]
    yield _pdu(held, control | 2)


def _pdu(piece: bytearray, control: int) -> bytes:
    return struct.pack(">BxIIBB", 4, len(piece) + 6, len(piece) + 2, 1, control) + piece


def message(number: int, instance: Instance, sop_class_uid: str, max_pdu: int) -> bytes:
    """A C-STORE request as its PDUs."""
    command = store_command(number, instance.sop_instance_uid, sop_class_uid)
    return b"".join((*pdus([command], 1, max_pdu), *pdus([instance.data_set], 0, max_pdu)))


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
        theirs = int.from_bytes(body[at + 4 : at + 8], "big") or proposal.max_pdu
        self.max_pdu = min(theirs, proposal.max_pdu)
        self.messages = [message(n, one, proposal.sop_class_uid, self.max_pdu) for n, one in work]
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
            self.send([one])

    def send(self, *parts: Iterable[bytes]) -> None:
        """A message as its PDUs, and its answer."""
        for part in chain(*parts):
            self.socket.sendall(part)
        sent_at = time.perf_counter()
        _, body = self.receive()
        self.waits_s.append(time.perf_counter() - sent_at)
        self.failures += status_of(body[6:]) != 0

    def release(self) -> None:
        self.socket.sendall(RELEASE)
        self.receive()
        self.socket.close()


def echo_s(port: int, proposal: Proposal) -> float:
    """Seconds of a whole association with one C-ECHO."""
    proposal.encoded()  # once, and not counted
    began_at = time.perf_counter()
    one = Sender(port, [], proposal)
    one.send(pdus([ECHO_COMMAND], 1, LARGEST_PDU))
    one.release()
    if one.failures:
        raise SystemExit("a C-ECHO failed")
    return time.perf_counter() - began_at


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
