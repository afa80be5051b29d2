"""What another process made durable is a fact, or refused: never acknowledged and gone."""

from __future__ import annotations

import threading

import pytest

from dicom_node.catalog import Catalog
from dicom_node.dimse.contract import AssociationRequest, StoreRequest
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError
from dicom_node.iod.received import Received
from dicom_node.node import bell as bells
from dicom_node.node.admit import Admission
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal
from dicom_node.node.receive import StorageReceiver
from dicom_node.spool.store import Spool

CALLER = AssociationRequest(calling_ae="CT1", called_ae="NODE", address="::1", port=1)
RECEIVED = Received(attributes={"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"})


class Refusing(Journal):
    """Does not record what comes first."""

    times = 1

    def commit(self, *events):
        if self.times and isinstance(events[-1], e.InstanceArrived):
            self.times -= 1
            raise CatalogError("the catalog could not commit: the disk is full", full=True)
        return super().commit(*events)


class Watched(Spool):
    """Says when a certain thread asks for a folder, or looks for a file."""

    def __init__(self, root):
        super().__init__(root)
        self.name = "second"
        self.asked = threading.Event()

    def held(self, relative):
        self._note()
        return super().held(relative)

    def look(self, relative):
        found = super().look(relative)
        self._note()
        return found

    def _note(self):
        if threading.current_thread().name == self.name:
            self.asked.set()


class Node:
    def __init__(self, folder):
        self.catalog = Catalog(folder / "catalog.db")
        self.spool = Watched(folder / "spool")
        self.bell = bells.Bell(folder)
        self.receiver = StorageReceiver(
            admission=Admission(
                ae_title="NODE", peers=(), accept_unknown=True, min_free_bytes=0, quiet_s=1.0
            ),
            spool=self.spool,
            journal=Refusing(self.catalog, self.bell),
            clock=SystemClock(),
        )

    def record(self, stored):
        """What another process stored, over an association of its own; the status."""
        request = StoreRequest(
            association=self.receiver.admit(CALLER),
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid="1.4",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            message_id=1,
            calling_ae="CT1",
        )
        return self.receiver.record_of_another(request, stored, RECEIVED).status


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.catalog.close()
    node.bell.close()


def test_what_is_being_taken_back_is_not_acknowledged(node, monkeypatch):
    """The first is refused; the second comes while the file is judged to be nobody's."""
    first, second = node.spool.put(b"the same bytes"), node.spool.put(b"the same bytes")
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(node.record(second)), name="second")

    def path_known(_path):
        thread.start()
        assert node.spool.asked.wait(30)
        return False

    monkeypatch.setattr(
        type(node.catalog.views), "path_known", lambda _self, path: path_known(path)
    )
    assert node.record(first) == 0xA700
    thread.join(30)
    assert statuses == [0x0110]
    assert list(node.spool.files()) == []


def test_what_is_about_to_be_recorded_is_not_taken_back(node):
    first, second = node.spool.put(b"the same bytes"), node.spool.put(b"the same bytes")
    with node.receiver.recording(second.path):
        assert node.record(first) == 0xA700
    assert node.record(second) == 0
    assert list(node.spool.files()) == [second.path]
