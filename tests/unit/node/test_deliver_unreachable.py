"""A peer that cannot be reached: one batch tries, everything else waits for it as one event."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.catalog import Catalog
from dicom_node.catalog.refold import differences
from dicom_node.decide import retry
from dicom_node.dimse.contract import Rejection
from dicom_node.dimse.scu import Phase, StoreOutcome
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.records import Delivery, Instance, Peer, Result
from dicom_node.domain.states import DeliveryState, SeriesState
from dicom_node.node import bell as bells
from dicom_node.node import deliver
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.node.verdict import fate
from dicom_node.spool.store import Spool

S = DeliveryState
BEGINNING = 1_800_000_000.0
BATCH = 3
GONE = "cannot connect to 10.1.2.3:104"
POLICY = retry.Policy(first_s=5.0, factor=2.0, max_s=3600.0, give_up_s=86400.0, jitter=0.0)


class ClockOfTests:
    def __init__(self):
        self.at = BEGINNING

    def now(self):
        return self.at

    def luck(self):
        return 0.0

    def new_uid(self):
        return "2.25.1"


class Network:
    """Takes what is sent to a peer that is there. away: of those that are not, the outcome."""

    def __init__(self):
        self.away = {}
        self.tried = []  # (peer, how many)

    def send(self, peer, items, on_outcome):
        self.tried.append((peer.name, len(items)))
        how = self.away.get(peer.name, {"phase": Phase.STATUS, "status": 0})
        for item in items:
            on_outcome(StoreOutcome(sop_instance_uid=item.sop_instance_uid, **how))


NOT_THERE = {"phase": Phase.CONNECT, "detail": GONE, "associated": False}


class Node:
    def __init__(self, folder: Path):
        self.folder = folder
        self.clock, self.network = ClockOfTests(), Network()
        self.catalog = Catalog(folder / "catalog.db")
        self.bell = bells.Bell(folder)
        self.journal = Journal(self.catalog, self.bell)
        self.spool = Spool(folder / "spool")
        self.stored = self.spool.put(b"a result")
        names = ("pacs", "archive")
        self.deliverer = deliver.Deliverer(
            peers={name: Peer(name=name, ae_title=name, host="h", port=1) for name in names},
            policy=POLICY,
            spool=self.spool,
            journal=self.journal,
            clock=self.clock,
            send=self.network.send,
            lanes=Lanes(what="deliver to", wake=lambda: None),
        )

    def receive(self):
        """The Series that the results are made from, complete."""
        instance = Instance(
            sop_instance_uid="1.2.3.1",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            study_uid="1.2",
            series_uid="1.2.3",
            path="objects/aa/a",
            size=1,
            sha256="a" * 64,
            association=1,
            received_at=self.clock.at,
            attributes={},
        )
        self.catalog.commit(
            e.InstanceArrived(at=self.clock.at, instance=instance, judge_at=self.clock.at),
            e.SeriesJudged(
                at=self.clock.at,
                series_uid="1.2.3",
                revision=1,
                state=SeriesState.COMPLETE,
                reasons=("all are here",),
            ),
        )

    def owe(self, *numbers, to="pacs"):
        for number in numbers:
            result = Result(
                sop_instance_uid=f"2.25.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                series_uid="2.25.100",
                study_uid="1.2",
                step_id=1,
                source_series_uid="1.2.3",
                tool_id="t",
                tool_version="1",
                kind="sc",
                path=self.stored.path,
                size=self.stored.size,
                sha256=self.stored.sha256,
                created_at=self.clock.at,
            )
            owed = Delivery(
                delivery_id=0,
                result_uid=result.sop_instance_uid,
                destination=to,
                state=S.QUEUED,
                attempt=0,
                created_at=self.clock.at,
                due_at=self.clock.at,
            )
            self.catalog.commit(
                e.ResultStored(at=self.clock.at, result=result),
                e.DeliveryQueued(at=self.clock.at, delivery=owed),
            )

    def turn(self):
        """What is due is tried, to the end; returns when something is due next."""
        while True:
            before = len(self.network.tried)
            due = self.deliverer.run_due(self.clock.at)
            self.deliverer.finish(30.0)
            if len(self.network.tried) == before:
                return due

    def delivery(self, number):
        (delivery,) = self.catalog.views.deliveries(f"2.25.{number}")
        return delivery

    def states(self, *numbers):
        return {self.delivery(number).state for number in numbers}

    def events(self, kind=None):
        found = [event for _, event in self.catalog.views.events_after(0, 10_000)]
        return [event for event in found if kind is None or isinstance(event, kind)]


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(deliver, "BATCH_MAX", BATCH)
    node = Node(tmp_path)
    node.catalog._db.execute("PRAGMA synchronous = OFF")  # nothing here is about power cuts
    node.receive()
    yield node
    node.catalog.close()
    node.bell.close()


ALL = range(1, 8)


def test_one_batch_is_tried_and_all_others_wait_by_one_event(node):
    node.owe(*ALL)
    node.network.away["pacs"] = NOT_THERE
    before = len(node.events())
    due = node.turn()
    assert node.network.tried == [("pacs", BATCH)]
    assert due == BEGINNING + 5
    assert len(node.events()) - before == 2 * BATCH + 1, "claimed and ended, and one for all others"
    told = [node.delivery(number) for number in ALL]
    assert [d.state for d in told] == [S.DEFERRED] * BATCH + [S.QUEUED] * 4
    assert [d.attempt for d in told] == [1] * BATCH + [0] * 4
    assert {d.due_at for d in told} == {due}
    assert all(f"waits for pacs: {GONE}" in fate(d) for d in told)
    assert node.catalog.attention.waiting() == [("pacs", 7, due, GONE)]


def test_the_longer_a_peer_is_away_the_less_it_is_tried_however_much_waits_for_it(node):
    node.owe(*ALL)
    node.network.away["pacs"] = NOT_THERE
    waits = []
    for _ in range(6):
        due = node.turn()
        waits.append(due - node.clock.at)
        node.clock.at = due
    assert waits == [5, 10, 20, 40, 80, 160]
    assert node.network.tried == [("pacs", BATCH)] * 6


def test_a_new_result_tries_once_and_then_waits_with_the_others(node):
    node.owe(*ALL)
    node.network.away["pacs"] = NOT_THERE
    due = node.turn()
    node.clock.at += 1
    node.owe(8)
    assert node.turn() == due
    assert node.network.tried[1:] == [("pacs", 1)]
    assert node.delivery(8).due_at == due
    node.clock.at = due
    assert node.turn() == due + 10, "the second try in its turn"


def test_as_soon_as_a_peer_takes_something_everything_that_waited_is_due(node):
    node.owe(*ALL)
    node.network.away["pacs"] = NOT_THERE
    node.turn()
    node.clock.at += 1
    del node.network.away["pacs"]
    node.owe(8)
    assert node.turn() is None
    assert node.states(*ALL, 8) == {S.SENT}
    assert len(node.events(k.PeerReached)) == 1
    assert node.catalog.owing.unreachable("pacs") is None


def test_what_is_owed_for_too_long_is_given_up_also_if_it_was_never_tried(node):
    node.owe(*ALL)
    node.network.away["pacs"] = NOT_THERE
    due = node.turn()
    while due < BEGINNING + POLICY.give_up_s:
        node.clock.at = due
        due = node.turn()
    assert node.states(*ALL) <= {S.QUEUED, S.DEFERRED}
    node.owe(9)
    node.clock.at = due
    node.turn()
    assert node.states(*ALL) == {S.DEAD}
    assert {GONE in node.delivery(number).reason for number in ALL} == {True}
    assert node.states(9) <= {S.QUEUED, S.DEFERRED}, "it is not owed for that long yet"
    assert len(node.events(e.DeliveryEnded)) < 150


def test_what_waits_long_for_its_turn_is_not_given_up_at_the_first_failure(node):
    node.owe(*ALL)
    node.clock.at += POLICY.give_up_s + 1
    node.network.away["pacs"] = NOT_THERE
    node.turn()
    assert [node.delivery(number).state for number in ALL] == [S.DEAD] * BATCH + [S.QUEUED] * 4


@pytest.mark.parametrize("how", ["asked for", "started"])
def test_an_operator_has_the_peer_tried_at_once(node, how):
    node.owe(*ALL)
    node.network.away["pacs"] = NOT_THERE
    node.turn()
    node.clock.at += 1
    if how == "asked for":
        again = e.DeliveryReset(at=node.clock.at, delivery_id=node.delivery(1).delivery_id)
    else:
        again = e.NodeStarted(at=node.clock.at, version="1")
    node.catalog.commit(again)
    del node.network.away["pacs"]
    node.turn()
    assert node.states(*ALL) == {S.SENT}


def test_who_rejects_for_good_is_reached_and_who_rejects_for_now_is_not(node):
    rejects = {"phase": Phase.REJECT, "detail": "rejected", "associated": False}
    node.owe(*ALL)
    node.network.away["pacs"] = rejects | {"rejection": Rejection(result=2, source=3, reason=2)}
    due = node.turn()
    assert node.network.tried == [("pacs", BATCH)]
    node.clock.at = due
    node.network.away["pacs"] = rejects | {"rejection": Rejection(result=1, source=1, reason=7)}
    node.turn()
    assert node.states(*ALL) == {S.PARKED}
    assert node.catalog.owing.unreachable("pacs") is None


def test_who_goes_away_within_a_batch_keeps_what_it_took_and_the_rest_waits(node):
    node.owe(*ALL)

    def send(peer, items, on_outcome):
        node.network.tried.append((peer.name, len(items)))
        first, *others = (item.sop_instance_uid for item in items)
        on_outcome(StoreOutcome(sop_instance_uid=first, phase=Phase.STATUS, status=0))
        for uid in others:
            on_outcome(StoreOutcome(sop_instance_uid=uid, **NOT_THERE))

    object.__setattr__(node.deliverer, "send", send)
    node.turn()
    assert [node.delivery(number).state for number in ALL] == [
        *[S.SENT, S.DEFERRED, S.DEFERRED],
        *[S.QUEUED] * 4,
    ]


def test_another_peer_is_sent_what_is_its_and_is_looked_at_when_due(node):
    node.network.away["pacs"] = NOT_THERE
    node.owe(*ALL)
    node.owe(11, 12, to="archive")
    assert node.turn() == BEGINNING + 5
    assert node.states(11, 12) == {S.SENT}
    node.clock.at += 1
    node.owe(13, to="archive")
    assert node.catalog.owing.next_due(("pacs",)) == node.clock.at
    assert node.catalog.owing.next_due(("archive",)) == BEGINNING + 5


def test_the_events_make_the_same_tables_again(node, tmp_path):
    node.network.away["pacs"] = NOT_THERE
    node.owe(*ALL)
    due = node.turn()
    node.clock.at = due + POLICY.give_up_s
    node.turn()
    node.owe(8)
    node.turn()
    assert node.states(*ALL) == {S.DEAD}
    assert node.catalog.owing.unreachable("pacs").tries == 2
    scratch = tmp_path / "scratch.db"
    assert differences(tmp_path / "catalog.db", scratch, lambda *_: None) == {}
