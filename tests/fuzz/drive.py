"""The node's front and receiver in this process, over accepted sockets: one case after another.

Everything is real but the disk: it lies in memory, and nothing is synced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dicom_node.catalog import Catalog
from dicom_node.dimse import contexts
from dicom_node.dimse.association import Acceptor
from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    Limits,
    Sink,
    StoreAnswer,
    StoreRequest,
)
from dicom_node.dimse.front import Doorkeeper
from dicom_node.dimse.house import House
from dicom_node.iod.checks import check_stored
from dicom_node.iod.header import read_attributes
from dicom_node.node.admit import Admission
from dicom_node.node.bell import Bell
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal
from dicom_node.node.receive import StorageReceiver
from dicom_node.spool.disk import Disk
from dicom_node.spool.store import Spool
from fuzz.mutate import Case
from fuzz.oracle import NotWhole, uids_of
from raw import wire

MEMORY_MIB = 64.0
_MEMORY = Path("/dev/shm")
_ANSWER_S = 30.0
_INLINE_BYTES = 50_000  # a socket takes so much before somebody reads


class Failure(Exception):
    """An invariant did not hold."""


class UnsyncedDisk(Disk):
    """As the disk, but for its slowness."""

    def sync(self, descriptor: int) -> None:
        """Not."""

    def sync_named(self, descriptor: int) -> None:
        """Not."""

    def sync_folder(self, folder: Path) -> None:
        """Not."""


@dataclass
class Kept:
    """What a receiver said success to."""

    request: StoreRequest
    status: int


class WatchedSink:
    """A sink that tells what it answered."""

    def __init__(self, sink: Sink, request: StoreRequest, kept: list[Kept]) -> None:
        self._sink, self._request, self._kept = sink, request, kept

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        self._sink.write(chunks)

    def finish(self) -> StoreAnswer:
        answer = self._sink.finish()
        if answer.status == 0 or answer.status >> 12 == 0xB:
            self._kept.append(Kept(self._request, answer.status))
        return answer

    def abort(self) -> None:
        self._sink.abort()


class Watched(StorageReceiver):
    """The node's receiver, with a note of what it kept."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.kept: list[Kept] = []

    def begin(self, request: StoreRequest) -> Sink | StoreAnswer:
        opened = super().begin(request)
        if isinstance(opened, StoreAnswer):
            return opened
        return WatchedSink(opened, request, self.kept)


class Agreeable:
    """A committer that takes what can be read."""

    def asked(self, request: AssociationRequest, commitment: CommitmentRequest) -> StoreAnswer:
        return StoreAnswer(status=0)

    def reported(self, request: AssociationRequest, report: CommitmentReport) -> StoreAnswer:
        return StoreAnswer(status=0)


class Complaints(logging.Handler):
    """What asked() caught: an exception in the node is a failure here."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@dataclass
class Heard:
    """What came back: the types of the PDUs, and the statuses of the responses."""

    kinds: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    stored: int = 0  # C-STORE responses of success, or with a warning


class Front:
    """A node's front, from `with` until the end of its block."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            within = str(_MEMORY) if _MEMORY.is_dir() else None
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=within)))
            self.spool = Spool(folder / "spool", UnsyncedDisk())
            self.catalog = Catalog(folder / "catalog.db")
            stack.callback(self.catalog.close)
            bell = Bell(folder)
            stack.callback(bell.close)
            self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self._watched = Watched(
                admission=Admission(
                    ae_title="DICOMNODE",
                    peers=(),
                    accept_unknown=True,
                    min_free_bytes=0,
                    quiet_s=1.0,
                ),
                spool=self.spool,
                journal=Journal(self.catalog, bell, 1),
                clock=SystemClock(),
            )
            limits = Limits()
            self._house = House(
                receiver=self._watched,
                limits=limits,
                contexts=contexts.answerable(contexts.acceptor_contexts(commitment=True)),
                gate=Doorkeeper(limits),
                committer=Agreeable(),
            )
            self._complaints = Complaints()
            stack.enter_context(_heard_by(self._complaints))
            self._first: tuple[int, int, float] | None = None
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self, case: Case) -> Heard:
        """One connection from its first byte to its last. Raises Failure."""
        self._watched.kept.clear()
        heard = told(self._conversation(case.stream))
        if self._complaints.told:
            said, self._complaints.told = self._complaints.told, []
            raise Failure(f"the node failed inside: {said[0]}")
        if heard.stored > len(self._watched.kept):
            raise Failure("an object was answered with success that no receiver took")
        for kept in {one.request.sop_instance_uid: one for one in self._watched.kept}.values():
            self._check_kept(kept)  # the same object may come twice
        if case.sound and (any(heard.statuses) or heard.stored != case.objects):
            raise Failure(f"a sound conversation was answered {heard.statuses}")
        return heard

    def look(self) -> None:
        """Another peer's C-ECHO, threads, descriptors, memory, temporaries. Raises Failure."""
        if told(self._conversation(ECHO)).statuses != [0]:
            raise Failure("the C-ECHO of another peer was not answered")
        if left := list(self.spool.root.glob("incoming/*")):
            raise Failure(f"{len(left)} temporary files are left")
        now = (threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), _memory_mib())
        if self._first is None:
            self._first = now
        threads, descriptors, memory = self._first
        if now[0] > threads or now[1] > descriptors or now[2] > memory + MEMORY_MIB:
            raise Failure(f"threads, descriptors, MiB: {now}, and first {self._first}")

    def _conversation(self, stream: bytes) -> bytes:
        """All that comes back to who sends this, and closes his side."""
        client = socket.create_connection(self._listener.getsockname())
        server, address = self._listener.accept()
        with client:
            client.settimeout(_ANSWER_S)
            sender = threading.Thread(target=_send, args=(client, stream))
            if len(stream) > _INLINE_BYTES:
                sender.start()
            else:
                _send(client, stream)
            acceptor = Acceptor(server, address[:2], self._house)
            self._house.gate.arrive(acceptor)  # type: ignore[attr-defined]
            acceptor.run()
            answer = bytearray()
            with contextlib.suppress(ConnectionResetError):
                while piece := client.recv(65536):
                    answer += piece
            if len(stream) > _INLINE_BYTES:
                sender.join()
        return bytes(answer)

    def _check_kept(self, kept: Kept) -> None:
        """Whole, by a reader of another make; and known by the UIDs that it has."""
        known = self.catalog.views.instance(kept.request.sop_instance_uid)
        if known is None:
            raise Failure("an object was acknowledged that the catalog does not know")
        path, request = self.spool.path(known.path), kept.request
        try:
            uids = uids_of(path.read_bytes(), request.transfer_syntax_uid)
            again = check_stored(path, request.sop_class_uid, request.sop_instance_uid)
            if again is not None:
                raise Failure(f"the next start would not know it: {again.comment}")
            if read_attributes(path) != known.attributes:
                raise Failure("the next start would read another header")
        except NotWhole as error:
            raise Failure(
                f"acknowledged with 0x{kept.status:04X}, and not whole: {error}"
            ) from None
        finally:
            path.unlink(missing_ok=True)
        said = (known.sop_class_uid, known.sop_instance_uid, known.study_uid, known.series_uid)
        if tuple(uids.values()) != said:
            raise Failure(f"the catalog says {said}, and the object {tuple(uids.values())}")


def told(answer: bytes) -> Heard:
    """Our own PDUs, taken apart: they must be well formed. Raises Failure."""
    heard, position, command = Heard(), 0, b""
    while position < len(answer):
        if len(answer) - position < 6:
            raise Failure("a PDU of the node is cut")
        kind, length = struct.unpack_from(">BxI", answer, position)
        body = answer[position + 6 : position + 6 + length]
        position += 6 + length
        if len(body) != length or kind not in (2, 3, 4, 6, 7):
            raise Failure(f"a PDU of the node is malformed: type {kind}")
        heard.kinds.append(kind)
        if kind == 4:
            piece, last = wire.fragment_of(body)
            command += piece
            if last:
                elements, command = wire.command_elements(command), b""
                status = int.from_bytes(elements[0x0900], "little")
                heard.statuses.append(status)
                is_store = elements[0x0100] == b"\x01\x80"
                heard.stored += is_store and (status == 0 or status >> 12 == 0xB)
    return heard


ECHO = (
    wire.associate_rq([(wire.VERIFICATION, (wire.EXPLICIT,))], calling="OTHER")
    + wire.p_data(wire.pdv(wire.c_echo(), command=True))
    + wire.RELEASE
)


def _send(client: socket.socket, stream: bytes) -> None:
    with contextlib.suppress(OSError):  # the node may end it before
        client.sendall(stream)
        client.shutdown(socket.SHUT_WR)


def _memory_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def _heard_by(handler: logging.Handler) -> Iterator[None]:
    """Errors of the node go to the handler, and its lines nowhere."""
    loggers = [logging.getLogger("dicom_node"), logging.getLogger("dicom_node.dimse.answers")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
