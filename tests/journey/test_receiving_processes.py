"""Several processes receive on one port: what is promised of one holds of them, too."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from dicom_node.dimse.entity import Entity
from dicom_node.dimse.scu import echo, store
from dicom_node.domain.records import Peer
from dicom_node.node import serve
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series, items_of, write_files
from raw.ends import has_ended, holds, open_files
from raw.wire import Caller, c_store, p_data, pdv

TWO = "processes = 2"


@pytest.fixture(scope="module")
def shared(start_shared, build, shared_pacs):
    """For tests that leave its processes alone."""
    return ready(start_shared(peers=peers(build, shared_pacs), receive=TWO))


@pytest.fixture
def node(start_node, build, pacs):
    return ready(start_node(peers=peers(build, pacs), receive=TWO))


def peers(build, pacs) -> str:
    return build.peer_table("pacs", "TESTPACS", pacs.port)


def ready(node):
    node.receiving(2)
    return node


def peer(node) -> Peer:
    return Peer(name="node", ae_title="DICOMNODE", host="127.0.0.1", port=node.port)


def send(node, objects) -> list[int]:
    return send_series(node.address, "DICOMNODE", objects, calling_ae="TESTPACS")


def uid_of(objects) -> str:
    return str(objects[0].SeriesInstanceUID)


def temporaries(node) -> list[Path]:
    return list((node.folder / "var" / "spool" / "incoming").iterdir())


def test_series_of_several_associations_each_get_their_result(shared, shared_pacs):
    many = [a_series(6, header=Header(seed=n, series=str(n))) for n in range(6)]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda one=one: statuses.extend(send(shared, one))) for one in many
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 36
    shared.wait(lambda: len(shared_pacs.instances()) == 6)
    assert all("pacs has it" in shared.why(uid_of(one)) for one in many)
    assert not temporaries(shared)


def test_what_is_refused_is_known_to_the_node_itself(shared):
    (one,) = a_series(1)
    one.Rows = 4096  # than there are pixels for
    (status,) = send(shared, [one])
    assert status == 0xC000
    shared.wait(lambda: "refused" in shared.story(str(one.SOPInstanceUID)).verdict)


def test_the_same_object_again_and_another_under_its_uid(shared):
    (one,) = a_series(1)
    assert send(shared, [one]) == [0]
    assert send(shared, [one]) == [0]
    one.PatientComments = "another"
    assert send(shared, [one]) == [0x0111]


def test_both_processes_receive(shared):
    one, other = shared.receiving_pids(2)

    def apart() -> bool:
        found = [holds(one, first), holds(other, second), holds(one, second), holds(other, first)]
        return found in ([True, True, False, False], [False, False, True, True])

    with socket.create_connection(shared.address) as first:
        shared.wait(lambda: holds(one, first) or holds(other, first))
        with socket.create_connection(shared.address) as second:
            shared.wait(apart)


def test_a_process_that_is_killed_loses_nothing_that_was_acknowledged(node, pacs, tmp_path):
    """Its associations end with it; what their peers were not told is sent again."""
    objects = a_series(6)
    assert send(node, objects[:3]) == [0] * 3
    pids = node.receiving_pids(2)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    items = items_of(write_files(tmp_path, objects[3:]))
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(store, peer=peer(node), calling_ae="TESTPACS", items=items)
        assert not wait([sending], 0.5).done, "nobody answers"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        outcomes = sending.result(60)  # of an association that was broken, and of another one
    left = [item for item, outcome in zip(items, outcomes, strict=True) if not outcome.succeeded]
    if left:  # the other one came to a process that was about to be killed
        node.wait(lambda: all(has_ended(pid) for pid in pids))
        outcomes = store(peer=peer(node), calling_ae="TESTPACS", items=left)
    assert all(outcome.succeeded for outcome in outcomes)
    node.wait(lambda: len(pacs.made_from(uid_of(objects))) >= 1)
    assert set(node.receiving_pids(2)).isdisjoint(pids), "they were started again"
    assert not temporaries(node)


def test_a_process_that_is_killed_within_an_object_leaves_nothing_of_it(node):
    pids = node.receiving_pids(2)
    caller = Caller(node.port)
    with contextlib.closing(caller):
        caller.associate(calling="TESTPACS")
        assert any(holds(pid, caller.socket) for pid in pids)
        caller.send(p_data(pdv(c_store(), command=True)))
        caller.send(p_data(pdv(bytes(4096), command=False, last=False)))
        node.wait(lambda: [path.stat().st_size > 4096 for path in temporaries(node)] == [True])
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert caller.receive() == (0, b"")
    node.wait(lambda: not temporaries(node))


def test_without_any_the_node_receives_itself(node):
    """A connection that is handed over while they die breaks, as it would with the node."""
    pids = node.receiving_pids(2)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    node.wait(lambda: all(has_ended(pid) for pid in pids))
    outcomes = [echo(peer=peer(node), calling_ae="TESTPACS") for _ in range(3)]
    assert all(outcome.succeeded for outcome in outcomes), outcomes


def test_a_process_without_room_for_more_descriptors_goes_on_with_what_it_has(node):
    pids = node.receiving_pids(2)
    node.wait(lambda: len({len(open_files(pid)) for pid in pids}) == 1)
    with socket.create_connection(node.address) as held:
        node.wait(lambda: any(holds(pid, held) for pid in pids))
        had = [open_files(pid) for pid in pids]
        for room in (0, 1):
            with limited(pids, room):
                for _ in range(4):
                    with socket.create_connection(node.address, 20) as turned_away:
                        turned_away.settimeout(20)
                        assert turned_away.recv(1) == b"", "it is closed"
            node.wait(lambda: [open_files(pid) for pid in pids] == had)
        assert node.receiving_pids(2) == pids
        assert any(holds(pid, held) for pid in pids)
    assert all(echo(peer=peer(node), calling_ae="TESTPACS").succeeded for _ in range(3))


@contextlib.contextmanager
def limited(pids: list[int], room: int) -> Iterator[None]:
    """These processes have so many descriptors left."""
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    for pid, (_, hard) in limits.items():
        taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        free = (number for number in itertools.count() if number not in taken)
        soft = next(itertools.islice(free, room, None))  # the first that it cannot have
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    yield
    for pid, limit in limits.items():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


def test_an_association_that_is_idle_when_the_node_stops_is_aborted(node, monkeypatch):
    monkeypatch.setattr(serve, "_GRACE_S", 0.1)
    entity = Entity(ae_title="TESTPACS")
    entity.add_requested_context("1.2.840.10008.1.1")
    held = entity.associate(*node.address, ae_title="DICOMNODE")
    assert held.is_established
    stopping = threading.Thread(target=node.stop)
    stopping.start()
    held.join(30)
    assert held.is_aborted
    stopping.join(60)
    assert not stopping.is_alive()
