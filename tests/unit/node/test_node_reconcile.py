"""After whatever ended the node: nothing received is lost, and what is lost is said."""

from __future__ import annotations

import itertools
import logging
import os
from datetime import datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest

from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.errors import SpoolError
from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.records import Step
from dicom_node.domain.states import SeriesState, StepState
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
from dicom_node.spool.store import Spool
from dicom_node.testing.series import Header, a_series

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
        assert not reconciler.left
        return reconciler

    def close(self):
        self.bell.close()
        self.catalog.close()


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.close()


def file_of(dataset):
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


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


def test_a_result_that_is_just_being_made_is_not_touched(node, tmp_path):
    series = a_series(4)
    node.receive(series)
    node.catalog.commit(e.StepScheduled(at=3.0, step=a_step(series[0].SeriesInstanceUID)))
    path = node.put(a_result(tmp_path, series), age_s=-60.0)
    compared = node.compared()
    assert (compared.entered, compared.removed) == (0, 0)
    assert node.spool.path(path).is_file()


def test_a_file_that_is_no_object_is_left_alone_and_said(node, caplog):
    path = node.put(b"no DICOM")
    with caplog.at_level(logging.WARNING, "dicom_node"):
        assert node.compared().unreadable == 1
    assert node.spool.path(path).is_file()
    assert path in caplog.text


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


def test_a_large_spool_is_compared_folder_by_folder(node, monkeypatch):
    monkeypatch.setattr("dicom_node.node.reconcile._AT_ONCE_S", 0.0)
    for seed in range(4):
        node.put(file_of(a_series(1, header=Header(seed=seed))[0]))
    reconciler = reconcile(node.spool, node.journal, node.clock)
    turns = 1
    while reconciler.run_for(0.0):
        turns += 1
    assert turns == len(node.spool.shards()) - 1
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


def from_spool(node):
    """What a rebuild makes of the spool, in a catalog of its own."""
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
    ).run(None)
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
