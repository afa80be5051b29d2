"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import os
import threading
from collections import Counter
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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say at the very end what was not run, and for lack of what."""
    yield
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("not run")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5d}  {reason}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real CT series (test/, train/, quirks/); skips where there is none."""
    folder = os.environ.get("DICOM_NODE_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real CT series: DICOM_NODE_REAL_DATA names no folder")
    return Path(folder)


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
