"""What is removed is removed as a whole, in an order that a crash cannot hurt; what is
acknowledged stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.catalog import Catalog
from dicom_node.config.load import read
from dicom_node.decide import completeness, pressure, retention
from dicom_node.dimse.contract import AssociationRequest, Rejection, StoreRequest
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError, SpoolError
from dicom_node.domain.records import Delivery, Peer, Result, Step
from dicom_node.domain.states import DeliveryState, SeriesState, StepState
from dicom_node.node import bell as bells
from dicom_node.node import retain
from dicom_node.node.admit import Admission
from dicom_node.node.assemble import Assembler
from dicom_node.node.journal import Journal
from dicom_node.node.outgoing import Shared, outgoing
from dicom_node.node.pressure import Gauge, Reserve
from dicom_node.node.receive import StorageReceiver
from dicom_node.node.reconcile import reconcile
from dicom_node.node.retain import Retainer, collect
from dicom_node.node.router import Router
from dicom_node.spool.store import Spool
from dicom_node.testing.received import store_through
from dicom_node.testing.series import Header, a_series

MIB = 1024 * 1024
DAY = 86400.0
KEEP_A_DAY = retention.Policy(keep_s=DAY)


class ClockOfTests:
    def __init__(self):
        self.at = 1_800_000_000.0

    def now(self):
        return self.at

    def luck(self):
        return 0.0

    def new_uid(self):
        return "2.25.1"


class Node:
    """A node without network and performers."""

    def __init__(self, folder, policy=KEEP_A_DAY, peers=()):
        self.folder = folder
        self.clock = ClockOfTests()
        self.free = 1000 * MIB
        self.catalog = Catalog(folder / "catalog.db")
        self.spool = Spool(folder / "spool")
        self.spool.free_bytes = lambda: self.free
        self.bell = bells.Bell(folder)
        self.journal = Journal(self.catalog, self.bell)
        self.views = self.catalog.views
        self.reserve = Reserve(path=folder / "reserve", size=MIB)
        self.gauge = Gauge(
            limits=pressure.Limits(
                min_free_bytes=200 * MIB, stop_free_bytes=100 * MIB, max_backlog=2
            ),
            free_bytes=self.spool.free_bytes,
            reserve=self.reserve,
            journal=self.journal,
            clock=self.clock,
        )
        self.receiver = StorageReceiver(
            admission=Admission(
                ae_title="NODE",
                peers=tuple(peers),
                accept_unknown=True,
                min_free_bytes=200 * MIB,
                quiet_s=1.0,
                closed=self.gauge.closed,
            ),
            spool=self.spool,
            journal=self.journal,
            clock=self.clock,
        )
        self.retainer = Retainer(
            policy=policy,
            free_bytes=0,
            peers={peer.name: peer for peer in peers},
            spool=self.spool,
            journal=self.journal,
            gauge=self.gauge,
            clock=self.clock,
        )

    def close(self):
        self.catalog.close()
        self.bell.close()

    def asked(self, *, storage=True):
        return AssociationRequest(
            calling_ae="CT1",
            called_ae="NODE",
            address="127.0.0.1",
            port=1,
            proposes_storage=storage,
        )

    def receive(self, datasets):
        """Store over an association of its own; the statuses."""
        number = self.receiver.admit(self.asked())
        assert isinstance(number, int)
        statuses = [self.store(number, dataset) for dataset in datasets]
        self.receiver.ended(number, "released")
        return statuses

    def store(self, number, dataset):
        return store_through(self.receiver, dataset, association=number)

    def complete(self, datasets):
        """Receive a Series and judge it: no route takes it, so it is settled."""
        assert set(self.receive(datasets)) == {0}
        self.judge()
        return str(datasets[0].SeriesInstanceUID)

    def judge(self):
        self.clock.at += 10
        Assembler(
            policy=completeness.Policy(release_s=1.0, quiet_s=1.0, give_up_s=2.0),
            ask_source=False,
            router=Router(routes=(), peers=(), tools={}, catalog=self.journal.catalog),
            journal=self.journal,
        ).run_due(self.clock.at)

    def purge(self, days=2.0):
        self.clock.at += days * DAY
        return self.retainer.run_due(self.clock.at)

    def files(self):
        return set(self.spool.files())

    def series(self, uid):
        return self.views.series(uid)


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.close()


def kinds(node, uid):
    return [type(event).__name__ for _, event in node.views.events_of(uid)]


def test_a_settled_series_goes_when_its_time_is_up_and_its_story_stays(node):
    uid = node.complete(a_series(3))
    assert len(node.files()) == 3
    node.purge(days=0.5)
    assert len(node.files()) == 3, "not before"
    node.purge()
    assert node.files() == set()
    assert node.series(uid).purged_at is not None
    assert kinds(node, uid)[-2:] == ["SeriesPurged", "FilesRemoved"]
    assert len(node.views.instances(uid)) == 3, "who asks is told, also of what is gone"
    assert node.catalog.keeping.garbage() == {}
    before = kinds(node, uid)
    node.purge()
    assert kinds(node, uid) == before, "and nothing goes twice"


def test_a_clock_far_ahead_removes_nothing_until_it_is_believed(node):
    text = '[node]\ndata_dir = "."\n[retain]\nkeep_days = 1\nkeep_days_unsettled = 1\n'
    config = read(text, base=node.folder)
    uid = node.complete(a_series(3))
    held = node.complete(a_series(3, header=Header(seed=5)))
    node.journal.commit(e.SeriesHeld(at=node.clock.at, series_uid=held, reason="wait"))
    node.clock.at += 12 * 365 * DAY
    shared = Shared(
        config=config,
        spool=node.spool,
        journal=node.journal,
        bell=node.bell,
        clock=node.clock,
        doubted_until=node.clock.at + DAY,
    )
    retain_stage = dict(outgoing(shared).stages)[bells.RETAIN]
    retain_stage(node.clock.at)
    assert len(node.files()) == 6
    node.clock.at += DAY
    retain_stage(node.clock.at)
    assert node.files() == set()
    assert node.series(uid).purged_at is not None


@pytest.mark.parametrize("state", ["receiving", "held", "owed", "waiting"])
def test_what_is_not_settled_stays(node, state):
    series = a_series(3)
    if state == "receiving":
        node.receive(series)
    else:
        uid = node.complete(series)
    if state == "held":
        node.journal.commit(e.SeriesHeld(at=1.0, series_uid=uid, reason="wait"))
    if state in ("owed", "waiting"):
        a_step(node, uid, done=state == "owed")
    node.purge()
    assert len(node.files()) == (4 if state == "owed" else 3)


def a_step(node, uid, *, done, to="pacs", route="lungs", name="1", replaces=()):
    """A step on the Series; done: with a result that is owed to a peer."""
    at = node.clock.now()
    step = Step(
        step_id=0,
        series_uid=uid,
        revision=node.series(uid).revision,
        route=route,
        tool_id="t",
        results=("seg",),
        destinations=(to,),
        instance_uids=(),
        state=StepState.SCHEDULED,
        attempt=0,
        priority=0,
        due_at=at,
        replaces=replaces,
    )
    node.journal.commit(e.StepScheduled(at=at, step=step))
    if not done:
        return 0
    claimed = node.catalog.claim_step(now=at, lease_s=9, transaction_uid="2.25.5", performer="p")
    stored = node.spool.put(f"result {name} of {uid}".encode())
    result = Result(
        sop_instance_uid=f"{uid}.{name}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_uid=f"{uid}.{name}.2",
        study_uid="1.2",
        step_id=claimed.step_id,
        source_series_uid=uid,
        tool_id="t",
        tool_version="1",
        kind="seg",
        path=stored.path,
        size=stored.size,
        sha256=stored.sha256,
        created_at=at,
    )
    owed = Delivery(
        delivery_id=0,
        result_uid=result.sop_instance_uid,
        destination=to,
        state=DeliveryState.QUEUED,
        attempt=0,
        created_at=at,
        due_at=at,
    )
    node.journal.commit(
        e.StepCompleted(at=at, step_id=claimed.step_id, transaction_uid="2.25.5", seconds={}),
        e.ResultStored(at=at, result=result),
        e.DeliveryQueued(at=at, delivery=owed),
    )
    return node.views.deliveries(result.sop_instance_uid)[0].delivery_id


def sent(node, delivery_id):
    at = node.clock.now()
    node.journal.commit(
        e.DeliveryClaimed(at=at, delivery_id=delivery_id),
        e.DeliveryEnded(
            at=at,
            delivery_id=delivery_id,
            state=DeliveryState.SENT,
            status=0,
            reason="",
            due_at=at,
        ),
    )


@pytest.mark.parametrize(("offers", "left"), [({"store"}, 0), ({"store", "commit"}, 4)])
def test_sent_is_settled_only_where_no_proof_is_to_be_had(tmp_path, offers, left):
    peer = Peer(name="pacs", ae_title="P", host="h", port=1, offers=frozenset(offers))
    node = Node(tmp_path, peers=[peer])
    uid = node.complete(a_series(3))
    sent(node, a_step(node, uid, done=True))
    node.purge()
    assert len(node.files()) == left
    node.close()


def test_delete_after_delivery_does_not_wait(tmp_path):
    node = Node(tmp_path, policy=retention.Policy(routes=frozenset({"lungs"})))
    uid = node.complete(a_series(3))
    other = node.complete(a_series(3, header=Header(seed=5)))
    delivery = a_step(node, uid, done=True)
    node.clock.at += 1
    node.retainer.run_due(node.clock.at)
    assert len(node.files()) == 7, "it is still owed"
    sent(node, delivery)
    node.clock.at += 1
    node.retainer.run_due(node.clock.at)
    assert len(node.files()) == 3, "and what took no such route stays"
    assert node.series(other).purged_at is None
    node.close()


def test_pictures_in_place_of_a_segmentation_are_of_the_route_that_made_it(tmp_path):
    node = Node(tmp_path, policy=retention.Policy(routes=frozenset({"lungs"})))
    uid = node.complete(a_series(3))
    sent(node, a_step(node, uid, done=True))
    sent(node, a_step(node, uid, done=True, route="lungs, pictures for pacs", name="2"))
    node.clock.at += 1
    node.retainer.run_due(node.clock.at)
    assert node.files() == set()
    node.close()


@pytest.mark.parametrize("offers", [{"store"}, {"store", "reject"}])
def test_what_a_rejection_note_is_due_for_stays_until_it_is_made(tmp_path, offers):
    peer = Peer(name="pacs", ae_title="P", host="h", port=1, offers=frozenset(offers))
    policy = retention.Policy(routes=frozenset({"lungs"}))
    node = Node(tmp_path, policy=policy, peers=[peer])
    uid = node.complete(a_series(3))
    first = a_step(node, uid, done=True)
    sent(node, first)
    sent(node, a_step(node, uid, done=True, name="2", replaces=(f"{uid}.1",)))
    node.clock.at += 1
    node.retainer.run_due(node.clock.at)
    assert bool(node.files()) is ("reject" in offers)
    if "reject" in offers:
        owed = e.RejectionOwed(at=node.clock.at, delivery_id=first, note_uid="2.25.8")
        node.journal.commit(owed)
        node.retainer.run_due(node.clock.at)
        assert node.files() == set()
    node.close()


def test_what_was_purged_before_it_was_delivered_goes_when_it_is_made_again(tmp_path):
    node = Node(tmp_path, policy=retention.Policy(unsettled_s=DAY))
    uid = node.complete(a_series(3))
    number = a_step(node, uid, done=True)
    node.purge()
    assert node.catalog.keeping.delivery(number).state is DeliveryState.WITHDRAWN
    node.receive(a_series(3))
    at = node.clock.now()
    node.journal.commit(e.SeriesReopened(at=at, series_uid=uid, reason="asked for"))
    node.judge()
    assert a_step(node, uid, done=True) == number
    delivery = node.catalog.keeping.delivery(number)
    assert (delivery.state, delivery.attempt) == (DeliveryState.QUEUED, 0)
    node.close()


def test_where_room_is_short_the_oldest_go_first_and_no_more_than_needed(tmp_path):
    node = Node(tmp_path, policy=retention.Policy())
    uids = []
    for number in range(3):
        uids.append(node.complete(a_series(2, header=Header(seed=number))))
        node.clock.at += 100
    retainer = replace(node.retainer, free_bytes=500 * MIB)
    node.free = 499 * MIB
    discard = node.spool.discard

    def frees_room(paths, wanted):
        node.free += MIB
        return discard(paths, wanted)

    node.spool.discard = frees_room
    retainer.run_due(node.clock.at)
    assert [node.series(uid).purged_at is not None for uid in uids] == [True, False, False]
    node.close()


def test_what_was_promised_is_not_touched_for_room(tmp_path):
    node = Node(tmp_path, policy=retention.Policy(keep_s=DAY, promised_s=9 * DAY))
    uid = node.complete(a_series(2))
    promise(node, uid)
    node.free = 300 * MIB
    replace(node.retainer, free_bytes=500 * MIB).run_due(node.clock.at)
    node.purge(days=8)
    assert len(node.files()) == 2
    node.purge(days=2)
    assert node.files() == set()
    node.close()


def promise(node, uid, seen=None):
    seen = node.catalog.keeping.seen(uid) if seen is None else seen
    node.journal.commit(
        k.SeriesPromised(
            at=node.clock.now(),
            series_uid=uid,
            transaction_uid="2.25.9",
            peer="pacs",
            instances=2,
            seen=seen,
        )
    )


def test_a_promise_and_a_removal_at_the_same_time_exclude_one_another(node):
    uid = node.complete(a_series(2))
    looked = node.catalog.keeping.seen(uid)
    (kept,) = node.catalog.keeping.kept(after=(0.0, ""), before=node.clock.at, limit=9)
    promise(node, uid)
    assert node.retainer._purge(kept, "room was needed") is False
    assert len(node.files()) == 2
    (kept,) = node.catalog.keeping.kept(after=(0.0, ""), before=node.clock.at, limit=9)
    assert node.retainer._purge(kept, "room was needed") is True
    with pytest.raises(CatalogError, match="removed meanwhile"):
        promise(node, uid, seen=looked)


def test_an_instance_that_comes_while_it_is_judged_saves_its_series(node):
    series = a_series(3)
    uid = node.complete(series[:2])
    (kept,) = node.catalog.keeping.kept(after=(0.0, ""), before=node.clock.at, limit=9)
    node.receive(series[2:])
    assert node.retainer._purge(kept, "kept for 1 day") is False
    assert len(node.files()) == 3
    assert node.series(uid).state is SeriesState.RECEIVING


def test_a_start_finishes_a_removal_that_was_begun(node, monkeypatch):
    uid = node.complete(a_series(3))
    with monkeypatch.context() as crash:
        crash.setattr(retain, "collect", lambda *_: None)
        node.purge()
    assert len(node.files()) == 3, "recorded, and then the power went"
    assert all(not i.path for i in node.views.instances(uid)), "but nobody claims them"
    collect(node.spool, node.journal, node.clock)
    reconcile_all(node)
    assert node.files() == set()
    assert node.series(uid).state is SeriesState.COMPLETE, "and nothing is missed"


def reconcile_all(node):
    extra = a_series(1, header=Header(seed=77))
    node.receive(extra)  # an empty spool is taken for one that is not mounted
    reconciler = reconcile(node.spool, node.journal, node.clock)
    while reconciler.run_for(60.0):
        pass
    for path in node.files():
        node.spool.remove(path)


def test_the_same_bytes_again_are_kept_again_and_not_processed_again(node):
    series = a_series(3)
    uid = node.complete(series)
    node.purge()
    assert node.receive(series) == [0, 0, 0]
    assert len(node.files()) == 3
    known = node.series(uid)
    assert (known.state, known.revision, known.purged_at) == (SeriesState.COMPLETE, 1, None)
    assert all(node.spool.look(i.path) for i in node.views.instances(uid))
    node.purge(days=0.5)
    assert len(node.files()) == 3, "its time runs anew"
    node.purge()
    assert node.files() == set()


def test_other_bytes_under_a_known_uid_are_a_conflict_also_after_the_removal(node):
    series = a_series(2)
    node.complete(series)
    node.purge()
    series[0].PatientComments = "other content"
    assert node.receive(series[:1]) == [0x0111]
    assert len(node.files()) == 1, "it is kept apart"


def test_an_object_kept_apart_that_comes_again_after_its_removal_is_kept_apart_again(node):
    series = a_series(2)
    uid = node.complete(series)
    series[0].PatientComments = "other content"
    assert node.receive(series[:1]) == [0x0111]
    node.purge()
    assert node.files() == set()
    assert node.receive(series[:1]) == [0x0111]
    assert [node.spool.look(c.path) is not None for c in node.views.conflicts(uid)] == [True]
    assert [i.path for i in node.views.instances(uid)] == ["", ""]


def test_new_content_waits_until_the_rest_is_here_again(node):
    series = a_series(4)
    uid = node.complete(series[:3])
    node.purge()
    node.receive(series[3:])
    node.judge()
    known = node.series(uid)
    assert (known.state, known.revision) == (SeriesState.INCOMPLETE, 2)
    assert known.reason.startswith("3 of its 4 files were removed: have the Series sent again")
    node.receive(series[:2])
    assert node.series(uid).state is SeriesState.INCOMPLETE
    node.receive(series[2:3])
    assert node.series(uid).state is SeriesState.RECEIVING
    node.judge()
    assert node.series(uid).state is SeriesState.COMPLETE


def test_what_comes_again_while_it_is_being_removed_is_never_acknowledged_and_lost(node):
    """The file is placed before, and recorded after, its removal."""
    series = a_series(1)
    node.complete(series)
    node.purge()
    number = node.receiver.admit(node.asked())
    commit = node.journal.commit

    def removed_in_between(*events):
        outcomes = commit(*events)
        if isinstance(events[-1], e.InstanceArrived):
            node.spool.discard(node.files(), node.views.path_known)
        return outcomes

    node.journal.commit = removed_in_between
    assert node.store(number, series[0]) == 0x0110, "try again"
    node.journal.commit = commit
    assert node.views.instances(str(series[0].SeriesInstanceUID))[0].path == ""
    assert node.store(number, series[0]) == 0
    assert len(node.files()) == 1


def test_removal_leaves_what_is_wanted_again(node):
    series = a_series(2)
    node.complete(series)
    paths = node.files()
    assert node.spool.discard(paths, lambda path: path == min(paths)) == 1
    assert node.files() == {min(paths)}


def test_what_a_person_has_to_decide_goes_only_where_the_operator_says_so(tmp_path):
    node = Node(tmp_path, policy=retention.Policy(unsettled_s=DAY))
    uid = node.complete(a_series(2))
    delivery = a_step(node, uid, done=True)
    node.purge()
    assert node.files() == set()
    assert node.catalog.keeping.delivery(delivery).state is DeliveryState.WITHDRAWN
    node.close()


# --- room


def levels(node):
    return [
        event.level
        for _, event in node.views.events_about("node")
        if isinstance(event, k.PressureChanged)
    ]


def test_associations_are_rejected_for_now_while_the_disk_is_full_and_echo_is_answered(node):
    node.free = 99 * MIB
    assert node.receiver.admit(node.asked()) == Rejection(result=2, source=3, reason=1)
    assert isinstance(node.receiver.admit(node.asked(storage=False)), int)
    node.free = 1000 * MIB
    node.clock.at += 2
    assert isinstance(node.receiver.admit(node.asked()), int), "and it recovers by itself"
    assert levels(node) == ["closed", "open"]


def test_between_the_levels_objects_are_refused_and_associations_are_not(node):
    number = node.receiver.admit(node.asked())
    node.free = 150 * MIB
    node.clock.at += 2
    assert isinstance(node.receiver.admit(node.asked()), int)
    answer = node.receiver.begin(
        StoreRequest(
            association=number,
            sop_class_uid="1.2",
            sop_instance_uid="1.2.3",
            transfer_syntax_uid="1.2.840.10008.1.2",
            message_id=1,
            calling_ae="CT1",
        )
    )
    assert answer.status == 0xA700
    assert levels(node) == ["refusing"]


def test_a_disk_that_is_just_at_the_limit_does_not_change_the_level_all_the_time(node):
    for turn in range(20):
        node.free = (99 + turn % 2) * MIB
        node.clock.at += 2
        node.gauge.look()
    assert levels(node) == ["closed"]


def test_with_too_much_work_waiting_nobody_is_let_in(node):
    for seed in range(2):
        uid = node.complete(a_series(1, header=Header(seed=seed)))
        node.clock.at += 2
        assert isinstance(node.receiver.admit(node.asked()), int)
        a_step(node, uid, done=False)
    node.clock.at += 2
    assert node.receiver.admit(node.asked()) == Rejection(result=2, source=3, reason=1)


def test_the_reserve_is_given_up_when_the_disk_is_full_and_made_again(node):
    node.retainer.run_due(node.clock.at)
    assert node.reserve.path.stat().st_size == MIB
    node.free = 1000
    node.retainer.run_due(node.clock.at + 1)
    assert not node.reserve.held
    node.free = 120 * MIB  # above the level, but the reserve is not there
    node.clock.at += 5
    assert node.receiver.admit(node.asked()) == Rejection(result=2, source=3, reason=1)
    node.retainer.run_due(node.clock.at)
    assert node.reserve.held
    node.clock.at += 5
    assert isinstance(node.receiver.admit(node.asked()), int)


def test_on_a_full_disk_the_catalog_gets_the_reserve_to_record_what_goes(node, monkeypatch):
    node.complete(a_series(2))
    node.retainer.run_due(node.clock.at)
    commit = node.journal.commit

    def full_while_the_reserve_is_there(*events):
        if isinstance(events[0], k.SeriesPurged) and node.reserve.held:
            raise CatalogError("database or disk is full", full=True)
        return commit(*events)

    monkeypatch.setattr(node.journal, "commit", full_while_the_reserve_is_there)
    node.purge()
    assert node.files() == set()


def test_where_there_is_no_room_for_a_reserve_there_is_none(node):
    node.free = 3 * MIB
    node.retainer.run_due(node.clock.at)
    assert not node.reserve.held
    assert not node.reserve.used


def test_a_disk_that_cannot_be_asked_turns_nobody_away(node):
    def failing():
        raise SpoolError("the disk does not answer")

    gauge = replace(node.gauge, free_bytes=failing, _last=[])
    assert gauge.look().level is pressure.Level.OPEN
