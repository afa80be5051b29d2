"""What a hostile peer does to a port for TLS, and how an honest one comes to it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from faults.attack import Attack, Refused, Way, heard, together
from raw import wire
from raw.wire import Caller

CERTIFICATES = Path(__file__).parents[1] / "certificates"
NO_TLS = "no TLS"
_ALERT, _HANDSHAKE = 0x15, 0x16  # RFC 8446 §5.1


def client(name: str = "ct") -> ssl.SSLContext:
    """Of a peer with one of the certificates; "" for one without."""
    context = ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))
    if name:
        context.load_cert_chain(CERTIFICATES / f"{name}.pem", CERTIFICATES / f"{name}.key")
    return context


def old() -> ssl.SSLContext:
    """Of a peer that speaks TLS 1.1 at most."""
    context = client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def weak(ciphers: str) -> ssl.SSLContext:
    """Of a peer that speaks TLS 1.2 with these cipher suites alone."""
    context = client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    return context


def first_flight() -> bytes:
    """A sound ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        half.do_handshake()
    return outgoing.read()


def _ended(caller: Caller, within_s: float) -> str:
    """What comes on the plain socket: an alert, the end, or no end."""
    until = time.monotonic() + within_s
    said = b""
    while time.monotonic() < until:
        caller.socket.settimeout(max(0.001, until - time.monotonic()))
        try:
            more = caller.socket.recv(65536)
        except TimeoutError:
            return "silence"
        except OSError:
            more = b""
        said += more[: 65536 - len(said)]
        if not more:
            return "a handshake, then closed" if said[:1] == bytes([_HANDSHAKE]) else NO_TLS
    return "silence"


def plainly(data: bytes) -> Way:
    """Bytes that are no TLS."""

    def way(a: Attack) -> str:
        caller = a.call()
        a.say(caller, data)
        return _ended(caller, a.patience_s)

    return way


def begun(*, size: int = 0, drip: bool = False) -> Way:
    """So much of a ClientHello (0: all of it), then silence, or a byte every second."""

    def way(a: Attack) -> str:
        caller, data = a.call(), first_flight()
        at = size or len(data)
        a.say(caller, data[:at])
        if drip:
            for sent in range(at, at + round(a.patience_s)):
                if not a.say(caller, data[sent : sent + 1]) or heard(caller, 1.0):
                    break
        ended = _ended(caller, a.patience_s)
        return "closed" if ended in (NO_TLS, "a handshake, then closed") else ended

    return way


def crowd(short: int, long: int, *, done: bool) -> Way:
    """Many that begin a handshake, or end it, and say no more: how many are left open."""

    def way(a: Attack) -> str:
        data, context = first_flight(), client("mr")
        until = time.monotonic() + a.patience_s
        for _ in range(a.many(short, long)):
            if time.monotonic() > until:
                return "no connection"
            with contextlib.suppress(OSError):
                if done:
                    a.call(tls=context)
                else:
                    a.say(a.call(), data)
        until = time.monotonic() + min(a.patience_s, 15.0)
        while (left := sum(_open(one.socket) for one in a.callers)) > 64:
            if time.monotonic() > until:
                return f"{left} stay"
            time.sleep(0.05)
        return "at most 64 stay"

    return way


def _open(connection: socket.socket) -> bool:
    """Whether the other end has not closed it; what it says is thrown away."""
    connection.settimeout(0.0)
    try:
        while connection.recv(65536):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False


def shown(name: str = "ct") -> Way:
    """Ask for an association with this certificate; "" for none."""
    return speaking(lambda: client(name))


def speaking(make: Callable[[], ssl.SSLContext]) -> Way:
    """Ask for an association in the TLS that make() makes."""

    def way(a: Attack) -> str:
        try:
            caller = a.call(tls=make())
            caller.send(a.request())
            kind, body = caller.hear(a.patience_s)
        except OSError:
            return NO_TLS
        return NO_TLS if kind == 0 else wire.in_words(kind, body)

    return way


def within(data: bytes) -> Way:
    """TLS as it should be, and in it what is no DICOM."""

    def way(a: Attack) -> str:
        caller = a.call(tls=client("mr"))
        a.say(caller, data)
        return a.answer(caller)

    return way


def torn() -> Way:
    """The connection under TLS ends amid an object, thirty times, with no word of TLS."""

    def way(a: Attack) -> str:
        context, answers = client("mr"), []
        for _ in range(30):
            caller = a.call(tls=context)
            caller.send(a.request())
            kind, body = caller.hear(a.patience_s)
            answers.append(wire.in_words(kind, body))
            if kind != 2:
                raise Refused(together(answers))
            command = wire.message(wire.c_store(instance=a.new_uid()), None)
            half = wire.p_data(wire.pdv(bytes(4000), command=False, last=False))
            a.say(caller, command + half + half[:2000])
            caller.close()
        return "-"

    return way
