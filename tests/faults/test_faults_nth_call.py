"""Every call that touches the disk fails once: the first, the second, until a run has none left.

After each fault the node is restarted, in the same process. What was acknowledged must be there
whole; what was not may be there whole, or not at all; no temporary may be left, and no file that
the catalog does not know. Then all that was not acknowledged is sent again, and must be taken.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_node.catalog import Catalog
from dicom_node.config.load import load
from dicom_node.dimse.scp import serve_storage
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError
from dicom_node.domain.records import Step
from dicom_node.domain.states import SeriesState, StepState
from dicom_node.iod.image import Reading
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.admit import Admission
from dicom_node.node.bell import Bell
from dicom_node.node.clock import SystemClock
from dicom_node.node.devices import Place
from dicom_node.node.journal import Journal
from dicom_node.node.perform import Performer
from dicom_node.node.performer import builder
from dicom_node.node.receive import StorageReceiver
from dicom_node.node.serve import reconcile
from dicom_node.node.supersede import Superseder
from dicom_node.node.toolbox import Toolbox
from dicom_node.spool.disk import Disk
from dicom_node.spool.store import Spool
from faults.destinations import data_set_digest, digest_of
from faults.harness import Life
from faults.sender import Sent, new_series, send

ENOUGH = 400  # no run makes so many calls: the loop ends because all of them have been failed


class Fault:
    """Counts calls while armed, and says when the n-th is due to fail."""

    def __init__(self, nth: int, kind: str) -> None:
        self.nth, self.kind, self.calls, self.armed = nth, kind, 0, False

    @property
    def met(self) -> bool:
        return self.calls >= self.nth

    def due(self) -> bool:
        self.calls += self.armed
        return self.armed and self.calls == self.nth

    def error(self) -> OSError:
        code = errno.ENOSPC if self.kind in ("ENOSPC", "short") else errno.EIO
        return OSError(code, os.strerror(code))


class FaultyDisk(Disk):
    """The n-th call fails. "short": a write takes a part without an error, the next one nothing."""

    def __init__(self, fault: Fault, *, names_follow: bool) -> None:
        self.fault, self._names_follow, self._refuse_next = fault, names_follow, False

    def names_follow_files(self, folder: Path) -> bool:
        return self._names_follow

    def _maybe(self) -> None:
        if self.fault.due():
            raise self.fault.error()

    def open(self, path: Path) -> int:
        self._maybe()
        return super().open(path)

    def write(self, descriptor: int, chunks: Sequence[memoryview | bytes]) -> int:
        if self._refuse_next:
            self._refuse_next = False
            raise self.fault.error()
        if self.fault.due():
            if self.fault.kind != "short":
                raise self.fault.error()
            self._refuse_next = True
            return super().write(descriptor, (b"".join(chunks)[:100],))
        return super().write(descriptor, chunks)

    def sync(self, descriptor: int) -> None:
        self._maybe()
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._maybe()
        super().rename(source, target)

    def sync_named(self, descriptor: int) -> None:
        self._maybe()
        super().sync_named(descriptor)

    def sync_folder(self, folder: Path) -> None:
        self._maybe()
        super().sync_folder(folder)


class FaultyConnection:
    """SQLite whose n-th statement fails. "late": it fails after it was carried out."""

    def __init__(self, db: sqlite3.Connection, fault: Fault) -> None:
        self._db, self._fault = db, fault

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if not self._fault.due():
            return self._db.execute(sql, *values)
        if self._fault.kind == "late":
            self._db.execute(sql, *values)
        full = self._fault.kind == "ENOSPC"
        error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
        raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@dataclass
class Opened:
    """The bytes and the facts of a node, without its processes."""

    spool: Spool
    catalog: Catalog
    journal: Journal
    clock: SystemClock


@contextmanager
def opened(
    folder: Path,
    *,
    disk: Fault | None = None,
    journaled: Fault | None = None,
    database: Fault | None = None,
) -> Iterator[Opened]:
    """Start on a data folder as the node does, the faults not yet armed.

    journaled: of a disk where names follow files.
    """
    folder.mkdir(exist_ok=True)
    clock = SystemClock()
    catalog = Catalog(folder / "catalog.db")
    broken = disk or journaled
    faulty = FaultyDisk(broken, names_follow=journaled is not None) if broken else None
    spool = Spool(folder / "spool", faulty)
    bell = Bell(folder)
    journal = Journal(catalog, bell)
    journal.commit(e.NodeStarted(at=clock.now(), version="test"))
    reconcile(spool, journal, clock)
    if database is not None:
        catalog._db = FaultyConnection(catalog._db, database)
    for fault in (broken, database):
        if fault is not None:
            fault.armed = True
    try:
        yield Opened(spool=spool, catalog=catalog, journal=journal, clock=clock)
    finally:
        bell.close()
        catalog.close()


def receive(node: Opened, sent: Sent) -> None:
    """The sender's association with the real front and the real receiver."""
    admission = Admission(
        ae_title="DICOMNODE", peers=(), accept_unknown=True, min_free_bytes=0, quiet_s=900
    )
    receiver = StorageReceiver(
        admission=admission, spool=node.spool, journal=node.journal, clock=node.clock
    )
    server = serve_storage(ae_title="DICOMNODE", host="127.0.0.1", port=0, receiver=receiver)
    try:
        send(("127.0.0.1", server.port), sent)
    finally:
        server.stop(10)


def check(folder: Path, sent: Sent) -> None:
    """Restart, and hold what is there against what was said."""
    with opened(folder) as node:
        wanted = {str(d.SOPInstanceUID): digest_of(d) for d in sent.datasets}
        held = {
            i.sop_instance_uid: data_set_digest(node.spool.path(i.path).read_bytes())
            for i in node.catalog.views.instances(sent.uid)
        }
        assert sent.acknowledged <= held.keys()
        assert held == {uid: wanted[uid] for uid in held}
        files = {str(p.relative_to(folder / "spool")) for p in (folder / "spool").rglob("*.*")}
        assert files == node.catalog.views.paths()
        answers = len(sent.refused)
        receive(node, sent)
        assert len(sent.refused) == answers
        assert sent.acknowledged == wanted.keys()


def every_call(folder: Path, trial: Callable[[Path, int], bool]) -> int:
    """trial(folder, n) for n = 1, 2, 3, ... until it says that there was no n-th call."""
    for nth in range(1, ENOUGH):
        if not trial(folder / str(nth), nth):
            return nth - 1
        shutil.rmtree(folder / str(nth))
    pytest.fail("the run never ended without a fault")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a file system: the syncs are not what is tested here."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def two_slices() -> list[Dataset]:
    return new_series("nth", 0)[:2]


RECEIVING = [
    ("disk", "ENOSPC", 0xA700),
    ("journaled", "ENOSPC", 0xA700),
    pytest.param("journaled", "EIO", 0x0110, marks=pytest.mark.faults),
    pytest.param("disk", "short", 0xA700, marks=pytest.mark.faults),
    ("database", "EIO", 0x0110),
    pytest.param("disk", "EIO", 0x0110, marks=pytest.mark.faults),
    pytest.param("database", "late", 0x0110, marks=pytest.mark.faults),
    pytest.param("database", "ENOSPC", 0xA700, marks=pytest.mark.faults),
]


@pytest.mark.parametrize(("what", "kind", "status"), RECEIVING)
def test_whichever_call_fails_while_receiving_only_what_is_durable_was_acknowledged(
    folder: Path, two_slices, tally, what: str, kind: str, status: int
):
    def trial(folder: Path, nth: int) -> bool:
        fault, sent = Fault(nth, kind), Sent(two_slices)
        with opened(folder, **{what: fault}) as node:
            receive(node, sent)
        if fault.met:
            assert set(sent.refused) <= {status}
        else:
            assert len(sent.acknowledged) == 2
        acknowledged = len(sent.acknowledged)
        tally.acknowledged += acknowledged
        check(folder, sent)
        tally.found += acknowledged
        return fault.met

    calls = every_call(folder, trial)
    assert calls >= {"disk": 12, "journaled": 10, "database": 16}[what]


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory, tally) -> tuple[Path, Path]:
    """A data folder with a step that waits, and the configuration it belongs to."""

    class Nobody:
        port = 11112

        def received(self) -> dict[str, set[str]]:
            return {}

    life = Life(tmp_path_factory.mktemp("nth") / "node", Nobody(), seed="nth", tally=tally)
    sent = Sent(new_series("nth", 1))
    with opened(life.data_dir) as node:
        receive(node, sent)
        now = node.clock.now()
        step = Step(
            step_id=0,
            series_uid=sent.uid,
            revision=node.catalog.views.series(sent.uid).revision,
            route="lungs",
            tool_id="lung-threshold",
            results=("seg",),
            destinations=("pacs",),
            instance_uids=tuple(sorted(sent.acknowledged)),
            state=StepState.SCHEDULED,
            attempt=0,
            priority=0,
            due_at=now,
        )
        node.journal.commit(
            e.SeriesJudged(
                at=now,
                series_uid=sent.uid,
                revision=step.revision,
                state=SeriesState.COMPLETE,
                reasons=("whole",),
            ),
            e.StepScheduled(at=now, step=step),
        )
    return life.data_dir, life.config


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("disk", "ENOSPC"),
        pytest.param("journaled", "EIO", marks=pytest.mark.faults),
        pytest.param("database", "EIO", marks=pytest.mark.faults),
        pytest.param("disk", "EIO", marks=pytest.mark.faults),
        pytest.param("disk", "short", marks=pytest.mark.faults),
        pytest.param("database", "late", marks=pytest.mark.faults),
        pytest.param("database", "ENOSPC", marks=pytest.mark.faults),
    ],
)
def test_whichever_call_fails_while_performing_the_result_is_made_once_and_whole(
    folder: Path, scheduled: tuple[Path, Path], tally, what: str, kind: str
):
    template, config = scheduled
    digests = set()

    def perform(node: Opened, later_s: float = 0.0) -> None:
        performer = Performer(
            name="performer 0",
            tools=Toolbox(build=builder(load(config), Place(number=0, devices=("auto",)))),
            settings=SegSettings(),
            reading=Reading(threads=1),
            max_attempts=1 if what == "disk" and kind != "EIO" else 100,  # full is nobody's failure
            spool=node.spool,
            journal=node.journal,
            clock=node.clock,
            superseder=Superseder(
                told=frozenset(),
                settings=SegSettings(),
                spool=node.spool,
                journal=node.journal,
            ),
        )
        performer.run_due(node.clock.now() + later_s)

    def trial(folder: Path, nth: int) -> bool:
        shutil.copytree(template, folder)
        fault = Fault(nth, kind)
        with opened(folder, **{what: fault}) as node:
            try:
                perform(node)
            except CatalogError:
                assert what == "database"
            fault.armed = False
        with opened(folder) as node:
            perform(node, later_s=1000)
            ((path, sha256),) = node.catalog.views._db.execute("SELECT path, sha256 FROM result")
            ((state,),) = node.catalog.views._db.execute("SELECT state FROM step")
            ((owed,),) = node.catalog.views._db.execute("SELECT state FROM delivery")
            file = folder / "spool" / path
            assert (state, owed) == ("COMPLETED", "QUEUED")
            digests.add(sha256)
            assert data_set_digest(file.read_bytes())
            files = {str(p.relative_to(folder / "spool")) for p in (folder / "spool").rglob("*.*")}
            assert files - node.catalog.views.paths() == set()
        tally.expected += 1
        tally.results += 1
        return fault.met

    calls = every_call(folder, trial)
    assert calls >= {"disk": 5, "journaled": 4, "database": 8}[what]
    assert len(digests) == 1
