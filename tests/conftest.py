"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dicom_node.dimse.scp import (
    AssociationRequest,
    Limits,
    Rejection,
    Server,
    StoreAnswer,
    StoreRequest,
    serve_storage,
)
from dicom_node.spool.store import Incoming, Spool, Stored


class SpoolSink:
    """Spools the object and remembers it with its receiver."""

    def __init__(self, receiver: SpoolReceiver, request: StoreRequest) -> None:
        self._receiver, self._request = receiver, request
        self._incoming: Incoming = receiver.spool.begin()

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        self._incoming.write(chunks)

    def finish(self) -> StoreAnswer:
        stored = self._incoming.commit()
        with self._receiver.changed:
            self._receiver.stored.append((self._request, stored))
        return self._receiver.answer

    def abort(self) -> None:
        self._incoming.abort()


class SpoolReceiver:
    """A receiver that spools all it gets, and remembers what it was told.

    verdict, refused: set them to have associations or objects refused.
    """

    def __init__(self, root: Path) -> None:
        self.spool = Spool(root)
        self.changed = threading.Condition()
        self.requests: list[AssociationRequest] = []
        self.stored: list[tuple[StoreRequest, Stored]] = []
        self.endings: dict[int, str] = {}
        self.echoes: list[AssociationRequest] = []
        self.answer = StoreAnswer(status=0)
        self.verdict: Rejection | None = None
        self.refused: StoreAnswer | None = None

    def admit(self, request: AssociationRequest) -> int | Rejection:
        with self.changed:
            self.requests.append(request)
            return self.verdict or len(self.requests)

    def begin(self, request: StoreRequest) -> SpoolSink | StoreAnswer:
        return self.refused or SpoolSink(self, request)

    def ended(self, association: int, how: str) -> None:
        with self.changed:
            self.endings[association] = how
            self.changed.notify_all()

    def echoed(self, request: AssociationRequest) -> None:
        with self.changed:
            self.echoes.append(request)
            self.changed.notify_all()

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait until something is so; false if it is not so within 20 s."""
        with self.changed:
            return self.changed.wait_for(until, 20)

    def files(self) -> list[Path]:
        """Every file in the spool, temporaries included."""
        return sorted(p for p in self.spool.root.rglob("*") if p.is_file())


@pytest.fixture
def spool_receiver(tmp_path: Path) -> SpoolReceiver:
    return SpoolReceiver(tmp_path / "spool")


@pytest.fixture
def storage_scp(spool_receiver: SpoolReceiver) -> Iterator[Callable[..., Server]]:
    """Starts SCPs on free loopback ports, in front of spool_receiver if no other; stops them."""
    servers: list[Server] = []

    def start(receiver: object = None, limits: Limits | None = None, **more: object) -> Server:
        server = serve_storage(
            ae_title="DICOMNODE",
            host="127.0.0.1",
            port=0,
            receiver=receiver or spool_receiver,
            limits=limits,
            **more,
        )
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop(0)
