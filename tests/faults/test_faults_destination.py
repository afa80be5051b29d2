"""The destination is down, refuses, is slow, or is cut off at any byte: one result comes anyway.

A result may be sent more than once where the node cannot know that it came; then it is the same
instance with the same bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.testing.pacs import StoreAttempt
from dicom_node.testing.proxy import Fault, FaultProxy
from faults.destinations import WatchfulPacs
from faults.harness import Life, wait_until
from raw.ports import free_port

SECOND = """
[[peer]]
name = "second"
ae_title = "SECOND"
host = "127.0.0.1"
port = {port}
"""


def states(life: Life) -> dict[str, int]:
    """How many deliveries are in which state."""
    return dict(life.catalog("SELECT state, count(*) FROM delivery GROUP BY state"))


def tried(life: Life) -> int:
    """Attempts that have ended without success."""
    ((count,),) = life.catalog(
        "SELECT count(*) FROM event WHERE kind = 'DeliveryEnded' AND body NOT LIKE '%\"SENT\"%'"
    )
    return int(count)


def through_a_fault(life: Life, proxy: FaultProxy, fault: Fault) -> None:
    """One series, whose first delivery meets the fault."""
    before = tried(life)
    proxy.fault = fault
    life.sending(life.add_series()).join(60)
    life.wait(lambda: tried(life) > before, f"the delivery fails: {fault}")
    proxy.fault = Fault()
    life.wait(lambda: recorded(life), f"the result comes: {fault}")


def recorded(life: Life) -> bool:
    return states(life) == {"SENT": len(life.sent)}


def bytes_of_a_delivery(life: Life, proxy: FaultProxy) -> tuple[int, int]:
    """How much goes to the destination and comes back where nothing is wrong."""
    while True:
        connections, (asked, answered) = proxy.connections, proxy.passed
        life.sending(life.add_series()).join(60)
        life.wait(lambda: recorded(life), "a result comes")
        if proxy.connections == connections + 1:  # else it took more than one, on a busy machine
            return proxy.passed[0] - asked, proxy.passed[1] - answered


@pytest.mark.parametrize(
    "count", [pytest.param(5, id="five"), pytest.param(20, id="twenty", marks=pytest.mark.faults)]
)
@pytest.mark.timeout(600)
def test_a_connection_cut_at_any_byte_costs_nothing_but_another_attempt(
    new_life: Callable[..., Life], pacs: WatchfulPacs, count: int
):
    with FaultProxy(("127.0.0.1", pacs.port)) as proxy:
        life = new_life(pacs, seed="cut", through=proxy.port, answer_s=3)
        life.start()
        life.ready()
        asked, answered = bytes_of_a_delivery(life, proxy)
        lost = Fault(cut_after_bytes=answered - 20, of_answers=True)  # its success is under way
        faults = [lost, Fault(refuse=True), Fault(cut_after_bytes=asked // 2, stall=True)]
        while len(faults) < count:
            of_answers = life.luck.random() < 0.5
            faults.append(
                Fault(
                    cut_after_bytes=life.luck.randrange(
                        1, (answered if of_answers else asked) - 20
                    ),
                    of_answers=of_answers,
                    reset=life.luck.random() < 0.5,
                )
            )
        for fault in faults:
            through_a_fault(life, proxy, fault)
            if fault is lost:
                known = {pacs.source_series(uid): n for uid, n in pacs.stored_counts.items()}
                assert known[life.sent[-1].uid] >= 2, "sent again: nobody could know that it came"
        life.finish()


@pytest.mark.faults
def test_what_is_refused_for_now_is_sent_again_and_what_is_refused_for_good_waits_for_a_person(
    new_life: Callable[..., Life], pacs: WatchfulPacs
):
    answers = {1: 0xA700, 2: 0x0110, 3: 0xA702, 5: 0xA900}

    def judge(attempt: StoreAttempt) -> int:
        return answers.get(attempt.number, 0x0000)

    pacs.on_store = judge
    life = new_life(pacs, seed="refusing")
    life.start()
    life.ready()
    life.sending(life.add_series()).join(60)
    life.wait(lambda: recorded(life), "the fourth attempt succeeds")
    assert [a.times for a in pacs.attempts] == [1, 2, 3, 4]
    life.sending(life.add_series()).join(60)
    life.wait(lambda: states(life) == {"SENT": 1, "PARKED": 1}, "it is parked")
    life.sending(life.add_series()).join(60)
    life.wait(lambda: states(life) == {"SENT": 2, "PARKED": 1}, "others pass")
    assert len(pacs.attempts) == 6, "nobody asked for the parked one again"


@pytest.mark.faults
def test_a_destination_that_answers_too_late_is_asked_again_and_has_one_object(
    new_life: Callable[..., Life], pacs: WatchfulPacs
):
    asked_again = threading.Event()

    def judge(attempt: StoreAttempt) -> int:
        if attempt.number > 1:
            asked_again.set()
        return 0x0000 if asked_again.wait(60) else 0xC000

    pacs.on_store = judge
    life = new_life(pacs, seed="slow", answer_s=2)
    life.start()
    life.ready()
    life.sending(life.add_series()).join(60)
    life.wait(lambda: recorded(life), "it is recorded")
    wait_until(lambda: next(iter(pacs.stored_counts.values())) >= 2, "both came")
    life.finish()


@pytest.mark.faults
def test_a_destination_that_is_down_holds_up_no_other_and_gets_everything_later(
    new_life: Callable[..., Life], pacs: WatchfulPacs, tmp_path: Path
):
    port = free_port()
    both = '@sender", "second'
    life = new_life(pacs, seed="down", to=both, more=SECOND.format(port=port))
    life.start()
    life.ready()
    life.sending(life.add_series(3)).join(60)
    life.wait(lambda: states(life).get("SENT") == 3, "one gets its results")
    second = WatchfulPacs(tmp_path / "second", ae_title="SECOND", port=port)
    with second:
        life.wait(lambda: states(life) == {"SENT": 6}, "so does the other")
        assert list(second.stored_counts.values()) == [1, 1, 1]
        assert second.received() == pacs.received()
        life.finish()


@pytest.mark.faults
def test_two_nodes_with_one_model_make_the_same_object_of_the_same_images(
    new_life: Callable[..., Life], pacs: WatchfulPacs
):
    lives = [new_life(pacs, seed="same") for _ in range(2)]
    for life in lives:
        life.start()
    for life in lives:
        life.ready()
        life.sending(life.add_series(2)).join(60)
    for life in lives:
        life.wait(lambda life=life: recorded(life), "both deliver")
        life.finish()
    assert list(pacs.stored_counts.values()) == [2, 2]
    assert all(len(digests) == 1 for digests in pacs.received().values())
