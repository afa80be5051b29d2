"""Syslog over TLS: framing, who is trusted, deadlines, and what a silent collector is worth."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest

from collector.server import CERTIFICATES, SyslogCollector, parsed
from dicom_node.audit.syslog import Collector, Endpoint, Origin, frame, line, pause_s, time_of
from dicom_node.domain.errors import AuditError

ORIGIN = Origin(host="node.test", process=7, version="1.2")
CA = CERTIFICATES / "ca.pem"


def endpoint(port: int, *, host: str = "127.0.0.1", ca: str = "ca") -> Endpoint:
    return Endpoint(
        host=host,
        port=port,
        ca=CERTIFICATES / f"{ca}.pem",
    )


@contextlib.contextmanager
def connected(to: Endpoint, **limits: float):
    collector = Collector(to, **limits)
    try:
        yield collector
    finally:
        collector.drop()


def until(ready, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_line_is_a_syslog_message_of_rfc_5424():
    told = parsed(line("<a>ü</a>", at=1_796_000_000.25, well=True, number=12, origin=ORIGIN))

    assert told.priority == 85  # facility 10, notice: PS3.15 §A.6
    assert told.time == "2026-11-30T00:53:20.250Z"
    assert (told.host, told.app, told.msgid) == ("node.test", "dicom-node", "DICOM+RFC3881")
    assert told.structured == (
        '[origin software="dicom-node" swVersion="1.2"][meta sequenceId="12"]'
    )
    assert told.xml == "<a>ü</a>"


def test_a_failure_is_a_warning_and_the_sequence_begins_anew_at_its_end():
    told = parsed(line("<a/>", at=0.0, well=False, number=2_147_483_648, origin=ORIGIN))

    assert told.priority == 84
    assert 'sequenceId="1"' in told.structured


def test_a_host_name_that_is_none_is_told_as_none():
    strange = Origin(host="a b\n", process=1, version="1")

    assert parsed(line("<a/>", at=0.0, well=True, number=1, origin=strange)).host == "ab"
    nobody = Origin(host="\n", process=1, version="1")
    assert parsed(line("<a/>", at=0.0, well=True, number=1, origin=nobody)).host == "-"


def test_the_length_of_a_frame_counts_bytes():
    assert frame("ü".encode()) == b"2 \xc3\xbc"


def test_the_time_of_a_line_can_be_read_again():
    assert time_of(line("<a/>", at=0.0, well=True, number=1, origin=ORIGIN)) == (
        "1970-01-01T00:00:00.000Z"
    )


def test_each_failure_doubles_the_wait_up_to_five_minutes():
    assert [pause_s(n, 0.0) for n in (1, 2, 3, 4, 9, 10, 1000)] == [1, 2, 4, 8, 256, 300, 300]
    assert pause_s(1, 0.5) == 1.125


def test_what_is_sent_arrives_as_it_is():
    messages = [b"<85>1 - - - - - - one", "\ufefftwo ü".encode(), b"x" * 100_000]
    with SyslogCollector() as there, connected(endpoint(there.port)) as collector:
        collector.send(b"".join(map(frame, messages)))
        collector.send(frame(b"last"))

        assert collector.goodbye(5.0)
        assert there.messages == [*messages, b"last"]
        assert there.connections == 1


def test_tls_is_of_today():
    with SyslogCollector() as there, connected(endpoint(there.port)) as collector:
        assert collector.connect() in ("TLSv1.2", "TLSv1.3")
        there._context.maximum_version = ssl.TLSVersion.TLSv1_2
        collector.drop()
        assert collector.connect() == "TLSv1.2"
        assert "GCM" in collector._socket.cipher()[0] or "POLY" in collector._socket.cipher()[0]


def known_by(folder: Path, to: Endpoint) -> Endpoint:
    """With a certificate of our own."""
    return replace(to, certificate=folder / "mr.pem", key=folder / "mr.key")


def test_a_collector_that_wants_a_certificate_gets_it(certificates: Path):
    with SyslogCollector(client_ca=True) as there:
        with connected(known_by(certificates, endpoint(there.port))) as collector:
            collector.send(frame(b"hello"))
            assert collector.goodbye(5.0)
        assert there.messages == [b"hello"]
        with connected(endpoint(there.port)) as collector:
            with contextlib.suppress(AuditError):  # TLS 1.3 tells after the handshake
                collector.send(frame(b"from a stranger"))
            until(collector.is_gone)
        assert there.messages == [b"hello"]


def test_a_key_that_others_may_read_is_refused(certificates: Path):
    (certificates / "mr.key").chmod(0o640)
    with SyslogCollector(client_ca=True) as there:
        to = known_by(certificates, endpoint(there.port))
        with connected(to) as collector, pytest.raises(AuditError, match=r"read .*mr.key, a key"):
            collector.connect()
        assert there.connections == 0


def test_who_is_refused_after_the_handshake_is_told_so_while_it_stays(certificates: Path):
    with SyslogCollector(client_ca=True) as there:
        refused = pytest.raises(AuditError, match=r"has closed the connection .*certificate req")
        with connected(endpoint(there.port)) as collector, refused:
            collector.stay(20.0)
        with connected(known_by(certificates, endpoint(there.port))) as collector:
            collector.stay(0.1)
            assert collector.is_open()


@pytest.mark.parametrize(
    ("certificate", "ca", "host", "why"),
    [
        ("ct", "ca", "127.0.0.1", "is not trusted: IP address mismatch"),
        ("ct", "ca", "localhost", "is not trusted: Hostname mismatch"),
        ("node", "foreign-ca", "127.0.0.1", "is not trusted: unable to get local issuer"),
    ],
)
def test_somebody_else_gets_nothing(certificate: str, ca: str, host: str, why: str):
    with SyslogCollector(certificate=certificate) as there:
        to = endpoint(there.port, host=host, ca=ca)
        with connected(to) as collector, pytest.raises(AuditError, match=why):
            collector.send(frame(b"secret"))
        assert there.messages == []


def test_files_that_are_no_certificates_are_named(tmp_path):
    (tmp_path / "no.pem").write_text("no")
    (tmp_path / "no.pem").chmod(0o600)
    for to, named in (
        (Endpoint(host="h", ca=tmp_path / "none.pem"), "none.pem holds no certificates"),
        (Endpoint(host="h", ca=tmp_path / "no.pem"), "no.pem holds no certificates"),
        (
            Endpoint(host="h", ca=CA, certificate=tmp_path / "no.pem", key=tmp_path / "no.pem"),
            "no.pem and its key cannot be used",
        ),
    ):
        with pytest.raises(AuditError, match=named):
            Collector(to).connect()


def test_nobody_there_is_an_error_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(AuditError, match="cannot be reached: Connection refused"):
        Collector(endpoint(port)).connect()


def test_who_says_nothing_is_not_waited_for_for_ever():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = endpoint(silent.getsockname()[1])
        with pytest.raises(AuditError, match="makes no TLS connection: no answer in time"):
            Collector(to, connect_s=0.2).connect()


def test_who_reads_nothing_is_not_waited_for_for_ever():
    with (
        SyslogCollector(reads=False) as there,
        connected(endpoint(there.port), send_s=0.3) as collector,
    ):
        much = frame(b"x" * 100_000_000)  # more than kernels hold
        with pytest.raises(AuditError, match="takes nothing"):
            collector.send(much)
        assert not collector.is_open()


def test_a_connection_that_the_collector_closed_is_noticed():
    with SyslogCollector() as there, connected(endpoint(there.port)) as collector:
        collector.send(frame(b"one"))
        assert not collector.is_gone()
        until(lambda: there.messages)
        there.hang_up()
        until(collector.is_gone)
        assert not collector.is_open()
        collector.send(frame(b"two"))  # by a new one
        until(lambda: len(there.messages) == 2)
        assert there.connections == 2
