"""Audit messages on their way to a collector: syslog (RFC 5424) over TLS (RFC 5425, PS3.15 §A.6).

The collector acknowledges nothing. So what was sent counts as taken only when its machine has
acknowledged every byte, and the connection still stands some time later: see `Collector`.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from dicom_node.audit.xml import time_text
from dicom_node.domain.errors import AuditError
from dicom_node.domain.security import is_private

PORT = 6514  # RFC 5425 §4.1
_FACILITY = 10  # security and authorisation messages (PS3.15 §A.6)
_NOTICE, _WARNING = 5, 4
_MSGID = "DICOM+RFC3881"  # PS3.15 §A.6
_BOM = "\ufeff"  # what follows is UTF-8 (RFC 5424 §6.4)
_SEQUENCE = 2_147_483_647  # RFC 5424 §7.3.1
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all AEAD
_CHUNK = 16 * 1024
_FIRST_S, _LONGEST_S = 1.0, 300.0
_LOOK_MS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who writes the lines. host: as others may call this machine."""

    host: str
    process: int
    version: str


def line(xml: str, *, at: float, well: bool, number: int | None, origin: Origin) -> bytes:
    """A SYSLOG-MSG (RFC 5424 §6) around an audit message.

    number: tells a repetition from another message that happens to be alike; None is no number.
    """
    priority = _FACILITY * 8 + (_NOTICE if well else _WARNING)
    sequence = "" if number is None else f'[meta sequenceId="{(number - 1) % _SEQUENCE + 1}"]'
    host = "".join(c for c in origin.host if "!" <= c <= "~")[:255] or "-"
    head = (
        f"<{priority}>1 {time_text(at)} {host} dicom-node {origin.process} {_MSGID} "
        f'[origin software="dicom-node" swVersion="{origin.version}"]{sequence} '
    )
    return f"{head}{_BOM}{xml}".encode("utf-8", "backslashreplace")


def time_of(message: bytes) -> str:
    """The TIMESTAMP of a line."""
    return message.split(b" ", 2)[1].decode("ascii", "replace")


def frame(message: bytes) -> bytes:
    """The message with its length in front (RFC 5425 §4.3)."""
    return str(len(message)).encode() + b" " + message


def pause_s(failures: int, luck: float) -> float:
    """How long to wait after so many failures in a row; luck: in [0, 1), spreads the attempts."""
    wait: float = min(_FIRST_S * 2.0 ** min(max(failures, 1) - 1, 32), _LONGEST_S)
    return wait * (1.0 + luck / 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a collector is, and what proves to each that the other is who he says.

    ca: certificates to trust, else those of the system. certificate, key: ours, if it wants one.
    """

    host: str
    port: int = PORT
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.host}:{self.port}"


def tls(endpoint: Endpoint) -> ssl.SSLContext:
    """TLS 1.2 or later with the collector's name checked. Raises AuditError: a file is not fit."""
    try:
        context = ssl.create_default_context(
            cafile=str(endpoint.ca) if endpoint.ca is not None else None
        )
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise AuditError(f"{endpoint.ca} holds no certificates to trust: {error}") from error
    if endpoint.certificate is not None:
        try:
            if endpoint.key is not None and not is_private(endpoint.key.stat().st_mode):
                raise AuditError(f"others may read {endpoint.key}, a key (chmod 600)")
            context.load_cert_chain(endpoint.certificate, endpoint.key)
        except (OSError, ValueError) as error:
            raise AuditError(
                f"{endpoint.certificate} and its key cannot be used: {error}"
            ) from error
    return context


class Collector:
    """The connection to one collector, made when something is to be sent. For one thread."""

    def __init__(self, endpoint: Endpoint, *, connect_s: float = 5.0, send_s: float = 10.0) -> None:
        """connect_s: for TCP and TLS. send_s: until all of what is sent is acknowledged."""
        self.endpoint = endpoint
        self._connect_s = connect_s
        self._send_s = send_s
        self._socket: ssl.SSLSocket | None = None
        self._alert = ""  # the last word of the connection before

    def connect(self) -> str:
        """Connect, unless there is a connection; the version of TLS. Raises AuditError."""
        if self._socket is None:
            self._socket = self._connected()
        return self._socket.version() or ""

    def stay(self, seconds: float) -> None:
        """Connect, and see whether the connection stands so long. Raises AuditError.

        By TLS 1.3 the handshake is over before the collector has looked at this node's certificate.
        """
        self.connect()
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            if self.is_gone():
                raise AuditError(self.farewell)
            select.poll().poll(_LOOK_MS)

    @property
    def farewell(self) -> str:
        """What became of the connection that is gone, in words."""
        why = f" ({self._alert})" if self._alert else ""
        return f"{self.endpoint.name} has closed the connection{why}"

    def _connected(self) -> ssl.SSLSocket:
        where = self.endpoint
        context = tls(where)
        deadline = monotonic() + self._connect_s
        try:
            plain = socket.create_connection((where.host, where.port), self._connect_s)
        except OSError as error:
            raise AuditError(f"{where.name} cannot be reached: {_words(error)}") from error
        try:
            plain.settimeout(max(deadline - monotonic(), 0.001))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(plain, server_hostname=where.host)  # closes it on failure
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise AuditError(
                f"the certificate of {where.name} is not trusted: {error.verify_message}"
            ) from error
        except (OSError, ValueError) as error:
            plain.close()
            raise AuditError(f"{where.name} makes no TLS connection: {_words(error)}") from error

    def send(self, messages: bytes) -> None:
        """Send frames; returns when the other machine has acknowledged them. Raises AuditError.

        Then nobody knows what arrived, and the connection is closed.
        """
        self.connect()
        deadline = monotonic() + self._send_s
        try:
            self._write(memoryview(messages), deadline)
            self._await_acknowledged(deadline)
        except OSError as error:
            self.drop()
            raise AuditError(f"{self.endpoint.name} takes nothing: {_words(error)}") from error

    def _write(self, rest: memoryview, deadline: float) -> None:
        assert self._socket is not None  # noqa: S101  # send() has connected
        while rest:
            left_s = deadline - monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            rest = rest[self._socket.send(rest[:_CHUNK]) :]

    def _await_acknowledged(self, deadline: float) -> None:
        """Wait until TCP has nothing in hand; not at all where the system does not tell."""
        while self._in_hand():
            if monotonic() > deadline:
                raise TimeoutError
            if self.is_gone():
                raise ConnectionResetError
            select.poll().poll(_LOOK_MS)

    def _in_hand(self) -> int:
        """Bytes that the other machine has not acknowledged yet; 0 where it cannot be told."""
        assert self._socket is not None  # noqa: S101  # send() has connected
        try:
            told = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int(struct.unpack("i", told)[0])

    def hurry(self, seconds: float) -> None:
        """From now on nothing takes longer."""
        self._connect_s, self._send_s = min(self._connect_s, seconds), min(self._send_s, seconds)

    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._socket is not None

    def is_gone(self) -> bool:
        """Whether the collector has closed the connection; then it is closed here, too."""
        if self._socket is None:
            return True
        try:
            self._socket.settimeout(0)
            while self._socket.recv(_CHUNK):
                pass  # a collector has nothing to say
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except OSError as error:
            self._alert = _words(error) if isinstance(error, ssl.SSLError) else ""
        else:
            self._alert = ""
        self.drop()
        return True

    def drop(self) -> None:
        """Close the connection, whatever is on its way."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def goodbye(self, seconds: float) -> bool:
        """Close the connection in order (RFC 5425 §4.4); whether the collector agreed.

        It has then read all that was sent.
        """
        if self._socket is None:
            return False
        try:
            self._socket.settimeout(seconds)
            self._socket.unwrap().close()
        except (OSError, ValueError):
            return False
        finally:
            self.drop()
        return True


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").lower().replace("_", " ")
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
