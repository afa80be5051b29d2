"""What a hostile peer has in hand: connections that stay open, and words for what comes back."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pynetdicom.pdu import A_ASSOCIATE_AC

from raw import objects as o
from raw import wire
from raw.wire import CT, EXPLICIT, VERIFICATION, Caller

ATTACKER, SILENT = "ATTACKER", "SILENT"
"""Both may store. SILENT is one of whom the node bears little silence (`idle_s`)."""
Contexts = Sequence[tuple[str, Sequence[str]]]
CT_EXPLICIT: Contexts = ((CT, (EXPLICIT,)),)
WITH_ECHO: Contexts = (*CT_EXPLICIT, (VERIFICATION, (EXPLICIT,)))
_APPLICATION = b"1.2.840.10008.3.1.1.1"


@dataclass
class Attack:
    """One attack. numbers: for UIDs, never the same. long: as large as it ever is.

    patience_s: how long to wait for an answer that must come, and for silence to be called so.
    source: the address that it comes from. tls: how it speaks TLS, if it does.
    """

    port: int
    numbers: Iterator[int]
    long: bool = False
    patience_s: float = 20.0
    called: str = "DICOMNODE"
    source: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    callers: list[Caller] = field(default_factory=list)
    instance: str = field(init=False)

    def __post_init__(self) -> None:
        self.instance = self.new_uid()

    def calls(self, count: int) -> Iterator[Caller]:
        """So many new connections, or fewer where the peer takes them but slowly."""
        until = time.monotonic() + self.patience_s
        for _ in range(count):
            if time.monotonic() > until:
                return
            yield self.call()

    def new_uid(self) -> str:
        return f"1.2.826.0.1.3680043.2.97.{next(self.numbers)}"

    def many(self, short: int, long: int) -> int:
        """So many, or so large."""
        return long if self.long else short

    def call(self, tls: ssl.SSLContext | None = None) -> Caller:
        """A new connection. Raises OSError where there is none, or no TLS."""
        self.callers.append(Caller(self.port, self.patience_s, self.source, tls or self.tls))
        return self.callers[-1]

    def request(self, **terms: object) -> bytes:
        """A sound A-ASSOCIATE-RQ."""
        return wire.associate_rq(**{"calling": ATTACKER, "called": self.called, **terms})

    def associate(
        self, calling: str = ATTACKER, contexts: Contexts = CT_EXPLICIT, **terms: object
    ) -> Caller:
        """A new association. Raises Refused."""
        caller = self.call()
        caller.send(self.request(calling=calling, contexts=contexts, **terms))
        kind, body = caller.hear(self.patience_s)
        if kind != 2:
            raise Refused(wire.in_words(kind, body))
        answer = A_ASSOCIATE_AC()
        answer.decode(struct.pack(">BxI", kind, len(body)) + body)
        results = [context.result_reason for context in answer.presentation_context]
        if all(results):
            raise Refused(f"context refused ({results[0]})")
        return caller

    def say(self, caller: Caller, *pieces: bytes) -> bool:
        """Send until all is sent, or an answer comes, or the peer closes."""
        for piece in pieces:
            try:
                caller.send(piece)
            except OSError:
                return False
            if len(pieces) > 1 and heard(caller):
                return False
        return True

    def answer(self, caller: Caller, within_s: float | None = None) -> str:
        """What comes next, in words; the status of a response as 0x0000."""
        command = b""
        while True:
            try:
                kind, body = caller.hear(within_s or self.patience_s)
            except OSError:
                return "closed"
            if kind != 4:
                return wire.in_words(kind, body)
            piece, last = wire.fragment_of(body)
            command += piece
            if last:
                status = wire.command_elements(command).get(0x0900, b"")
                return f"0x{int.from_bytes(status, 'little'):04X}"

    def echo(self, caller: Caller, context_id: int = 3) -> str:
        """Whether the association goes on: the answer to a C-ECHO on it."""
        self.say(caller, wire.p_data(wire.pdv(wire.c_echo(), context_id, command=True)))
        return self.answer(caller)

    def store(
        self, data: bytes, *, command: bytes | None = None, contexts: Contexts = CT_EXPLICIT,
        context_id: int = 1,
    ) -> str:  # fmt: skip
        """One object over one association, and the answer to it."""
        caller = self.associate(contexts=contexts)
        command = wire.c_store(instance=self.instance) if command is None else command
        self.say(caller, wire.message(command, data, context_id))
        return self.answer(caller)

    def close(self) -> None:
        """Every connection."""
        for caller in self.callers:
            caller.close()


class Refused(Exception):
    """No association, or none of its contexts: the answer is the text."""


def heard(caller: Caller, within_s: float = 0.0) -> bool:
    """Whether something of the peer waits to be read, the end included."""
    poll = select.poll()  # select() knows no descriptor above 1024
    poll.register(caller.socket, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def together(answers: Iterable[str]) -> str:
    """Equal answers once, different ones with their numbers."""
    count = Counter(answers)
    if len(count) == 1:
        return next(iter(count))
    return ", ".join(f"{times} {answer}" for answer, times in count.items())


# --- ways of attacking ----------------------------------------------------------------------------

Way = Callable[[Attack], str]
"""Does it, and tells in words what came back."""


def knocks(short: int, long: int) -> Way:
    """Connections that are closed at once."""

    def way(a: Attack) -> str:
        for caller in a.calls(a.many(short, long)):
            caller.close()
        return "-"

    return way


def idle(short: int, long: int) -> Way:
    """Connections that say nothing: how many are left open."""

    def way(a: Attack) -> str:
        opened = list(a.calls(a.many(short, long)))
        until = time.monotonic() + min(a.patience_s, 10.0)
        while (left := sum(not heard(one) for one in opened)) > 64:
            if time.monotonic() > until:
                return f"{left} stay"
            time.sleep(0.05)
        return "at most 64 stay"

    return way


def each(count: int, data: bytes) -> Way:
    """So many connections that say this, and no more; what comes back, the connections open."""

    def way(a: Attack) -> str:
        for _ in range(count):
            a.say(a.call(), data)
        return together(a.answer(caller) for caller in a.callers)

    return way


def held(count: int, size: int) -> Way:
    """Connections that send the first bytes of a request: while they stay, nothing need come."""

    def way(a: Attack) -> str:
        for _ in range(count):
            a.say(a.call(), a.request()[:size])
        return "-"

    return way


def never_more(size: int, *, drip: bool = False) -> Way:
    """The first bytes of a request, then silence, or a byte every second."""

    def way(a: Attack) -> str:
        caller, request = a.call(), a.request()
        a.say(caller, request[:size])
        if not drip:
            return a.answer(caller)
        for second in range(round(a.patience_s)):
            a.say(caller, request[size + second : size + second + 1])
            if heard(caller, 1.0):
                break
        return a.answer(caller, 1.0)

    return way


def floods(calls: int) -> Way:
    """More associations than anybody needs, all kept open."""

    def way(a: Attack) -> str:
        answers = []
        for _ in range(calls):
            try:
                a.associate()
                answers.append("accepted")
            except Refused as refused:
                answers.append(str(refused))
        return together(answers)

    return way


def first(*pieces: bytes) -> Way:
    """Bytes in place of a request for an association."""

    def way(a: Attack) -> str:
        caller = a.call()
        a.say(caller, *pieces)
        return a.answer(caller)

    return way


def then(*pieces: bytes, contexts: Contexts = CT_EXPLICIT, calling: str = ATTACKER) -> Way:
    """Bytes once there is an association."""

    def way(a: Attack) -> str:
        caller = a.associate(calling, contexts)
        a.say(caller, *pieces)
        return a.answer(caller)

    return way


def endless(start: bytes, piece: bytes, mib: tuple[int, int], *, associated: bool = True) -> Way:
    """The same piece again and again; mib: how much of it, short and long."""

    def way(a: Attack) -> str:
        caller = a.associate() if associated else a.call()
        if a.say(caller, start):
            a.say(caller, *[piece] * (a.many(*mib) * 2**20 // len(piece) + 1))
        return a.answer(caller)

    return way


def drips() -> Way:
    """A byte of an object now and then."""

    def way(a: Attack) -> str:
        caller = a.associate(SILENT)
        a.say(caller, wire.message(wire.c_store(instance=a.instance), None))
        for _ in range(round(a.patience_s * 10)):
            a.say(caller, wire.p_data(wire.pdv(b"\x08", command=False, last=False)))
            if heard(caller, 0.1):
                break
        return a.answer(caller, 1.0)

    return way


def breaks_off(how: str) -> Way:
    """In the middle of an object, thirty times."""

    def way(a: Attack) -> str:
        for _ in range(30):
            caller = a.associate()
            command = wire.message(wire.c_store(instance=a.new_uid()), None)
            half = wire.p_data(wire.pdv(bytes(4000), command=False, last=False))
            a.say(caller, command + half + half[:2000])
            if how == "abort":
                caller.send(wire.ABORT)
            if how == "reset":
                linger = struct.pack("ii", 1, 0)
                caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            caller.close()
        return "-"

    return way


def request_of(*, negotiate: bool = False, **parts: bytes | int) -> Way:
    """A request of odd parts: see `made`; negotiate: and a C-ECHO, if it is accepted."""

    def way(a: Attack) -> str:
        caller = a.call()
        a.say(caller, made(**{"called": a.called.encode(), **parts}))
        answer = a.answer(caller)
        return a.echo(caller, 1) if negotiate and answer == "accepted" else answer

    return way


# --- requests of odd parts ------------------------------------------------------------------------


def item(kind: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxH", kind, len(value) if length is None else length) + value


def context(
    identifier: int = 1,
    abstract: str = VERIFICATION,
    syntaxes: Sequence[str] = (EXPLICIT,),
    more: bytes = b"",
) -> bytes:
    proposed = b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    named = item(0x30, abstract.encode())
    return item(0x20, bytes((identifier, 0, 0, 0)) + named + proposed + more)


def user(*more: bytes, max_pdu: int = 16384) -> bytes:
    items = item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3.4") + b"".join(more)
    return item(0x50, items, len(items) & 0xFFFF)


def identity(kind: int, name: bytes, length: int | None = None) -> bytes:
    """User Identity (PS3.7 §D.3.3.7)."""
    said = len(name) if length is None else length
    return item(0x58, bytes((kind, 0)) + struct.pack(">H", said) + name + bytes(2))


def made(
    *,
    version: int = 1,
    called: bytes = b"DICOMNODE",
    calling: bytes = ATTACKER.encode(),
    application: bytes = item(0x10, _APPLICATION),
    contexts: bytes = context(),
    users: bytes = user(),
    tail: bytes = b"",
) -> bytes:
    """An A-ASSOCIATE-RQ of these parts; sound as it stands."""
    fixed = struct.pack(">HH", version, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    body = fixed + application + contexts + users + tail
    return struct.pack(">BxI", 1, len(body)) + body


# --- messages and objects -------------------------------------------------------------------------


def command(changes: Mapping[int, int | str | None], data: bytes | None = b"") -> Way:
    """A C-STORE request with elements changed, or left out (None), and its data set."""

    def way(a: Attack) -> str:
        elements: dict[int, int | str] = {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1}
        elements[0x1000] = a.instance
        for element, value in changes.items():
            elements.pop(element)
            if value is not None:
                elements[element] = value
        data_set = o.encoded(o.ct(a.instance)) if data == b"" else data
        return a.store(data_set or b"", command=wire.command_set(elements))

    return way


def many_messages(message: bytes, short: int, long: int, *, answered: bool) -> Way:
    """Sent at a stretch; then either their answers, or that of a C-ECHO."""

    def way(a: Attack) -> str:
        caller, count = a.associate(contexts=WITH_ECHO), a.many(short, long)
        for _ in range(count):
            if not a.say(caller, message):
                break
        if answered:
            return together(a.answer(caller) for _ in range(count))
        return a.echo(caller)

    return way


def sends(
    *,
    changes: Mapping[int, tuple[str, bytes] | None] | None = None,
    raw: Callable[[bytes], bytes] = lambda data: data,
    explicit: bool = True,
    contexts: Contexts = CT_EXPLICIT,
    context_id: int = 1,
) -> Way:
    """One CT image with elements changed, or left out (None), and then its bytes by `raw`."""

    def way(a: Attack) -> str:
        elements = o.ct(a.instance)
        for tag, value in {**({} if explicit else {0x00081140: None}), **(changes or {})}.items():
            elements.pop(tag, None)
            if value is not None:
                elements[tag] = value
        data = raw(o.encoded(elements, explicit=explicit))
        return a.store(data, contexts=contexts, context_id=context_id)

    return way


def piles(make: Callable[[int], bytes], short: int, long: int) -> Way:
    """A sound image with so much more in it."""

    def way(a: Attack) -> str:
        more = make(a.many(short, long))
        return sends(raw=lambda data: o.before_pixels(data, more))(a)

    return way


def each_of(*ways: Way) -> Way:
    """One after another, and all answers."""

    def way(a: Attack) -> str:
        answers = []
        for one in ways:
            a.instance = a.new_uid()
            try:
                answers.append(one(a))
            except Refused as refused:
                answers.append(str(refused))
        return together(answers)

    return way


def twice(changed: bytes) -> Way:
    """The same object twice; the second time with these bytes at its end."""

    def way(a: Attack) -> str:
        data = o.encoded(o.ct(a.instance))
        a.store(data)
        return a.store(data[: len(data) - len(changed)] + changed)

    return way


def same_message_id(times: int) -> Way:
    """Objects under one message id."""

    def way(a: Attack) -> str:
        caller = a.associate()
        data = wire.message(wire.c_store(instance=a.instance), o.encoded(o.ct(a.instance)))
        answers = []
        for _ in range(times):
            a.say(caller, data)
            answers.append(a.answer(caller))
        return together(answers)

    return way


def pipelined(short: int, long: int) -> Way:
    """Objects of half a MiB sent at a stretch, and no answer read until all are sent."""

    def way(a: Attack) -> str:
        caller, count = a.associate(), a.many(short, long)
        data = o.encoded(o.ct(a.instance, size=512))
        whole = wire.message(wire.c_store(instance=a.instance), data)
        for _ in range(count):
            if not a.say(caller, whole):
                break
        return together(a.answer(caller) for _ in range(count))

    return way
