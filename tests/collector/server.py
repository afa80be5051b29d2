"""A collector of audit messages for tests: syslog over TLS (RFC 5425) on loopback."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

CERTIFICATES = Path(__file__).parents[1] / "certificates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Syslog:
    """A SYSLOG-MSG, taken apart (RFC 5424 §6)."""

    priority: int
    time: str
    host: str
    app: str
    msgid: str
    structured: str
    xml: str


def parsed(message: bytes) -> Syslog:
    """The parts of a message; AssertionError where it is none."""
    head, _, xml = message.decode("utf-8").partition(" \ufeff")
    priority, _, rest = head.partition(">1 ")
    time, host, app, process, msgid, structured = rest.split(" ", 5)
    assert priority.startswith("<")
    assert process.isdecimal()
    assert structured.startswith("[")
    return Syslog(
        priority=int(priority[1:]),
        time=time,
        host=host,
        app=app,
        msgid=msgid,
        structured=structured,
        xml=xml,
    )


class SyslogCollector:
    """Keeps what it gets. reads: whether it takes anything out of its socket."""

    def __init__(
        self, *, port: int = 0, certificate: str = "node", client_ca: bool = False,
        reads: bool = True,
    ) -> None:  # fmt: skip
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(
            CERTIFICATES / f"{certificate}.pem", CERTIFICATES / f"{certificate}.key"
        )
        if client_ca:
            self._context.load_verify_locations(CERTIFICATES / "ca.pem")
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self.messages: list[bytes] = []
        self.connections = 0
        self.goodbyes = 0
        self._reads = reads
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything at once, as a collector that dies."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join()

    def hang_up(self) -> None:
        """Close all connections, without a word of TLS."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self._open.clear()

    def _start(self, what: object, *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, plain)

    def _serve(self, plain: socket.socket) -> None:
        try:
            connection = self._context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return
        with connection:
            self._open.append(connection)
            self.connections += 1
            if not self._reads:
                threading.Event().wait(0.5)
                return
            with contextlib.suppress(OSError, ValueError):
                while self._take_one(connection):
                    pass
                connection.unwrap()
                self.goodbyes += 1

    def _take_one(self, connection: ssl.SSLSocket) -> bool:
        length = b""
        while not length.endswith(b" "):
            byte = connection.recv(1)
            if not byte:
                return False
            length += byte
        wanted = int(length)
        message = b""
        while len(message) < wanted:
            more = connection.recv(wanted - len(message))
            if not more:
                return False
            message += more
        self.messages.append(message)
        return True
