"""From the answer to a sender to the verdict, without a network: with a real catalog and spool."""

from __future__ import annotations

import threading

import pytest

from dicom_node.catalog import Catalog
from dicom_node.decide import completeness
from dicom_node.decide.routing import Route
from dicom_node.dimse.contract import AssociationRequest, Rejection
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError, ToolError
from dicom_node.domain.records import Peer
from dicom_node.domain.states import SeriesState
from dicom_node.domain.tool import Applicable
from dicom_node.node import bell as bells
from dicom_node.node import lanes as lanes_module
from dicom_node.node.admit import Admission
from dicom_node.node.ask import Asker
from dicom_node.node.assemble import Assembler
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.node.receive import StorageReceiver
from dicom_node.node.router import Router
from dicom_node.node.why import stories
from dicom_node.spool.store import Spool
from dicom_node.testing.received import store_through
from dicom_node.testing.series import Header, a_series

HOUR = 3600.0
PACS = Peer(
    name="pacs", ae_title="PACS1", host="127.0.0.1", port=104, offers=frozenset({"store", "query"})
)
OTHER = Peer(name="other", ae_title="OTHER", host="127.0.0.1", port=104)
POLICY = completeness.Policy(release_s=2, quiet_s=20, give_up_s=600)


class ClockOfTests:
    def __init__(self):
        self.at = 1_800_000_000.0

    def now(self):
        self.at += 0.001
        return self.at

    def luck(self):
        return 0.0

    def new_uid(self):
        return "2.25.1"


class Node:
    """A receiver and an assembler on one catalog, and a clock that the test sets."""

    def __init__(self, folder, *, ask_source=False, peer_max=1000):
        self.folder, self.ask_source, self.peer_max = folder, ask_source, peer_max
        self.clock = ClockOfTests()
        self.catalog = Catalog(folder / "catalog.db")
        self.views = self.catalog.views
        self.spool = Spool(folder / "spool")
        self.bell = bells.Bell(folder)
        self.journal = Journal(self.catalog, self.bell)
        self.judge = lambda _header: Applicable()
        self.woken = 0
        self.start()

    def start(self):
        """What a start of the node does."""
        self.journal.commit(e.NodeStarted(at=self.clock.now(), version="test"))
        self.receiver = StorageReceiver(
            admission=Admission(
                ae_title="NODE",
                peers=(PACS, OTHER),
                accept_unknown=True,
                min_free_bytes=0,
                quiet_s=2.0,
                peer_max=self.peer_max,
            ),
            spool=self.spool,
            journal=self.journal,
            clock=self.clock,
            wake=self.wake,
        )
        self.assembler = Assembler(
            policy=POLICY,
            ask_source=self.ask_source,
            router=Router(
                routes=(Route(name="lungs", tool_id="model"),),
                peers=(PACS, OTHER),
                tools={"model": self.tool},
                catalog=self.catalog,
            ),
            journal=self.journal,
            started_at=self.clock.now(),
        )

    def tool(self, header):
        return self.judge(header)

    def wake(self):
        self.woken += 1

    def close(self):
        self.catalog.close()
        self.bell.close()

    def admit(self, title="PACS1", address="127.0.0.1"):
        return self.receiver.admit(
            AssociationRequest(calling_ae=title, called_ae="NODE", address=address, port=1)
        )

    def store(self, number, datasets):
        """The statuses."""
        return [
            store_through(self.receiver, dataset, association=number, calling_ae="PACS1")
            for dataset in datasets
        ]

    def send(self, datasets, title="PACS1", how="released"):
        number = self.admit(title)
        assert set(self.store(number, datasets)) == {0}
        self.receiver.ended(number, how)
        return str(datasets[0].SeriesInstanceUID)

    def judged(self, uid, after_s=0.0):
        """Its state, after a turn of the assembler so much later."""
        self.clock.at += after_s
        self.assembler.run_due(self.clock.at)
        return self.views.series(uid).state

    def told(self, uid):
        (story,) = stories(self.catalog, uid)
        return "\n".join([story.verdict, *(line.text for line in story.lines)])

    def failing(self, monkeypatch, kind, error, times=1):
        """The catalog refuses the next commits that hold an event of this kind; set when it has."""
        real, left, over = self.catalog._commit_all, [times], threading.Event()

        def commit_all(batch):
            if left[0] and any(isinstance(x, kind) for t in batch for x in t.events):
                left[0] -= 1
                for ticket in batch:
                    ticket.error, ticket.done = error, True
                if not left[0]:
                    over.set()
                return
            real(batch)

        monkeypatch.setattr(self.catalog, "_commit_all", commit_all)
        return over


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.close()


def full():
    return CatalogError("the catalog could not commit: database or disk is full", full=True)


# --- whose it is


def test_who_sends_one_image_again_does_not_get_the_results(node):
    series = a_series(8)
    uid = node.send(series)
    node.send(series[:1], "OTHER")
    assert node.judged(uid, 3) is SeriesState.COMPLETE
    (step,) = node.views.steps(uid)
    assert step.destinations == ("pacs",)
    assert "counts as its sender" not in node.told(uid)


def test_of_several_senders_the_one_that_brought_most_counts_and_why_says_so(node):
    series = a_series(8)
    uid = node.send(series[:5])
    node.send(series[5:], "OTHER")
    assert node.judged(uid, 3) is SeriesState.COMPLETE
    (step,) = node.views.steps(uid)
    assert step.destinations == ("pacs",)
    assert "pacs counts as its sender: it brought 5 of 8 instances, other 3" in node.told(uid)


def test_who_sends_all_again_after_they_were_removed_is_the_sender(node):
    series = a_series(8)
    uid = node.send(series)
    assert node.judged(uid, 3) is SeriesState.COMPLETE
    node.journal.commit(
        k.SeriesPurged(
            at=node.clock.now(),
            series_uid=uid,
            reason="its time was up",
            files=8,
            size=1,
            seen=node.catalog.keeping.seen(uid),
        )
    )
    for path in node.catalog.keeping.garbage()[uid]:
        node.spool.path(path).unlink()
    node.send(series, "OTHER")
    assert node.views.brought(uid) == {2: 8}
    assert "8 instances stored over association 1" in node.told(uid)
    assert "8 instances came again over association 2" in node.told(uid)
    assert node.assembler.source_of(uid) == OTHER


def test_images_of_two_patients_under_one_series_uid_go_to_no_model(node):
    series = a_series(16)
    for dataset in series[8:]:
        dataset.PatientID, dataset.PatientName = "SOMEBODY-ELSE", "Else^Somebody"
    uid = node.send(series)
    assert node.judged(uid, 3) is SeriesState.COMPLETE
    assert node.views.steps(uid) == []
    said = node.told(uid)
    assert "complete, no result: the Series holds images of 2 patients" in said
    assert "ELSE" not in said.upper()


def test_an_image_of_another_patient_counts_though_it_is_no_part_of_the_volume(node):
    series = a_series(9)
    series[8].PatientID = "SOMEBODY-ELSE"
    series[8].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    uid = node.send(series)
    node.judged(uid, 3)
    assert node.views.steps(uid) == []


# --- when it is whole


def test_the_time_that_the_node_was_down_is_no_quiet_time(node):
    uid = node.send(a_series(8), how="aborted")
    assert node.judged(uid, 1) is SeriesState.RECEIVING
    node.clock.at += HOUR
    node.start()
    assert node.judged(uid) is SeriesState.RECEIVING
    assert node.judged(uid, 19) is SeriesState.RECEIVING
    assert node.judged(uid, 2) is SeriesState.COMPLETE


def test_a_late_image_is_judged_though_the_clock_was_set_back_since(node):
    series = a_series(8)
    node.clock.at += HOUR
    uid = node.send(series[:7])
    assert node.judged(uid, 3) is SeriesState.COMPLETE
    node.clock.at -= HOUR
    node.start()
    assert node.views.series(uid).last_at <= node.clock.at
    node.send(series[7:])
    assert node.judged(uid, 3) is SeriesState.COMPLETE
    assert node.views.series(uid).revision == 2


def test_the_count_of_the_header_waits_a_moment_while_an_association_is_open(node):
    series = a_series(8)
    for dataset in series:
        dataset.ImagesInAcquisition = 8
    number = node.admit()
    node.store(number, series)
    uid = str(series[0].SeriesInstanceUID)
    assert node.judged(uid, 1) is SeriesState.RECEIVING
    assert node.judged(uid, 2) is SeriesState.COMPLETE
    assert "8 planes, as many as the header counts" in node.views.series(uid).reason
    assert "still open" in node.views.series(uid).reason
    node.receiver.ended(number, "released")


# --- what goes wrong


def test_a_series_that_upsets_the_node_is_held_and_the_others_are_judged(node):
    odd, healthy = (a_series(8, header=Header(seed=seed)) for seed in (1, 2))
    odd_uid = str(odd[0].SeriesInstanceUID)

    def judge(header):
        if header["SeriesInstanceUID"] == odd_uid:
            raise ArithmeticError("somebody's header")
        return Applicable()

    node.judge = judge
    node.send(odd)
    uid = node.send(healthy)
    assert node.judged(uid, 3) is SeriesState.COMPLETE
    assert node.views.series(odd_uid).state is SeriesState.HELD
    assert "the node could not judge it" in node.told(odd_uid)
    assert "somebody's header" in node.told(odd_uid)


def test_an_error_of_the_nodes_own_kind_holds_its_series_too(node):
    node.judge = lambda _header: (_ for _ in ()).throw(ToolError("as the test has it"))
    uid = node.send(a_series(8))
    assert node.judged(uid, 3) is SeriesState.HELD


def test_a_verdict_that_the_catalog_refuses_does_not_keep_the_others_waiting(node, monkeypatch):
    refused = node.send(a_series(8, header=Header(seed=1)))
    uid = node.send(a_series(8, header=Header(seed=2)))
    node.clock.at += 3
    node.failing(monkeypatch, e.SeriesJudged, CatalogError("refused by the catalog"))
    with pytest.raises(CatalogError, match="refused by the catalog"):
        node.judged(uid)
    assert node.views.series(uid).state is SeriesState.COMPLETE
    assert node.judged(refused) is SeriesState.COMPLETE, "it was tried again"


def test_the_end_of_an_association_that_could_not_be_recorded_is_recorded_later(node, monkeypatch):
    node.failing(monkeypatch, e.AssociationEnded, full(), times=2)
    series = a_series(8)
    number = node.admit()
    node.store(number, series)
    for attempt in (
        lambda: node.receiver.ended(number, "released"),
        lambda: node.receiver.run_due(0),
    ):
        with pytest.raises(CatalogError, match="full"):
            attempt()
    assert node.woken == 1
    uid = str(series[0].SeriesInstanceUID)
    assert node.judged(uid, 3) is SeriesState.RECEIVING
    node.receiver.run_due(0)
    assert node.judged(uid) is SeriesState.COMPLETE
    assert "every association was released" in node.views.series(uid).reason
    node.receiver.run_due(0)
    ends = [x for _, x in node.views.events_about("association 1")]
    assert [type(x) for x in ends] == [e.AssociationOpened, e.AssociationEnded], "once"


def test_an_association_that_was_only_refused_keeps_its_number_to_itself(node):
    damaged = a_series(1)[0]
    damaged.PixelData = damaged.PixelData[:100]
    number = node.admit("OTHER")
    assert node.store(number, [damaged]) == [0xC000]
    node.receiver.ended(number, "released")
    node.start()
    assert node.admit() == number + 1


def test_one_peer_does_not_lock_out_the_others(tmp_path):
    node = Node(tmp_path, peer_max=2)
    full_up = Rejection(result=2, source=3, reason=2)
    first, second = node.admit(), node.admit()
    assert node.admit() == full_up
    assert isinstance(node.admit("OTHER"), int)
    assert isinstance(node.admit("ANY", "10.0.0.1"), int)
    assert isinstance(node.admit("ANY-ELSE", "10.0.0.1"), int)
    assert node.admit("AND-ANOTHER", "10.0.0.1") == full_up, "a stranger is known by its address"
    node.receiver.ended(first, "released")
    assert isinstance(node.admit(), int)
    assert node.admit() == full_up
    assert second
    node.close()


# --- asking the source


class Asked:
    """A PACS that is asked; more: how many instances it has that did not come."""

    def __init__(self, node, monkeypatch):
        monkeypatch.setattr(lanes_module, "AFTER_ERROR_S", 60.0)  # ended by finish()
        self.node = node
        self.peers = []
        self.more = 0
        self.asker = Asker(
            source_of=node.assembler.source_of,
            count=self.count,
            journal=node.journal,
            clock=node.clock,
            lanes=Lanes(what="ask", wake=lambda: None),
        )

    def count(self, peer, series):
        self.peers.append(peer.name)
        has = series.instances + self.more
        return has, f"{peer.name} has {has}"

    def turn(self):
        self.asker.run_due(self.node.clock.at)
        self.asker.finish(10)


@pytest.fixture
def asking(tmp_path):
    node = Node(tmp_path, ask_source=True)
    yield node
    node.close()


def test_the_source_that_is_asked_is_the_one_that_brought_it(asking, monkeypatch):
    asked = Asked(asking, monkeypatch)
    series = a_series(8)
    uid = asking.send(series)
    asking.send(series[:1], "OTHER")
    assert asking.judged(uid) is SeriesState.RECEIVING
    asked.turn()
    assert asked.peers == ["pacs"]
    assert asking.judged(uid) is SeriesState.COMPLETE
    assert "pacs has 8" in asking.told(uid)


def test_an_answer_that_cannot_be_recorded_is_not_asked_for_in_a_busy_loop(asking, monkeypatch):
    asked = Asked(asking, monkeypatch)
    uid = asking.send(a_series(8))
    asking.judged(uid)
    refused = asking.failing(monkeypatch, e.SourceCounted, full())
    assert asked.asker.run_due(asking.clock.at) is None
    assert refused.wait(20)
    asked.asker.run_due(asking.clock.at)
    assert asked.peers == ["pacs"], "its lane is taken until the pause is over"
    asked.asker.finish(10)
    asked.turn()
    assert asked.peers == ["pacs", "pacs"]
    assert asking.judged(uid) is SeriesState.COMPLETE


def test_a_source_that_has_more_is_asked_again_before_it_is_given_up(asking, monkeypatch):
    asked = Asked(asking, monkeypatch)
    asked.more = 1
    uid = asking.send(a_series(8))
    asking.judged(uid)
    asked.turn()
    assert asking.judged(uid, 1) is SeriesState.RECEIVING
    asked.turn()
    assert len(asked.peers) == 1, "not at once"
    assert asking.judged(uid, 21) is SeriesState.RECEIVING
    asked.turn()
    assert len(asked.peers) == 2
    assert asking.judged(uid, 600) is SeriesState.INCOMPLETE


def test_without_a_thread_it_is_asked_later(asking, monkeypatch):
    asked = Asked(asking, monkeypatch)
    uid = asking.send(a_series(8))
    asking.judged(uid)
    with monkeypatch.context() as patched:
        patched.setattr(
            "threading.Thread.start", lambda _self: (_ for _ in ()).throw(RuntimeError("no more"))
        )
        assert asked.asker.run_due(asking.clock.at) > asking.clock.at
    asked.turn()
    assert asking.judged(uid) is SeriesState.COMPLETE
