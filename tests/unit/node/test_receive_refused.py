"""Of what is refused nothing is kept, and of what is acknowledged nothing is taken back."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from dicom_node.catalog import Catalog
from dicom_node.catalog.damage import mark_of
from dicom_node.dimse.contract import AssociationRequest
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError
from dicom_node.node import bell as bells
from dicom_node.node.admit import Admission
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal
from dicom_node.node.receive import StorageReceiver
from dicom_node.spool.store import Spool
from dicom_node.testing.received import store_through
from dicom_node.testing.series import Header, a_series


class Node:
    """Receives; `journal` may be made to refuse."""

    def __init__(self, folder, journal=Journal):
        self.path = folder / "catalog.db"
        self.catalog = Catalog(self.path)
        self.spool = Spool(folder / "spool")
        self.bell = bells.Bell(folder)
        self.journal = journal(self.catalog, self.bell)
        self.receiver = StorageReceiver(
            admission=Admission(
                ae_title="NODE", peers=(), accept_unknown=True, min_free_bytes=0, quiet_s=1.0
            ),
            spool=self.spool,
            journal=self.journal,
            clock=SystemClock(),
        )

    def close(self):
        self.catalog.close()
        self.bell.close()

    def store(self, dataset):
        """Over an association of its own; the status."""
        request = AssociationRequest(
            calling_ae="CT1", called_ae="NODE", address="::1", port=1, proposes_storage=True
        )
        return store_through(self.receiver, dataset, association=self.receiver.admit(request))

    def files(self):
        return [p for p in self.spool.root.rglob("*") if p.is_file()]


class Refusing(Journal):
    """The catalog of a journal that has met an error."""

    error = CatalogError("the catalog could not commit: the disk is full", full=True)
    times = 1

    def commit(self, *events):
        if self.times and isinstance(events[-1], e.InstanceArrived):
            self.times -= 1
            raise self.error
        return super().commit(*events)


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path, Refusing)
    node.journal.times = 0
    yield node
    node.close()


def test_of_what_a_damaged_catalog_cannot_record_nothing_is_kept(node):
    mark_of(node.path).write_text("database disk image is malformed\n")
    assert [node.store(d) for d in a_series(3)] == [0x0110] * 3
    assert node.files() == []


def test_of_what_a_full_catalog_cannot_record_nothing_is_kept(node):
    assert node.store(a_series(1)[0]) == 0
    (kept,) = node.files()
    (pages,) = node.catalog._db.execute("PRAGMA page_count").fetchone()
    node.catalog._db.execute(f"PRAGMA max_page_count = {pages}")
    more = [a_series(1, header=Header(seed=n))[0] for n in range(1, 20)]
    assert 0xA700 in {node.store(dataset) for dataset in more}
    held = {node.spool.path(p) for p in node.catalog.views.paths()}
    assert set(node.files()) == held
    assert kept in held


def test_a_repetition_that_cannot_be_recorded_takes_nothing_along(node):
    (dataset,) = a_series(1)
    assert node.store(dataset) == 0
    node.journal.times = 1
    assert node.store(dataset) == 0xA700
    assert len(node.files()) == 1


def test_what_may_have_been_recorded_after_all_stays_for_the_next_start(node):
    node.journal.times = 1
    node.journal.error = CatalogError("the catalog could not commit: disk I/O error", unsure=True)
    assert node.store(a_series(1)[0]) == 0x0110
    assert len(node.files()) == 1


def test_an_error_while_a_transaction_ends_leaves_it_open_whether_it_was_committed(node):
    class Failing:
        """SQLite that cannot sync."""

        def __init__(self, db):
            self.db = db

        def execute(self, sql, *values):
            if sql == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
            return self.db.execute(sql, *values)

        def __getattr__(self, name):
            return getattr(self.db, name)

    sound, node.catalog._db = node.catalog._db, Failing(node.catalog._db)
    with pytest.raises(CatalogError) as refused:
        node.journal.commit(e.NodeStarted(at=1.0, version="1"))
    assert refused.value.unsure
    node.catalog._db = sound


def test_who_records_the_same_bytes_at_the_same_time_keeps_them(tmp_path):
    first_is_here, other_is_here, first_is_refused = (threading.Event() for _ in range(3))

    class Crossing(Journal):
        """The first is refused while the second is between its file and its record."""

        def commit(self, *events):
            if not isinstance(events[-1], e.InstanceArrived):
                return super().commit(*events)
            if not first_is_here.is_set():
                first_is_here.set()
                assert other_is_here.wait(30)
                raise CatalogError("the catalog could not commit: the disk is full", full=True)
            other_is_here.set()
            assert first_is_refused.wait(30)
            return super().commit(*events)

    node = Node(tmp_path, Crossing)
    (dataset,) = a_series(1)
    statuses = {}

    def first():
        statuses["first"] = node.store(dataset)
        first_is_refused.set()

    def second():
        statuses["second"] = node.store(dataset)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert first_is_here.wait(30)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert statuses == {"first": 0xA700, "second": 0}
    assert len(node.files()) == 1
    node.close()


def test_a_check_that_fails_itself_leaves_no_temporary(node, monkeypatch):
    def fails(*_args: object, **_how: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("dicom_node.node.receive.check_received", fails)
    (dataset,) = a_series(1)
    with pytest.raises(RuntimeError):
        node.store(dataset)
    assert node.files() == []
