"""A TCP proxy on the loopback interface that slows, stalls or cuts connections, for fault tests."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

CHUNK_BYTES = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to a connection; the default is nothing.

    refuse: closed at once. cut_after_bytes: closed when so many bytes have gone to the server
    (`of_answers`: to the client); the byte after them never arrives. reset: closed by RST, not FIN.
    stall: instead of closing, nothing passes any more, and both ends stay open.
    bytes_per_s: no faster than this, in both directions.
    """

    refuse: bool = False
    cut_after_bytes: int | None = None
    of_answers: bool = False
    reset: bool = False
    stall: bool = False
    bytes_per_s: float | None = None


class _Link:
    """Both sockets of one connection; whoever closes first decides how."""

    def __init__(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        self.client, self.server, self.fault = client, server, fault
        self._lock = threading.Lock()
        self._closed = False
        for each in (client, server):
            each.settimeout(None)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self, *, reset: bool) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _close(self.client, reset=reset)
        _close(self.server, reset=reset)


class FaultProxy:
    """Listens on 127.0.0.1 from `with` to the end of its block; `fault` holds for new connections.

    connections: how many came. passed: bytes that went to the server, and to the client.
    """

    def __init__(self, target: tuple[str, int], *, fault: Fault | None = None) -> None:
        self.fault = fault or Fault()
        self.connections = 0
        self.passed = [0, 0]
        self._target = target
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self._start(self._serve)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        _close(self._listener, reset=False)
        self.cut_all()
        for thread in list(self._threads):
            thread.join(10.0)

    def cut_all(self, *, reset: bool = False) -> None:
        """Close every connection that is open now."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.close(reset=reset)

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            fault = self.fault
            if fault.refuse:
                _close(client, reset=fault.reset)
                continue
            try:
                server = socket.create_connection(self._target, 10.0)
            except OSError:
                _close(client, reset=True)
                continue
            link = _Link(client, server, fault)
            with self._lock:
                self._links.append(link)
            self._start(self._pump, link, 0)
            self._start(self._pump, link, 1)

    def _pump(self, link: _Link, way: int) -> None:
        """Pass bytes to the server (way 0) or back (1) until either end closes, or the fault."""
        fault = link.fault
        source, sink = (link.client, link.server)[:: -1 if way else 1]
        left = fault.cut_after_bytes if way == int(fault.of_answers) else None
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                part = data if left is None else data[:left]
                if fault.bytes_per_s:
                    self._ended.wait(len(part) / fault.bytes_per_s)
                sink.sendall(part)
                self.passed[way] += len(part)
                if left is not None:
                    left -= len(part)
                    if left == 0:
                        if fault.stall:
                            self._ended.wait()
                        break
        link.close(reset=fault.reset and left == 0)


def _close(connection: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # a thread that reads from it must wake up, or the close has no effect yet
        connection.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
    connection.close()
