"""The rows of the hostile table for a port of TLS; see faults.hostile."""

from __future__ import annotations

import struct

from faults import attack as a
from faults import attack_tls as t
from faults.attack_tls import NO_TLS
from faults.hostile import HTTP, Row
from raw import wire

TLS, IN_TIME = "TLS", "closed in 30 s"


def _row(name: str, way: a.Way, asks: str, ours: str | None = None, *, slow: bool = False) -> Row:
    return Row(part=TLS, name=name, way=way, asks=asks, ours=ours or asks, slow=slow)


TLS_ROWS: tuple[Row, ...] = (
    _row("TLS: a connection that says nothing", a.held(1, 0), "-"),
    _row("TLS: 11 connections that say nothing", a.held(11, 0), "-"),
    _row("TLS: 200 connections that say nothing", a.idle(200, 200), "-", "at most 64 stay"),
    _row("TLS: 2,000 connections, closed at once", a.knocks(100, 2000), "-"),
    _row("TLS: an A-ASSOCIATE-RQ without TLS", t.plainly(wire.associate_rq()), NO_TLS),
    _row("TLS: an HTTP request without TLS", t.plainly(HTTP), NO_TLS),
    _row("TLS: 64 KiB of noise", t.plainly(bytes(range(1, 256)) * 257), NO_TLS),
    _row(
        "TLS: a record of 64 KiB",
        t.plainly(struct.pack(">BHH", 0x16, 0x0301, 0xFFFF) + bytes(65535)),
        NO_TLS,
    ),
    _row("TLS: five bytes of a ClientHello", t.begun(size=5), IN_TIME, "closed", slow=True),
    _row("TLS: a ClientHello, then nothing", t.begun(), IN_TIME, "closed", slow=True),
    _row("TLS: a ClientHello of a byte a second", t.begun(size=5, drip=True), IN_TIME, "closed",
         slow=True),
    _row("TLS: 200 handshakes begun", t.crowd(100, 200, done=False), "-", "at most 64 stay"),
    _row("TLS: 200 handshakes done, then nothing", t.crowd(100, 200, done=True), "-",
         "at most 64 stay"),
    _row("TLS: version 1.1", t.speaking(t.old), NO_TLS),
    _row("TLS: 1.2 without forward secrecy", t.speaking(lambda: t.weak("kRSA+AESGCM")), NO_TLS),
    _row("TLS: 1.2 in CBC mode", t.speaking(lambda: t.weak("ECDHE+AES+SHA256")), NO_TLS),
    _row("TLS: no certificate", t.shown(""), NO_TLS),
    _row("TLS: a certificate of a foreign authority", t.shown("stranger"), NO_TLS),
    _row("TLS: an expired certificate", t.shown("expired"), NO_TLS),
    _row("TLS: another's certificate", t.shown("ct"), "RJ 1,1,3"),
    _row("TLS: its own certificate", t.shown("mr"), "accepted"),
    _row("TLS: an HTTP request within TLS", t.within(HTTP), "abort 2,1"),
    _row("TLS: 30 torn off inside an object", t.torn(), "-"),
)  # fmt: skip
