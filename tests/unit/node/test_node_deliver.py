"""Whatever a send comes to, each delivery ends, once; nothing is tried without pause."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from dicom_node.catalog import Catalog
from dicom_node.decide import confirmation, retry
from dicom_node.dimse.contract import (
    CommitmentReport,
    FailedReference,
    Reference,
    Rejection,
)
from dicom_node.dimse.scu import Asked, Outcome, Phase, StoreOutcome
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import PeerError, SpoolError
from dicom_node.domain.records import Delivery, Instance, Peer, Result
from dicom_node.domain.states import DeliveryState
from dicom_node.node import bell as bells
from dicom_node.node.clock import SystemClock
from dicom_node.node.confirm import Confirmer, Reports
from dicom_node.node.deliver import Deliverer, nothing_instead
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.node.promise import Promiser
from dicom_node.spool.store import Spool

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
BOTH = frozenset({"store", "commit", "query"})
S = DeliveryState


class Node:
    def __init__(self, folder, *, offers=BOTH):
        self.clock = SystemClock()
        self.catalog = Catalog(folder / "catalog.db")
        self.bell = bells.Bell(folder)
        self.journal = Journal(self.catalog, self.bell)
        self.spool = Spool(folder / "spool")
        self.peers = {"pacs": Peer(name="pacs", ae_title="PACS", host="h", port=1, offers=offers)}
        self.freed = threading.Event()

    def close(self):
        self.catalog.close()
        self.bell.close()

    def lanes(self):
        return Lanes(what="deliver to", wake=self.freed.set)

    def owe(self, number, *, path=None):
        stored = self.spool.put(b"result %d" % number)
        result = Result(
            sop_instance_uid=f"2.25.{number}",
            sop_class_uid=SEG,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            series_uid="2.25.100",
            study_uid="1.2",
            step_id=1,
            source_series_uid="1.2.3",
            tool_id="t",
            tool_version="1",
            kind="seg",
            path=stored.path if path is None else path,
            size=stored.size,
            sha256=stored.sha256,
            created_at=1.0,
        )
        owed = Delivery(
            delivery_id=0,
            result_uid=result.sop_instance_uid,
            destination="pacs",
            state=S.QUEUED,
            attempt=0,
            created_at=1.0,
            due_at=1.0,
        )
        now = self.clock.now()
        self.catalog.commit(
            e.ResultStored(at=now, result=result), e.DeliveryQueued(at=now, delivery=owed)
        )
        return self.catalog.views.deliveries(result.sop_instance_uid)[0].delivery_id

    def deliver(self, send, *, instead=nothing_instead):
        deliverer = Deliverer(
            peers=self.peers,
            policy=retry.Policy(jitter=0.0),
            spool=self.spool,
            journal=self.journal,
            clock=self.clock,
            send=send,
            lanes=self.lanes(),
            instead=instead,
        )
        deliverer.run_due(self.clock.now())
        deliverer.finish(30.0)
        return deliverer

    def state(self, delivery_id):
        return self.catalog.keeping.delivery(delivery_id)

    def states(self, *delivery_ids):
        return [self.state(delivery_id).state for delivery_id in delivery_ids]

    def sent(self, *numbers):
        """Results that were sent, so their deliveries lack proof."""
        ids = [self.owe(number) for number in numbers]
        self.deliver(taking(0))
        assert set(self.states(*ids)) == {S.SENT}
        return ids

    def confirm(self, ask=None, listing=None, **policy):
        reports = Reports(
            policy=confirmation.Policy(back_off=retry.Policy(jitter=0.0), **policy),
            journal=self.journal,
            clock=self.clock,
        )
        confirmer = Confirmer(
            peers=self.peers,
            policy=reports.policy,
            journal=self.journal,
            clock=self.clock,
            reports=reports,
            ask=ask or (lambda *_: pytest.fail("not to be asked")),
            listing=listing or (lambda *_: pytest.fail("not to be asked")),
            lanes=self.lanes(),
        )
        confirmer.run_due(self.clock.now())
        confirmer.finish(30.0)
        return reports


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    with_series = "INSERT INTO series (series_uid, study_uid, state, revision, instances, "
    node.catalog._db.execute(
        with_series + "first_at, last_at, reason, patient_id, accession_number, modality, "
        "description) VALUES ('1.2.3', '1.2', 'COMPLETE', 1, 0, 1, 1, '', '', '', '', '')"
    )
    yield node
    node.close()


def taking(status, phase=Phase.STATUS, **more):
    def send(_peer, items, on_outcome):
        for item in items:
            uid = item.sop_instance_uid
            on_outcome(StoreOutcome(sop_instance_uid=uid, phase=phase, status=status, **more))

    return send


@pytest.mark.parametrize(
    "error", [UnicodeError("label empty or too long"), ZeroDivisionError(), KeyError("x")]
)
def test_whatever_goes_wrong_in_sending_all_that_wait_are_tried_later(node, error):
    ids = [node.owe(1), node.owe(2)]
    tried = []

    def send(_peer, items, _on_outcome):
        tried.append(items)
        raise error

    deliverer = node.deliver(send)
    assert node.states(*ids) == [S.DEFERRED, S.DEFERRED]
    assert all(node.state(i).due_at > node.clock.now() for i in ids)
    deliverer.run_due(node.clock.now())
    assert len(tried) == 1
    assert node.freed.is_set()


def test_a_peer_error_is_told_and_what_was_sent_before_it_stays_sent(node):
    ids = [node.owe(1), node.owe(2)]

    def send(peer, items, on_outcome):
        taking(0)(peer, items[:1], on_outcome)
        raise PeerError("the AE title is none", permanent=True)

    node.deliver(send)
    assert node.states(*ids) == [S.SENT, S.PARKED]
    assert node.state(ids[1]).reason == "the AE title is none"


def test_without_a_thread_it_is_tried_later_and_the_peer_is_not_blocked(node, monkeypatch):
    delivery = node.owe(1)

    def no_thread(_self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", no_thread)
        deliverer = node.deliver(taking(0))
    assert node.states(delivery) == [S.DEFERRED]
    assert deliverer.lanes.busy() == frozenset()


def test_a_result_whose_file_was_removed_waits_for_a_person_and_the_others_go(node):
    ids = [node.owe(1, path=""), node.owe(2)]
    node.deliver(taking(0))
    assert node.states(*ids) == [S.PARKED, S.SENT]
    assert "its file was removed" in node.state(ids[0]).reason


def test_the_same_object_again_is_no_failure(node):
    delivery = node.owe(1)
    node.deliver(taking(0x0111))
    assert node.states(delivery) == [S.SENT]


@pytest.mark.parametrize(
    ("send", "made"),
    [
        (taking(None, Phase.NO_CONTEXT), True),
        (taking(0x0122), True),
        (taking(0xA900), True),
        (taking(0xC001), True),
        (taking(0xA700), False),  # it will be tried again
        (taking(0x0124), False),  # a person has to mend that, and then it goes
        (taking(None, Phase.OBJECT), False),  # nothing of the peer's
        (taking(None, Phase.REJECT, rejection=Rejection(result=1, source=1, reason=3)), False),
    ],
    ids=[
        *("no context", "no such class", "no match", "not understood", "no room"),
        *("not authorised", "no object", "rejected"),
    ],
)
def test_where_a_kind_is_refused_for_good_another_may_be_made_instead(node, send, made):
    delivery = node.owe(1)
    asked = []

    def instead(one, result, peer):
        asked.append((one.delivery_id, result.sop_instance_uid, peer.name))
        return [
            e.DeliveryWithdrawn(at=node.clock.now(), delivery_id=one.delivery_id, reason="replaced")
        ]

    node.deliver(send, instead=instead)
    assert asked == ([(delivery, "2.25.1", "pacs")] if made else [])
    assert (node.states(delivery) == [S.WITHDRAWN]) is made


# --- proof


def accepted(*reports):
    """The peer accepts the request, and reports these on the same association."""
    asked = []

    def ask(_peer, request, on_report):
        asked.append(request)
        for report in reports:
            on_report(report(request))
        return Asked(outcome=Outcome(phase=Phase.STATUS, status=0))

    return SimpleNamespace(ask=ask, asked=asked)


def partly(request):
    first, second, *_ = request.references
    return CommitmentReport(
        transaction_uid=request.transaction_uid,
        committed=(first,),
        failed=(FailedReference(*second, 0x0112),),
        sender_ae="PACS",
    )


def test_a_partial_report_is_taken_by_instance_and_what_it_leaves_out_stays_open(node):
    ids = node.sent(1, 2, 3)
    peer = accepted(partly)
    node.confirm(peer.ask)
    assert node.states(*ids) == [S.COMMITTED, S.DEFERRED, S.SENT]
    assert node.state(ids[1]).returns == 1
    assert node.state(ids[2]).ask == "query"
    assert len(peer.asked) == 1, "all in one transaction"
    assert [one.sop_instance_uid for one in peer.asked[0].references] == [
        "2.25.1",
        "2.25.2",
        "2.25.3",
    ]


def test_what_is_asked_for_is_recorded_before_it_is_asked(node):
    (delivery,) = node.sent(1)
    known = []

    def ask(_peer, request, _on_report):
        known.append(node.catalog.keeping.requested(request.transaction_uid))
        raise PeerError("killed here")

    node.confirm(ask)
    ((destination, pairs),) = known
    assert destination == "pacs"
    assert [one.delivery_id for one, _ in pairs] == [delivery]


def test_a_report_that_overtakes_the_answer_is_not_undone(node):
    (delivery,) = node.sent(1)

    def all_of_it(request):
        return CommitmentReport(
            transaction_uid=request.transaction_uid,
            committed=request.references,
            sender_ae="PACS",
        )

    node.confirm(accepted(all_of_it).ask)
    assert node.states(delivery) == [S.COMMITTED]


@pytest.mark.parametrize(
    ("outcome", "ask", "waits"),
    [
        (Outcome(phase=Phase.NO_CONTEXT), "query", False),
        (Outcome(phase=Phase.STATUS, status=0x0110), "query", False),
        (Outcome(phase=Phase.CONNECT), "commit", True),
        (Outcome(phase=Phase.TIMEOUT), "commit", True),
    ],
    ids=["no context", "failure", "away", "silent"],
)
def test_who_refuses_is_queried_and_who_is_away_is_asked_again_later(node, outcome, ask, waits):
    (delivery,) = node.sent(1)
    node.confirm(lambda *_: Asked(outcome=outcome))
    current = node.state(delivery)
    assert (current.state, current.ask) == (S.SENT, ask)
    assert (current.due_at > node.clock.now()) is waits


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ((frozenset({"2.25.1"}), None), S.VERIFIED),
        ((frozenset(), None), S.DEFERRED),
        ((frozenset(), "no answer"), S.SENT),
    ],
    ids=["listed", "missing", "not told"],
)
def test_what_a_query_tells(node, answer, state):
    node.peers["pacs"] = Peer(
        name="pacs", ae_title="PACS", host="h", port=1, offers=frozenset({"store", "query"})
    )
    (delivery,) = node.sent(1)
    node.confirm(listing=lambda *_: answer, listed_within_s=0.0)
    assert node.states(delivery) == [state]


def test_a_report_on_what_is_sent_again_meanwhile_changes_nothing(node):
    (delivery,) = node.sent(1)
    peer = accepted()
    reports = node.confirm(peer.ask)
    now = node.clock.now()
    node.journal.commit(e.DeliveryReset(at=now, delivery_id=delivery))
    report = CommitmentReport(
        transaction_uid=peer.asked[0].transaction_uid,
        committed=(Reference(SEG, "2.25.1"),),
        sender_ae="PACS",
    )
    assert reports.take(report, node.peers["pacs"]).status == 0
    assert node.states(delivery) == [S.QUEUED]
    told = node.catalog.views.events_about(report.transaction_uid)
    assert [type(event) for _, event in told] == [k.CommitmentRequested, k.CommitmentReported]


def test_a_late_report_does_not_refute_what_was_sent_since(node):
    (delivery,) = node.sent(1)
    peer = accepted()
    reports = node.confirm(peer.ask)
    node.journal.commit(e.DeliveryReset(at=node.clock.now(), delivery_id=delivery))
    node.deliver(taking(0))
    report = CommitmentReport(
        transaction_uid=peer.asked[0].transaction_uid,
        committed=(),
        failed=(FailedReference(SEG, "2.25.1", 0x0112),),
        sender_ae="PACS",
    )
    assert reports.take(report, node.peers["pacs"]).status == 0
    assert node.states(delivery) == [S.SENT]


def test_without_a_thread_to_ask_in_nothing_is_tried_without_pause(node, monkeypatch):
    node.sent(1)

    def none_left(_self):
        raise RuntimeError("can't start new thread")

    confirmer = Confirmer(
        peers=node.peers,
        policy=confirmation.Policy(back_off=retry.Policy()),
        journal=node.journal,
        clock=node.clock,
        reports=Reports(
            policy=confirmation.Policy(back_off=retry.Policy()),
            journal=node.journal,
            clock=node.clock,
        ),
        ask=lambda *_: pytest.fail("not to be asked"),
        listing=lambda *_: pytest.fail("not to be asked"),
        lanes=node.lanes(),
    )
    monkeypatch.setattr(threading.Thread, "start", none_left)
    now = node.clock.now() + 1000
    assert confirmer.run_due(now) > now


# --- promises


@pytest.mark.parametrize("error", [SpoolError("Input/output error"), LookupError("whatever")])
def test_what_cannot_be_read_of_one_promise_does_not_keep_the_others_waiting(
    node, error, monkeypatch
):
    now = node.clock.now()
    opened = e.AssociationOpened(at=now, number=1, calling_ae="P", called_ae="N", address="")
    node.journal.commit(opened)
    for number in (1, 2):
        stored = node.spool.put(b"image %d" % number)
        instance = Instance(
            sop_instance_uid=f"1.2.9.{number}",
            sop_class_uid="1.2.3",
            transfer_syntax_uid="1.2.840.10008.1.2",
            study_uid="1.9",
            series_uid=f"1.8.{number}",
            path=stored.path,
            size=stored.size,
            sha256=stored.sha256,
            association=1,
            received_at=now,
        )
        node.journal.commit(
            e.InstanceArrived(at=now, instance=instance, judge_at=now),
            k.CommitmentAsked(
                at=now + number,
                transaction_uid=f"1.7.{number}",
                peer="pacs",
                references={"1.2.3": (instance.sop_instance_uid,)},
            ),
        )
    bad, intact = node.catalog.views.instance("1.2.9.1").path, node.spool.is_intact

    def is_intact(path):
        if path == bad:
            raise error
        return intact(path)

    monkeypatch.setattr(node.spool, "is_intact", is_intact)
    told = {}

    def report(_peer, what):
        told[what.transaction_uid] = [one.reason for one in what.failed]
        return Outcome(phase=Phase.STATUS, status=0)

    promiser = Promiser(
        peers=node.peers,
        policy=retry.Policy(jitter=0.0),
        digest=True,
        spool=node.spool,
        journal=node.journal,
        clock=node.clock,
        report=report,
        lanes=node.lanes(),
    )
    promiser.run_due(now + 10)
    promiser.finish(30.0)
    due = node.catalog.keeping.promises_due(now + 1e9)
    if isinstance(error, SpoolError):
        assert told == {"1.7.1": [0x0110], "1.7.2": []}
        assert due == []
    else:
        assert told == {"1.7.2": []}
        assert [(p.asked.transaction_uid, p.attempt) for p in due] == [("1.7.1", 1)]
        assert due[0].due_at > now + 1, "later"
