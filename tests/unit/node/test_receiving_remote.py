"""What a receiving process asks of the node, and what it does with the answers."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from dicom_node.dimse.contract import StoreAnswer, StoreRequest
from dicom_node.node.receiving import RemoteReceiver
from dicom_node.node.wire import Channel, Gone
from dicom_node.spool.store import Spool

LOW = StoreAnswer(status=0xA700, comment="disk space is below the limit", recorded=True)
FAILED = StoreAnswer(status=0x0110, comment="internal failure")
MARK = 1000
REQUEST = StoreRequest(
    association=1,
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.4",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    message_id=1,
    calling_ae="CT1",
)


class Asked:
    """The node's end of a channel, which answers as it is told to."""

    def __init__(self, folder):
        self.may_begin: StoreAnswer | None = None
        self.is_metered: object = False
        self.free, self.now = MARK, 0.0
        here, there = socket.socketpair()
        self._channel, self._remote = Channel(here), Channel(there)
        spool = Spool(folder / "spool")
        spool.free_bytes = lambda: self.free
        self.receiver = RemoteReceiver(
            self._remote, spool, contextlib.nullcontext(), MARK, lambda: self.now
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(Gone):
            while True:
                name, *_ = self._channel.receive()
                self._channel.send(getattr(self, name, True))

    def begin(self):
        """Whether an object may come, or how it is refused."""
        begun = self.receiver.begin(REQUEST)
        if isinstance(begun, StoreAnswer):
            return begun
        begun.abort()
        return "it may"

    def close(self):
        self._remote.close()
        self._thread.join()
        self._channel.close()


@pytest.fixture
def node(tmp_path):
    node = Asked(tmp_path)
    yield node
    node.close()


def test_an_association_meets_a_disk_that_fills_up_while_it_stores(node):
    assert node.begin() == "it may"
    node.free, node.may_begin = MARK - 1, LOW
    assert node.begin() == LOW
    node.free, node.may_begin = MARK, None
    assert node.begin() == "it may"


def test_it_meets_what_else_the_node_refuses_for_within_a_second(node):
    assert node.begin() == "it may"
    node.may_begin = FAILED
    node.now += 1.0
    assert node.begin() == FAILED
    assert node.begin() == FAILED, "it is asked until it lets one begin"
    node.may_begin = None
    assert node.begin() == "it may"


def test_a_peer_with_a_quota_is_asked_about_each_time(node):
    node.is_metered = True
    assert node.begin() == "it may"
    node.may_begin = LOW
    assert node.begin() == LOW


def test_a_node_that_cannot_tell_of_a_quota_lets_nothing_begin(node):
    node.is_metered = FAILED
    assert [node.begin(), node.begin()] == [FAILED] * 2
    node.is_metered = True
    assert node.begin() == "it may"
    node.may_begin = LOW
    assert node.begin() == LOW, "it has one"
