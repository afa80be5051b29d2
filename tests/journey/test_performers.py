"""Several performers of one node: every step is done by one of them, and all of them work."""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest

from dicom_node.domain import events as e
from dicom_node.domain.states import StepState
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series

TWO = "[engine]\ndevice = 'cpu'\nperformers = 2\n"


@pytest.fixture
def node(start_node, build, pacs):
    return start_node(peers=build.peer_table("pacs", "TESTPACS", pacs.port), more=TWO)


def sent(node, count: int, first: int = 0) -> list[str]:
    """Sends so many series, each over an association of its own, several at a time."""
    objects = [a_series(6, header=Header(seed=first + n, series=str(n))) for n in range(count)]
    statuses: list[int] = []

    def send(series) -> None:
        said = send_series(node.address, "DICOMNODE", series, calling_ae="TESTPACS")
        statuses.extend(said)

    threads = [threading.Thread(target=send, args=(series,)) for series in objects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 6 * count
    return [str(series[0].SeriesInstanceUID) for series in objects]


def events_of(node, uid: str):
    return [event for _, event in node.running.catalog.views.events_of(uid)]


def claimed_by(node, uids) -> Counter[str]:
    claims = [x for uid in uids for x in events_of(node, uid) if isinstance(x, e.StepClaimed)]
    return Counter(claim.performer for claim in claims)


def wait_for(node, pacs, uids) -> None:
    node.wait(lambda: all_done(node, pacs, uids))


def all_done(node, pacs, uids) -> bool:
    steps = [step for uid in uids for step in node.running.catalog.views.steps(uid)]
    return len(pacs.instances()) >= len(uids) == len(steps) and all(
        step.state is StepState.COMPLETED for step in steps
    )


def once_each(node, pacs, uids) -> None:
    """Every series has one result, which the PACS was sent once."""
    for uid in uids:
        (result,) = node.running.catalog.views.results(uid)
        assert pacs.stored_counts[result.sop_instance_uid] == 1
        assert len([x for x in events_of(node, uid) if isinstance(x, e.StepCompleted)]) == 1
    assert len(pacs.instances()) == len(uids)


def test_two_performers_make_every_result_once_and_both_work(node, pacs):
    uids: list[str] = []
    for turn in range(10):  # one may still be starting while the other works
        uids += sent(node, 6, first=10 * turn)
        wait_for(node, pacs, uids)
        if len(claimed_by(node, uids)) == 2:
            break
    once_each(node, pacs, uids)
    claims = claimed_by(node, uids)
    assert set(claims) == {"performer 0", "performer 1"}
    assert sum(claims.values()) == len(uids), "no step was taken twice"


def test_when_one_of_two_performers_is_killed_the_other_goes_on(node, pacs):
    uids = sent(node, 4)
    wait_for(node, pacs, uids)
    pids = node.performer_pids(2)
    os.kill(pids[0], 9)
    more = sent(node, 8, first=100)
    wait_for(node, pacs, [*uids, *more])
    once_each(node, pacs, [*uids, *more])
    assert pids[1] in node.performer_pids(2), "it was not restarted with the one that was killed"
