"""After whatever ended the node: nothing received is lost, and what is lost is said."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
from dataclasses import replace
from datetime import datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest

from dicom_node.catalog import Catalog
from dicom_node.decide.supersede import DELIVERED
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import CatalogError, SpoolError
from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.records import Result, Step
from dicom_node.domain.states import DeliveryState, SeriesState, StepState
from dicom_node.domain.tool import AlgorithmIdentity, Code, Segment, SegmentationResult
from dicom_node.iod.provenance import provenance
from dicom_node.iod.rejection import Rejection, encode_rejection
from dicom_node.iod.seg import SegSettings, encode_segmentation
from dicom_node.node import bell as bells
from dicom_node.node.adopt import Found, look
from dicom_node.node.journal import Journal
from dicom_node.node.reasons import LOST, NOBODY
from dicom_node.node.reconcile import Reconciler, reconcile
from dicom_node.node.respool import FromSpool
from dicom_node.node.supersede import owed
from dicom_node.spool.store import Spool
from dicom_node.testing.series import Header, a_series, file_of

LUNG = Segment(
    number=1,
    label="Lung",
    category=Code(value="91723000", scheme="SCT", meaning="Anatomical Structure"),
    type=Code(value="39607008", scheme="SCT", meaning="Lung"),
    laterality=None,
    rgb=(0, 128, 255),
)
WHO = AlgorithmIdentity(tool_id="lungs", name="Lungs", version="1.2", digest="ab" * 32)


class ClockOfTests:
    """Ten seconds go by at each look."""

    def __init__(self):
        self._ticks = itertools.count(1)

    def now(self):
        return 1_800_000_000.0 + 10 * next(self._ticks)

    def luck(self):
        return 0.5

    def new_uid(self):
        return f"2.25.{next(self._ticks)}"


class Node:
    """Catalog and spool of a node that is not running."""

    def __init__(self, folder):
        self.catalog = Catalog(folder / "catalog.db")
        self.spool = Spool(folder / "spool")
        self.bell = bells.Bell(folder)
        self.journal = Journal(self.catalog, self.bell)
        self.clock = ClockOfTests()

    def put(self, data, *, age_s=60.0):
        """Store bytes as some time ago; the path."""
        stored = self.spool.put(data)
        path = self.spool.path(stored.path)
        at = path.stat().st_mtime - age_s
        os.utime(path, (at, at))
        return stored.path

    def receive(self, datasets, *, association=1, calling_ae="CT1"):
        """Store and record, as the receiver does; their paths."""
        paths = [self.put(file_of(d)) for d in datasets]
        self.catalog.commit(
            e.AssociationOpened(
                at=1.0, number=association, calling_ae=calling_ae, called_ae="N", address="::1"
            ),
            *(self.arrival(path, association) for path in paths),
            e.AssociationEnded(at=2.0, number=association, how="released"),
        )
        return paths

    def arrival(self, path, association=1):
        found = look(self.spool, path)
        assert isinstance(found, Found)
        return e.InstanceArrived(at=1.5, instance=found.instance(association), judge_at=9.0)

    def compared(self) -> Reconciler:
        reconciler = reconcile(self.spool, self.journal, self.clock)
        assert reconciler.finished
        return reconciler

    def compared_at_work(self) -> Reconciler:
        """As a large spool is: while others store."""
        reconciler = Reconciler(
            spool=self.spool,
            journal=self.journal,
            clock=self.clock,
            before=self.spool.stamp(),
            left=self.spool.shards(),
            of_results=frozenset(self.catalog.files.of_results()),
        )
        assert reconciler.run_due(1.0) is None or reconciler.run_for(60.0) is False
        return reconciler

    def close(self):
        self.bell.close()
        self.catalog.close()


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.close()


def a_result(tmp_path, sources):
    """A Segmentation of these objects, as bytes."""
    paths = []
    for number, dataset in enumerate(sources):
        paths.append(tmp_path / f"source{number}.dcm")
        paths[-1].write_bytes(file_of(dataset))
    labels = np.zeros((len(paths), sources[0].Rows, sources[0].Columns), np.uint8)
    labels[1:, 4:9, 5:20] = 1
    return encode_segmentation(
        SegmentationResult(labels_zyx=labels, segments=(LUNG,)),
        source_paths=paths,
        identity=WHO,
        settings=SegSettings(),
        uids=(derived_uid("a series"), derived_uid("an instance")),
        content_at=datetime(2026, 1, 5, 12),
    )


def a_step(series_uid, tool_id="lungs"):
    return Step(
        step_id=0,
        series_uid=series_uid,
        revision=1,
        route="lungs",
        tool_id=tool_id,
        results=("seg",),
        destinations=(),
        instance_uids=(),
        state=StepState.SCHEDULED,
        attempt=0,
        priority=0,
        due_at=300.0,
    )


def test_a_file_without_a_record_is_entered_under_the_association_of_its_series(node):
    series = a_series(4)
    node.receive(series[:3], association=7)
    path = node.put(file_of(series[3]))
    assert node.compared().entered == 1
    assert node.catalog.views.path_known(path)
    found = node.catalog.views.instances(series[0].SeriesInstanceUID)
    assert [i.association for i in found] == [7, 7, 7, 7]
    known = node.catalog.views.series(series[0].SeriesInstanceUID)
    assert (known.instances, known.state) == (4, SeriesState.RECEIVING)


def test_the_first_of_a_series_is_entered_as_nobodys_and_its_sender_is_believed_later(node):
    series = a_series(3)
    node.put(file_of(series[0]))
    node.compared()
    uid = series[0].SeriesInstanceUID
    (nobody,) = node.catalog.views.associations(uid)
    assert (nobody.calling_ae, nobody.ended) == (NOBODY, "lost")
    node.receive(series, association=node.catalog.views.last_association() + 1)
    assert node.catalog.views.associations(uid)[-1].calling_ae == "CT1"
    assert node.catalog.views.series(uid).instances == 3


def test_several_of_nobodys_share_one_association(node):
    for seed in range(3):
        node.put(file_of(a_series(1, header=Header(seed=seed))[0]))
    assert node.compared().entered == 3
    assert node.catalog.views.counts()["association"] == 1


def test_comparing_again_finds_nothing_to_do(node):
    node.receive(a_series(3))
    node.put(file_of(a_series(1, header=Header(seed=5))[0]))
    node.compared()
    before = node.catalog.views.counts()
    again = node.compared()
    assert (again.entered, again.removed, again.lost) == (0, 0, {})
    assert node.catalog.views.counts() == before


def test_other_bytes_under_a_known_uid_are_kept_apart(node):
    series = a_series(2)
    node.receive(series)
    series[0].PatientComments = "other content"
    path = node.put(file_of(series[0]))
    node.compared()
    assert node.spool.path(path).is_file()
    assert [c.path for c in node.catalog.views.conflicts(series[0].SeriesInstanceUID)] == [path]
    assert node.compared().entered == 0


def test_a_result_that_its_step_makes_again_is_removed(node, tmp_path):
    series = a_series(4)
    node.receive(series)
    node.catalog.commit(e.StepScheduled(at=3.0, step=a_step(series[0].SeriesInstanceUID)))
    path = node.put(a_result(tmp_path, series))
    assert node.compared().removed == 1
    assert not node.spool.path(path).exists()


@pytest.mark.parametrize("known", ["the sources", "another tool", "nothing"])
def test_a_result_that_nobody_here_makes_again_was_received_and_stays(node, tmp_path, known):
    series = a_series(4)
    if known != "nothing":
        node.receive(series)
    if known == "another tool":
        step = a_step(series[0].SeriesInstanceUID, "other")
        node.catalog.commit(e.StepScheduled(at=3.0, step=step))
    path = node.put(a_result(tmp_path, series))
    compared = node.compared()
    assert (compared.entered, compared.removed) == (1, 0)
    assert node.spool.path(path).is_file()


@pytest.mark.parametrize("again", [False, True], ids=["new", "of a former run"])
def test_a_result_that_is_just_being_made_is_not_touched(node, tmp_path, again):
    series = a_series(4)
    node.receive(series)
    node.catalog.commit(e.StepScheduled(at=3.0, step=a_step(series[0].SeriesInstanceUID)))
    result = a_result(tmp_path, series)
    if again:
        node.put(result)
    stored = []

    class Making(Spool):
        """Somebody makes the result after the comparison has begun."""

        def shard(self, name):
            if not stored:
                stored.append(self.put(result).path)
            return super().shard(name)

    node.spool = Making(node.spool.root)
    compared = node.compared_at_work()
    assert (compared.entered, compared.removed) == (0, 0)
    assert node.spool.path(*stored).is_file()


@pytest.mark.parametrize("at_work", [False, True])
def test_what_was_stored_before_the_clock_was_set_back_is_entered(node, at_work):
    for dataset in a_series(3):
        node.put(file_of(dataset), age_s=-3600.0)
    compared = node.compared_at_work() if at_work else node.compared()
    assert compared.entered == 3
    (series,) = node.catalog.views.all_series(9)
    received = [i.received_at for i in node.catalog.views.instances(series.series_uid)]
    assert max(received) <= node.clock.now(), "nobody receives in the future"


@pytest.mark.parametrize("first_has_lower_path", [False, True])
def test_of_two_unknown_files_with_one_uid_the_first_becomes_the_instance(
    node, first_has_lower_path
):
    one, other = a_series(1)[0], a_series(1)[0]
    other.PatientComments = "other content"
    paths = sorted(node.put(file_of(dataset)) for dataset in (one, other))
    first, second = paths if first_has_lower_path else reversed(paths)
    os.utime(node.spool.path(first), (1_700_000_000.0,) * 2)
    node.compared()
    assert node.catalog.views.instance(one.SOPInstanceUID).path == first
    assert [c.path for c in node.catalog.views.conflicts(one.SeriesInstanceUID)] == [second]


def test_a_file_and_a_folder_that_cannot_be_read_are_said_and_the_others_are_entered(node, caplog):
    series = a_series(8)
    path = sorted(node.put(file_of(dataset)) for dataset in series)[3]
    node.spool.path(path).unlink()
    node.spool.path(path).mkdir()
    empty = next(s for s in node.spool.shards() if not node.spool.shard(s))
    (node.spool.root / "objects" / empty).rmdir()
    with caplog.at_level(logging.WARNING, "dicom_node"):
        compared = node.compared()
    assert (compared.entered, compared.unreadable) == (7, 2)
    assert path in caplog.text
    assert f"folder {empty}" in caplog.text


def test_what_the_catalog_interrupts_is_gone_on_with(node):
    node.receive(a_series(1))
    for seed in range(1, 5):
        node.put(file_of(a_series(1, header=Header(seed=seed))[0]))
    (path,) = node.receive(a_series(1, header=Header(seed=9)), association=2)
    node.spool.path(path).unlink()
    failures = iter([True, False, True, False, False, True])

    class Shaky(Journal):
        def commit(self, *events):
            if next(failures, False):
                raise CatalogError("the catalog could not commit: database is locked")
            return super().commit(*events)

    node.journal = Shaky(node.catalog, node.bell)
    reconciler = Reconciler(
        spool=node.spool,
        journal=node.journal,
        clock=node.clock,
        before=node.spool.stamp(),
        left=node.spool.shards(),
        of_results=frozenset(),
        alone=True,
    )
    for _ in range(3):
        with pytest.raises(CatalogError):
            reconciler.run_for(60.0)
    assert not reconciler.run_for(60.0)
    assert reconciler.entered == 4
    assert node.catalog.views.counts()["instance"] == 6
    assert dict(reconciler.lost) == {a_series(1, header=Header(seed=9))[0].SeriesInstanceUID: 1}


def test_a_file_that_is_no_object_is_left_alone_and_said(node, caplog):
    path = node.put(b"no DICOM")
    with caplog.at_level(logging.WARNING, "dicom_node"):
        assert node.compared().unreadable == 1
    assert node.spool.path(path).is_file()
    assert path in caplog.text


@pytest.mark.parametrize("bytes_kept", [0, 900, -2])
def test_a_file_that_had_not_got_all_its_bytes_when_the_power_went_is_not_entered(
    node, caplog, bytes_kept
):
    whole = file_of(a_series(1)[0])
    torn = node.put(whole)
    path = node.spool.path(torn)
    path.write_bytes(whole[:bytes_kept])
    with caplog.at_level(logging.WARNING, "dicom_node"):
        compared = node.compared()
    assert (compared.entered, path.exists()) == (0, bytes_kept != 0)  # what is empty is no loss
    assert (torn in caplog.text) is (bytes_kept != 0)
    node.receive(a_series(1))  # its sender was never told that it is here
    assert path.read_bytes() == whole
    assert node.compared().unreadable == 0


def test_a_file_is_durable_before_it_is_entered(node, monkeypatch):
    path = node.put(file_of(a_series(1)[0]))
    done = []
    settle, commit = node.spool.settle, node.catalog.commit
    monkeypatch.setattr(node.spool, "settle", lambda r: (done.append(r), settle(r)))
    monkeypatch.setattr(node.catalog, "commit", lambda *x: (done.append("commit"), commit(*x))[1])
    assert node.compared().entered == 1
    assert done == [path, "commit"]


def test_what_a_catalog_had_is_entered_again_without_a_look_at_its_bytes(node, monkeypatch):
    """It was whole when it was acknowledged; to read all of a large spool takes hours."""
    node.receive(a_series(2))
    node.put(file_of(a_series(1, header=Header(seed=5))[0]))
    read = []
    is_intact = node.spool.is_intact
    monkeypatch.setattr(node.spool, "is_intact", lambda r: (read.append(r), is_intact(r))[1])
    from_spool(node, old=node.spool.root.parent / "catalog.db")
    assert node.again.views.counts()["instance"] == 3
    assert len(read) == 1
    node.again.close()


def test_a_series_that_lost_files_is_held_and_said_loudly(node, caplog):
    kept, holed = (a_series(3, header=Header(seed=seed)) for seed in (1, 2))
    node.receive(kept)
    paths = node.receive(holed, association=2)
    for path in paths[:2]:
        node.spool.path(path).unlink()
    with caplog.at_level(logging.CRITICAL, "dicom_node"):
        compared = node.compared()
    uid = holed[0].SeriesInstanceUID
    assert dict(compared.lost) == {uid: 2}
    series = node.catalog.views.series(uid)
    assert series.state is SeriesState.HELD
    assert series.reason.startswith(f"{LOST} 2 files")
    assert node.catalog.views.series(kept[0].SeriesInstanceUID).state is SeriesState.RECEIVING
    assert uid in caplog.text
    before = node.catalog.views.counts()["event"]
    node.compared()
    assert node.catalog.views.counts()["event"] == before, "held once"


def test_a_spool_whose_disk_is_not_mounted_is_not_taken_for_an_empty_one(node):
    for path in node.receive(a_series(3)):
        node.spool.path(path).unlink()
    with pytest.raises(SpoolError, match="is its disk mounted"):
        reconcile(node.spool, node.journal, node.clock)
    assert node.catalog.views.all_series(9)[0].state is SeriesState.RECEIVING


def test_a_large_spool_is_compared_folder_by_folder(node):
    for seed in range(4):
        node.put(file_of(a_series(1, header=Header(seed=seed))[0]))
    reconciler = reconcile(node.spool, node.journal, node.clock, seconds=0.0)
    turns = 1
    while reconciler.run_for(0.0):
        turns += 1
    assert turns == len(node.spool.shards()) + 4 - 1, "and file by file"
    assert reconciler.entered == 4
    assert reconciler.run_due(5.0) is None


def test_who_made_a_result_is_read_from_it(node, tmp_path):
    series = a_series(4)
    found = look(node.spool, node.put(a_result(tmp_path, series)))
    assert isinstance(found, Found)
    made = provenance(node.spool.path(found.path), found.attributes)
    assert (made.tool_id, made.tool_version, made.kind) == ("lungs", "1.2+abababababab", "seg")
    assert made.source_uids == {d.SOPInstanceUID for d in series}


def test_a_renumbered_result_is_not_ours_any_more(node, tmp_path):
    dataset = pydicom.dcmread(BytesIO(a_result(tmp_path, a_series(4))))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.4711"
    found = look(node.spool, node.put(file_of(dataset)))
    assert isinstance(found, Found)
    assert found.ours, "it says so"
    assert provenance(node.spool.path(found.path), found.attributes) is None


def test_an_image_is_not_ours(node):
    found = look(node.spool, node.put(file_of(a_series(1)[0])))
    assert isinstance(found, Found)
    assert not found.ours
    assert provenance(node.spool.path(found.path), found.attributes) is None


def purged(node, series_uid):
    """The facts of a removal, the files still there; their paths."""
    paths = [i.path for i in node.catalog.views.instances(series_uid)]
    node.catalog.commit(
        k.SeriesPurged(
            at=5.0,
            series_uid=series_uid,
            reason="old",
            files=len(paths),
            size=1,
            seen=node.catalog.views.counts()["event"],
        )
    )
    return paths


def test_a_file_that_is_about_to_be_removed_is_not_entered_again(node):
    series = a_series(3)
    node.receive(series)
    purged(node, series[0].SeriesInstanceUID)
    compared = node.compared()
    assert (compared.entered, compared.lost) == (0, {})


def test_a_file_that_was_removed_on_purpose_is_not_missed_and_is_known_when_it_comes_again(node):
    series = a_series(3)
    node.receive(series)
    node.receive(a_series(1, header=Header(seed=8)), association=2)
    uid = series[0].SeriesInstanceUID
    for path in purged(node, uid):
        node.spool.remove(path)
    node.catalog.commit(k.FilesRemoved(at=6.0, series_uid=uid, files=3))
    assert node.compared().lost == {}
    assert node.catalog.views.series(uid).state is not SeriesState.HELD
    path = node.put(file_of(series[0]))
    assert node.compared().entered == 1
    assert node.catalog.views.instance(series[0].SOPInstanceUID).path == path
    assert node.compared().entered == 0


def a_note(tmp_path, rejected):
    """A rejection note about a result (its bytes), as bytes."""
    path = tmp_path / "rejected.dcm"
    path.write_bytes(rejected)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    about = Rejection(
        series_uid=header.SeriesInstanceUID,
        rejected=((header.SOPClassUID, header.SOPInstanceUID),),
        replaced_by="",
    )
    return encode_rejection(about, of_study=path, tool=WHO, settings=SegSettings())


def from_spool(node, old=None):
    """What a rebuild makes of the spool, in a catalog of its own. old: whose events help."""
    path = node.spool.root / "again.db"
    path.unlink(missing_ok=True)
    catalog = Catalog(path)
    rested = FromSpool(
        spool=node.spool,
        catalog=catalog,
        now=2e9,
        since_s=1.0,
        sender=(NOBODY, ""),
        progress=lambda *_: None,
    ).run(old)
    node.again = catalog
    return rested


def test_results_and_notes_about_them_are_results_again_and_those_of_others_are_not(node, tmp_path):
    series = a_series(4)
    result = a_result(tmp_path, series)
    note = node.put(a_note(tmp_path, result))
    assert from_spool(node).results == 0
    assert node.again.views.counts()["instance"] == 1, "nothing it is about is here: received"
    node.again.close()
    for data in (*map(file_of, series), result):
        node.put(data)
    assert from_spool(node).results == 2
    uid = series[0].SeriesInstanceUID
    made, about = sorted(node.again.views.results(uid), key=lambda r: r.kind, reverse=True)
    assert (made.kind, about.kind, about.path) == ("seg", "rejection", note)
    (step,) = node.again.views.steps(uid)
    assert (step.step_id, step.state, step.replaces) == (made.step_id, "COMPLETED", ())
    assert step.instance_uids == tuple(sorted(d.SOPInstanceUID for d in series))
    node.again.close()


def test_a_note_that_nobody_entered_is_removed_if_what_it_rejects_is_ours(node, tmp_path):
    series = a_series(4)
    node.receive(series)
    result = a_result(tmp_path, series)
    node.put(result)
    path = node.put(a_note(tmp_path, result))
    from_spool(node)
    node.catalog.commit(
        *(
            e.ResultStored(at=3.0, result=r)
            for r in node.again.views.results(series[0].SeriesInstanceUID)
            if r.kind == "seg"
        )
    )
    node.again.close()
    assert node.compared().removed == 1
    assert not node.spool.path(path).exists()


def test_a_rebuild_from_files_keeps_its_word_where_the_events_can_be_read(node):
    uids = []
    for number in range(1, 5):
        series = a_series(1, header=Header(seed=number))
        node.receive(series, association=number)
        uids.append(series[0].SeriesInstanceUID)
    held, released, promised, _ = uids
    asked = [
        k.CommitmentAsked(at=4.0, transaction_uid=f"2.25.{n}", peer="pacs", references={"1.2": ()})
        for n in (1, 2, 3)
    ]
    ended = [
        k.CommitmentReportEnded(
            at=4.0, transaction_uid=f"2.25.{n}", peer="pacs", reason="", due_at=due_at
        )
        for n, due_at in ((2, None), (3, None), (3, 5.0))
    ]
    node.catalog.commit(
        e.SeriesHeld(at=3.0, series_uid=held, reason="wrong patient"),
        e.SeriesHeld(at=3.0, series_uid=released, reason="why?"),
        e.SeriesReleased(at=3.5, series_uid=released, reason="all well"),
        k.SeriesPromised(
            at=4.0, series_uid=promised, transaction_uid="2.25.2", peer="pacs", instances=1, seen=9
        ),
        *asked,
        *ended,
    )
    rested = from_spool(node, old=node.spool.root.parent / "catalog.db")
    views, keeping = node.again.views, node.again.keeping
    states = [views.series(uid).state for uid in uids]
    assert states == [SeriesState.HELD] + [SeriesState.COMPLETE] * 3
    assert (views.series(held).reason, rested.held) == ("wrong patient", 1)
    assert [views.series(uid).promised_at for uid in uids] == [None, None, 4.0, None]
    due = {one.asked.transaction_uid for one in keeping.promises_due(2e9)}
    assert due == {"2.25.1", "2.25.3"}
    node.again.close()


@pytest.mark.parametrize("first_has_lower_path", [False, True])
def test_in_a_rebuild_the_old_catalog_says_which_of_two_objects_came_first(
    node, first_has_lower_path
):
    one, other = a_series(1)[0], a_series(1)[0]
    other.PatientComments = "other content"
    paths = sorted(node.put(file_of(dataset)) for dataset in (one, other))
    first, second = paths if first_has_lower_path else reversed(paths)
    os.utime(node.spool.path(first), (1_900_000_000.0,) * 2)  # the spool was copied back
    opened = e.AssociationOpened(at=1.0, number=1, calling_ae="CT1", called_ae="N", address="::1")
    node.catalog.commit(opened, node.arrival(first))
    node.catalog.commit(node.arrival(second))
    arrivals = {first: 100.0, second: 200.0}
    db = sqlite3.connect(node.spool.root.parent / "catalog.db")
    for path, at in arrivals.items():
        db.execute(
            "UPDATE event SET body = json_set(body, '$.instance.received_at', ?) "
            "WHERE json_extract(body, '$.instance.path') = ?",
            (at, path),
        )
    db.commit()
    db.close()
    from_spool(node, old=node.spool.root.parent / "catalog.db")
    assert node.again.views.instance(one.SOPInstanceUID).path == first
    node.again.close()


def test_a_removed_object_that_was_kept_apart_is_known_when_it_comes_again(node):
    series = a_series(2)
    node.receive(series)
    node.receive(a_series(1, header=Header(seed=8)), association=2)
    series[0].PatientComments = "other content"
    other = file_of(series[0])
    node.put(other)
    node.compared()
    uid = series[0].SeriesInstanceUID
    (apart,) = node.catalog.views.conflicts(uid)
    for path in [*purged(node, uid), apart.path]:
        node.spool.remove(path)
    node.catalog.commit(k.FilesRemoved(at=6.0, series_uid=uid, files=3))
    path = node.put(other)
    assert node.compared().entered == 1
    assert [c.path for c in node.catalog.views.conflicts(uid)] == [path]
    assert node.compared().entered == 0


def with_a_result(node, tmp_path, *, destinations=("pacs",)):
    """A complete series whose step was performed, and the result that is owed; both UIDs."""
    series = a_series(4)
    node.receive(series)
    uid = series[0].SeriesInstanceUID
    found = look(node.spool, node.put(a_result(tmp_path, series)))
    instance = found.instance(0)
    result = Result(
        **{name: getattr(instance, name) for name in OF_BOTH},
        step_id=1,
        source_series_uid=uid,
        tool_id="lungs",
        tool_version="1",
        kind="seg",
        created_at=4.0,
    )
    step = replace(a_step(uid), destinations=destinations, instance_uids=("1.2",))
    node.catalog.commit(
        e.SeriesJudged(
            at=3.0, series_uid=uid, revision=1, state=SeriesState.COMPLETE, reasons=("all",)
        ),
        e.StepScheduled(at=3.0, step=step),
        claimed(1),
        *made(1, result, destinations),
    )
    return uid, result


OF_BOTH = (
    *("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "series_uid", "study_uid"),
    *("path", "size", "sha256"),
)


def claimed(step_id):
    return e.StepClaimed(
        at=3.5, step_id=step_id, transaction_uid="2.25.5", performer="p", lease_until=99.0
    )


def made(step_id, result, destinations):
    return [
        e.StepCompleted(at=4.0, step_id=step_id, transaction_uid="2.25.5", seconds={}),
        e.ResultStored(at=4.0, result=result),
        *(
            e.DeliveryQueued(at=4.0, delivery=owed(result.sop_instance_uid, to, 4.0))
            for to in destinations
        ),
    ]


def test_a_lost_result_that_somebody_waits_for_is_made_again_and_sent(node, tmp_path):
    uid, result = with_a_result(node, tmp_path)
    node.spool.path(result.path).unlink()
    assert node.compared().lost == {}
    assert node.compared().lost == {}
    views = node.catalog.views
    assert views.series(uid).state is SeriesState.COMPLETE
    done, again = views.steps(uid)
    assert (done.state, again.state) == (StepState.COMPLETED, StepState.SCHEDULED)
    assert again.instance_uids == done.instance_uids
    assert again.replaces == (result.sop_instance_uid,), "if another version makes another"
    (waits,) = views.deliveries(result.sop_instance_uid)
    assert (waits.state, waits.reason) == (DeliveryState.DEAD, "it is made again for pacs")
    assert node.catalog.owing.next_due(()) is None, "there is nothing to be sent"
    step = node.catalog.claim_step(now=9e9, lease_s=1.0, transaction_uid="2.25.5", performer="p")
    assert step.step_id == again.step_id
    node.catalog.commit(*made(again.step_id, result, ["pacs"]))
    (due,) = views.deliveries(result.sop_instance_uid)
    assert (due.state, due.attempt) == (DeliveryState.QUEUED, 0)
    assert views.result(result.sop_instance_uid).path == result.path


@pytest.mark.parametrize("state", [None, *sorted(DELIVERED)])
def test_a_lost_result_that_nobody_waits_for_is_noted_once(node, tmp_path, caplog, state):
    uid, result = with_a_result(node, tmp_path, destinations=("pacs",) if state else ())
    if state:
        node.catalog.commit(
            e.DeliveryClaimed(at=5.0, delivery_id=1),
            e.DeliveryEnded(
                at=5.0, delivery_id=1, state=DeliveryState.SENT, status=0, reason="", due_at=6.0
            ),
        )
    if state and state is not DeliveryState.SENT:
        node.catalog.commit(
            k.DeliveryConfirmed(at=5.5, delivery_id=1, state=state, reason="", due_at=6.0)
        )
    node.spool.path(result.path).unlink()
    with caplog.at_level(logging.WARNING, "dicom_node"):
        assert node.compared().lost == {}
        assert node.compared().lost == {}
    views = node.catalog.views
    assert caplog.text.count(result.sop_instance_uid) == 1
    assert f"dicom-node retry --judge {uid}" in caplog.text
    assert views.series(uid).state is SeriesState.COMPLETE
    assert len(views.steps(uid)) == 1
    assert [d.state for d in views.deliveries(result.sop_instance_uid)] == [state] * bool(state)


def test_of_a_series_that_has_changed_a_lost_result_is_not_made_again(node, tmp_path):
    uid, result = with_a_result(node, tmp_path)
    node.spool.path(result.path).unlink()
    node.catalog.commit(e.SeriesReopened(at=5.0, series_uid=uid, reason="asked"))
    node.compared()
    assert len(node.catalog.views.steps(uid)) == 1
    (delivery,) = node.catalog.views.deliveries(result.sop_instance_uid)
    assert (delivery.state, "retry --judge" in delivery.reason) == (DeliveryState.DEAD, True)
