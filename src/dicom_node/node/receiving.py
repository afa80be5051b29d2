"""A receiving process: `... receiving CONFIGURATION CONTROL`.

CONFIGURATION is the file that `hand_over` wrote; CONTROL is the descriptor of the socket on which
the node (see `node.crew`) hands connections over. It closes when the node ends, and this process
goes with it: what is not acknowledged is sent again.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import cast

from dicom_node.config.load import Config
from dicom_node.decide.telling import Count, Pace, happened
from dicom_node.dimse import contexts
from dicom_node.dimse.association import Acceptor
from dicom_node.dimse.certificates import Reloading
from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    Refusal,
    Rejection,
    Sink,
    StoreAnswer,
    StoreRequest,
)
from dicom_node.dimse.house import Connection, House
from dicom_node.dimse.scp import acceptable
from dicom_node.dimse.tls import Contexts
from dicom_node.domain.errors import NodeError, SpoolError
from dicom_node.domain.records import Attributes
from dicom_node.iod.received import Received
from dicom_node.node import log
from dicom_node.node.clock import SystemClock
from dicom_node.node.heavy import Heavy
from dicom_node.node.layout import extra, limits, min_free_bytes, spool_path, taken_over
from dicom_node.node.receive import StorageSink, for_disk, metered
from dicom_node.node.wire import READY, Channel, Gone
from dicom_node.spool.store import Spool, Stored

_log = logging.getLogger("dicom_node")
_MESSAGE_BYTES = 4096
_DESCRIPTORS = 2  # the connection, and the socket to ask on
_FAILURES = Pace(again_s=60.0)  # to take a connection: as often as somebody calls
_ALLOWED_S = 1.0  # for so long an association need not ask before each object


class RemoteGate:
    """Who may be in at once is counted by the node."""

    def __init__(self, channel: Channel, forget: Callable[[], object]) -> None:
        self._channel = channel
        self._forget = forget

    def arrive(self, association: Connection) -> None:
        """It was counted before it was handed over."""

    def admit(self, association: Connection) -> bool:
        """Count a connection as an association, unless there are too many."""
        del association
        return self._channel.ask("let_in") is True

    def see_out(self, association: Connection) -> bool:
        """It is over, but for the peer's closing; False: it is to be closed at once."""
        del association
        with suppress(Gone):
            return self._channel.ask("see_out") is True
        return False

    def leave(self, association: Connection) -> None:
        """Stop counting it: the node hears that nobody asks any more."""
        del association
        self._forget()
        self._channel.close()


class RemoteFlight:
    """What is in flight of a peer is counted by the node; see quotas.Flight."""

    def __init__(self, channel: Channel, association: int) -> None:
        self._channel = channel
        self._association = association

    def began(self) -> None:
        """One is in flight."""
        self._channel.ask("began", self._association)

    def came(self, count: int) -> bool:
        """So many bytes more of it; whether it may go on."""
        return self._channel.ask("came", self._association, count) is True

    def ended(self) -> None:
        """It is in flight no more; nothing, if none is."""
        self._channel.ask("landed", self._association)


class RemoteReceiver:
    """The node behind the SCP: what it decides and records is asked of it; see Receiver, Keeper."""

    def __init__(
        self,
        channel: Channel,
        spool: Spool,
        heavy: AbstractContextManager[object],
        min_free_bytes: int,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """min_free_bytes: with less, the node is asked before each object."""
        self.heavy = heavy
        self._channel = channel
        self._spool = spool
        self._min_free_bytes = min_free_bytes
        self._elapsed_s = elapsed_s
        self._allowed_at = float("-inf")  # when the node last let an object begin
        self._is_metered: bool | None = None  # None: not asked yet
        self._flight: RemoteFlight | None = None

    def admit(self, request: AssociationRequest) -> int | Rejection:
        """Judge an association: its number, or why not."""
        return cast("int | Rejection", self._channel.ask("admit", request))

    def begin(self, request: StoreRequest) -> Sink | StoreAnswer:
        """Open a sink, or refuse the object at once."""
        if self._must_ask() and (refusal := self._refusal(request)) is not None:
            return refusal
        try:
            sink = StorageSink(self, request, self._spool.begin())
        except SpoolError as error:
            return self.refuse(request, for_disk(error), str(error))
        return metered(self, sink, request, self._flight)

    def _must_ask(self) -> bool:
        """Whether the node may have changed its mind, or counts each object."""
        if self._is_metered or self._elapsed_s() - self._allowed_at >= _ALLOWED_S:
            return True
        try:
            return self._spool.free_bytes() < self._min_free_bytes
        except SpoolError:
            return True  # the node will meet it, too, and say so

    def _refusal(self, request: StoreRequest) -> StoreAnswer | None:
        refusal = self._channel.ask("may_begin", request)
        if isinstance(refusal, StoreAnswer):
            return refusal
        if self._is_metered is None:
            answer = self._channel.ask("is_metered", request.association)
            if isinstance(answer, StoreAnswer):  # it could not tell: no quota is passed by for that
                return answer
            self._is_metered = answer is True
            if self._is_metered:
                self._flight = RemoteFlight(self._channel, request.association)
        self._allowed_at = self._elapsed_s()
        return None

    def recording(self, path: str) -> AbstractContextManager[None]:
        """The node does it: see StorageReceiver.record_of_another."""
        del path
        return nullcontext()

    def record(self, request: StoreRequest, stored: Stored, received: Received) -> StoreAnswer:
        """The file is durable: the node makes it a fact."""
        return cast("StoreAnswer", self._channel.ask("record", request, stored, received))

    def refuse(
        self, request: StoreRequest, status: int, reason: str, attributes: Attributes | None = None
    ) -> StoreAnswer:
        """Have it recorded why, and answer it."""
        return cast("StoreAnswer", self._channel.ask("refuse", request, status, reason, attributes))

    def ended(self, association: int, how: str) -> None:
        """An admitted association is over."""
        self._channel.ask("ended", association, how)

    def idle_s(self, association: int) -> float | None:
        """How long an admitted association may say nothing."""
        return cast("float | None", self._channel.ask("idle_s", association))

    def identifies(self, association: int) -> bool:
        """Whether the user identity of an admitted association was looked at, and is right."""
        return self._channel.ask("identifies", association) is True

    def unsecured(self, request: AssociationRequest, reason: str) -> None:
        """There was no TLS with it."""
        self._channel.ask("unsecured", request, reason)

    def echoed(self, request: AssociationRequest) -> None:
        """A C-ECHO was answered."""
        self._channel.ask("echoed", request)

    def refused(self, refusal: Refusal) -> None:
        """The front refused a request by itself."""
        self._channel.ask("refused", refusal)

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        """The front rejected it by itself."""
        self._channel.ask("rejected", request, rejection)

    def broke(self, request: AssociationRequest, association: int | None, reason: str) -> None:
        """It ended by a fault of the peer's."""
        self._channel.ask("broke", request, association, reason)


class RemoteCommitter:
    """The node behind Storage Commitment."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def asked(self, request: AssociationRequest, commitment: CommitmentRequest) -> StoreAnswer:
        """A peer asks us to keep what it names."""
        return cast("StoreAnswer", self._channel.ask("asked", request, commitment))

    def reported(self, request: AssociationRequest, report: CommitmentReport) -> StoreAnswer:
        """A peer says what it keeps."""
        return cast("StoreAnswer", self._channel.ask("reported", request, report))


class Receiving:
    """What this process does: connections come, each is served in a thread."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigurationError for certificates that cannot be used."""
        self._spool = Spool(spool_path(config))
        self._limits = limits(config)
        self._min_free_bytes = min_free_bytes(config)
        self._table = contexts.answerable(acceptable(extra(config), commitment=True))
        self._heavy = Heavy()
        self._open: dict[int, Connection] = {}
        self._failures = Count()
        self._secure: Contexts | None = None
        if config.tls.certificate is not None:  # what changes of it the node tells of
            self._secure = Reloading(config.tls.files(), SystemClock().now).context

    def run(self, control: socket.socket) -> None:
        """Say so, and serve what is handed over, until there will be no more."""
        with suppress(OSError):  # the node is gone: what follows hears that, too
            control.send(READY)
        while True:
            message, descriptors, *_ = socket.recv_fds(control, _MESSAGE_BYTES, _DESCRIPTORS)
            if not message:
                return
            what, number, *rest = json.loads(message)
            if what == "interrupt":
                self._interrupt(number, *rest)
            elif len(descriptors) == _DESCRIPTORS:
                connection, asking = (socket.socket(fileno=one) for one in descriptors)
                address, secure = (rest[0], rest[1]), bool(rest[2])
                self._serve(number, connection, address, Channel(asking), secure=secure)
            else:  # this process has no room for more: who calls may come again
                self._complain("cannot take a connection: too many open files")
                for one in descriptors:
                    os.close(one)

    def _serve(
        self,
        number: int,
        connection: socket.socket,
        address: tuple[str, int],
        channel: Channel,
        *,
        secure: bool,
    ) -> None:
        house = House(
            receiver=RemoteReceiver(channel, self._spool, self._heavy, self._min_free_bytes),
            limits=self._limits,
            contexts=self._table,
            gate=RemoteGate(channel, lambda: self._open.pop(number, None)),
            committer=RemoteCommitter(channel),
            secure=self._secure if secure else None,
        )
        self._open[number] = acceptor = Acceptor(connection, address, house)
        try:
            threading.Thread(
                target=acceptor.run, name=f"association {address[0]}:{address[1]}", daemon=True
            ).start()
        except RuntimeError:  # no more threads: this peer may come again
            self._complain("cannot start a thread for a connection")
            house.gate.leave(acceptor)
            connection.close()

    def _complain(self, what: str) -> None:
        self._failures, times = happened(self._failures, time.monotonic(), _FAILURES)
        if times:
            _log.error("%s%s", what, f" ({times} times)" if times > 1 else "")

    def _interrupt(self, number: int, reason: str) -> None:
        connection = self._open.get(number)
        if connection is not None:
            connection.interrupt(reason)


def main(arguments: list[str]) -> int:
    """Receive until the node ends."""
    log.configure()
    configuration, descriptor = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides
    try:
        receiving = Receiving(taken_over(Path(configuration)))
    except NodeError as error:
        _log.error("a receiving process cannot start: %s", error)
        return 1
    with socket.socket(fileno=int(descriptor)) as control:
        receiving.run(control)
    os._exit(0)  # and with it whoever has not ended: the node is not there to record anything


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
