"""The listener: accepts connections, gives each a thread, counts them, and stops them."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from socketserver import BaseRequestHandler

from pynetdicom import AE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationServer

from dicom_node.decide.eviction import Waiting, gives_way
from dicom_node.decide.telling import Count, Pace, happened
from dicom_node.dimse import contexts
from dicom_node.dimse.association import Acceptor
from dicom_node.dimse.contract import Committer, Limits, Receiver
from dicom_node.dimse.house import Connection, Elsewhere, House
from dicom_node.dimse.tls import Contexts
from dicom_node.domain.errors import ConfigurationError

_ACCEPT_PAUSE_S = 0.1  # after a failed accept (no descriptors left): not in a busy loop
_INTERRUPTED_S = 10.0  # how long interrupted associations get to finish what they are in

_FAILURES = Pace(again_s=60.0)  # to accept: it fails ten times a second

_log = logging.getLogger(__name__)


class Doorkeeper:
    """Counts associations, and apart from them connections that have none, yet or any more."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._pending: dict[Connection, Waiting] = {}  # in the order of their coming
        self._active: dict[Connection, None] = {}

    def arrive(self, acceptor: Connection) -> None:
        """A connection was accepted; if too many wait, one that waits is closed."""
        with self._changed:
            closed = self._take_in(acceptor)
        self._close(closed)

    def _take_in(self, connection: Connection, *, leaving: bool = False) -> Connection | None:
        """Have it wait with the others; who gives way to it."""
        now, address = time.monotonic(), connection.address
        closed: Connection | None = None
        number = gives_way(list(self._pending.values()), address, now, self._limits.crowd)
        if number is not None:
            closed = list(self._pending)[number]
            del self._pending[closed]
        self._pending[connection] = Waiting(address=address, since=now, leaving=leaving)
        return closed

    @staticmethod
    def _close(closed: Connection | None) -> None:
        if closed is not None:
            closed.interrupt("its connections stay silent, and there are too many of them")

    def admit(self, association: Connection) -> bool:
        """Count a connection as an association, unless there are too many."""
        with self._changed:
            if len(self._active) >= self._limits.associations_max:
                return False
            self._pending.pop(association, None)
            self._active[association] = None
            return True

    def see_out(self, association: Connection) -> bool:
        """It is over, but for the peer's closing: count it as a connection until it leaves.

        False: it gave way meanwhile, and is to be closed at once.
        """
        closed: Connection | None = None
        with self._changed:
            if association in self._active:
                del self._active[association]
                closed = self._take_in(association, leaving=True)
                self._changed.notify_all()
            stays = association in self._pending
            if stays:
                waiting = self._pending[association]
                self._pending[association] = replace(waiting, leaving=True)
        self._close(closed)
        return stays

    def leave(self, association: Connection) -> None:
        """Stop counting it."""
        with self._changed:
            self._pending.pop(association, None)
            self._active.pop(association, None)
            self._changed.notify_all()

    def active(self) -> int:
        """How many associations there are."""
        with self._changed:
            return len(self._active)

    def empty(self, grace_s: float) -> bool:
        """Wait until no association is left, at most grace_s; tells whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._active, grace_s)

    def interrupt_all(self) -> None:
        """End every connection soon."""
        with self._changed:
            everyone = [*self._pending, *self._active]
        for acceptor in everyone:
            acceptor.interrupt()


class Handler(BaseRequestHandler):
    """What the server makes of each connection, in a thread."""

    server: Listener

    def handle(self) -> None:
        """Serve the association."""
        acceptor = Acceptor(self.request, self.client_address[:2], self.server.house)
        self.server.doorkeeper.arrive(acceptor)
        acceptor.run()


class Listener(AssociationServer):  # type: ignore[misc]  # pynetdicom is untyped
    """pynetdicom's listening socket with our accept loop: it waits, it never polls."""

    request_queue_size = 128
    house: House
    doorkeeper: Doorkeeper
    elsewhere: Elsewhere | None
    stopped: threading.Event

    def serve_forever(self, poll_interval: float = 0.5) -> None:  # noqa: ARG002 - inherited
        """Accept until the listening socket is shut down."""
        while not self.stopped.is_set():
            try:
                connection, address = self.socket.accept()
            except OSError as error:
                if not self.stopped.is_set():
                    self._complain(f"cannot accept a connection: {error.strerror}")
                    self.stopped.wait(_ACCEPT_PAUSE_S)
                continue
            self._serve(connection, address)

    def open(
        self,
        receiver: Receiver,
        limits: Limits,
        committer: Committer | None,
        elsewhere: Elsewhere | None,
        secure: Contexts | None = None,
    ) -> None:
        """Say who is behind the socket; before the accept loop runs."""
        self.elsewhere = elsewhere
        self.stopped = threading.Event()
        self._failures = Count()
        self.doorkeeper = Doorkeeper(limits)
        self.house = House(
            receiver=receiver,
            limits=limits,
            contexts=contexts.answerable(self.contexts),
            gate=self.doorkeeper,
            committer=committer,
            secure=secure,
        )

    def open_beside(self, other: Listener, secure: Contexts) -> None:
        """As open(), to the house of another listener, with the same limits: by TLS."""
        self.elsewhere = other.elsewhere
        self.stopped = threading.Event()
        self._failures = Count()
        self.doorkeeper = other.doorkeeper
        self.house = replace(other.house, secure=secure)

    def close_door(self) -> None:
        """Accept nobody any more."""
        self.stopped.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
        self.socket.close()

    def _serve(self, connection: socket.socket, address: tuple[str, int]) -> None:
        if self.elsewhere is not None and self.elsewhere.take(connection, address[:2], self.house):
            connection.close()  # here: the other process has it
            return
        try:
            threading.Thread(
                target=self.finish_request,
                args=(connection, address),
                name=f"association {address[0]}:{address[1]}",
                daemon=True,
            ).start()
        except RuntimeError:  # no more threads: this peer may come again
            self._complain("cannot start a thread for a connection")
            connection.close()

    def _complain(self, what: str) -> None:
        self._failures, times = happened(self._failures, time.monotonic(), _FAILURES)
        if times:
            _log.error("%s%s", what, f" ({times} times)" if times > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running SCP. beside: another one that serves the same node by TLS."""

    listener: Listener
    thread: threading.Thread
    beside: Server | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.listener.server_address[1])

    @property
    def tls_port(self) -> int | None:
        """The port for TLS, if there is one."""
        if self.listener.house.secure is not None:
            return self.port
        return self.beside.tls_port if self.beside is not None else None

    def active(self) -> int:
        """How many associations there are."""
        return self.listener.doorkeeper.active()

    def stop(self, grace_s: float) -> None:
        """Accept nobody any more; associations still there after grace_s seconds are aborted."""
        self.close()
        doorkeeper = self.listener.doorkeeper
        doorkeeper.empty(grace_s)
        doorkeeper.interrupt_all()
        if not doorkeeper.empty(_INTERRUPTED_S):
            _log.error("%d associations did not end", doorkeeper.active())

    def close(self) -> None:
        """Accept nobody any more."""
        for server in (self, self.beside):
            if server is not None:
                server.listener.close_door()
                server.thread.join()


def listen(
    *, ae_title: str, host: str, port: int, acceptable: list[PresentationContext]
) -> Listener:
    """Bind the listening socket; raises ConfigurationError if the address cannot be had."""
    entity = AE(ae_title)
    entity.network_timeout = None  # of the listening socket: accept() waits
    try:
        listener: Listener = entity.make_server(
            (host, port),
            contexts=acceptable,
            server_class=Listener,
            request_handler=Handler,
        )
    except OSError as error:
        raise ConfigurationError([f"cannot listen on {host}:{port}: {error.strerror}"]) from error
    return listener
