"""The catalog: what is committed is folded, what is illegal is refused, nothing is half done."""

import sqlite3
import threading
from dataclasses import replace

import pytest

from dicom_node.catalog import Catalog
from dicom_node.catalog.refold import differences
from dicom_node.catalog.schema import connect
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain import states
from dicom_node.domain.errors import CatalogError
from dicom_node.domain.records import Delivery, Instance, Result, Step
from dicom_node.domain.states import DeliveryState, SeriesState, StepState


def an_instance(number=1, *, series="1.2.3", sha256=None, association=1, path=None):
    return Instance(
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_uid="1.2",
        series_uid=series,
        path=path or f"objects/aa/{series}.{number}",
        size=10,
        sha256=sha256 or f"{number:064x}",
        association=association,
        received_at=100.0 + number,
        attributes={"Modality": "CT", "ImageType": ("ORIGINAL", "PRIMARY"), "PatientID": "P1"},
    )


def arrival(number=1, **fields):
    instance = an_instance(number, **fields)
    return e.InstanceArrived(at=instance.received_at, instance=instance, judge_at=200.0)


def opened(number=1, at=100.0):
    return e.AssociationOpened(
        at=at, number=number, calling_ae="CT1", called_ae="NODE", address="127.0.0.1"
    )


def a_step(series="1.2.3", revision=1):
    return Step(
        step_id=0,
        series_uid=series,
        revision=revision,
        route="lungs",
        tool_id="lung-unet",
        results=("seg",),
        destinations=("PACS",),
        instance_uids=("1.2.3.1",),
        state=StepState.SCHEDULED,
        attempt=0,
        priority=0,
        due_at=300.0,
    )


def a_result(step_id=1):
    return Result(
        sop_instance_uid="2.25.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_uid="2.25.2",
        study_uid="1.2",
        step_id=step_id,
        source_series_uid="1.2.3",
        tool_id="lung-unet",
        tool_version="1",
        kind="seg",
        path="objects/bb/r",
        size=1,
        sha256="f" * 64,
        created_at=310.0,
        summary={"right_ml": 1.0},
    )


def a_delivery(destination="PACS"):
    return Delivery(
        delivery_id=0,
        result_uid="2.25.1",
        destination=destination,
        state=DeliveryState.QUEUED,
        attempt=0,
        created_at=310.0,
        due_at=310.0,
    )


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


def judged(revision=1, **more):
    return e.SeriesJudged(
        at=300,
        series_uid="1.2.3",
        revision=revision,
        state=SeriesState.COMPLETE,
        reasons=("ok",),
        **more,
    )


def scheduled(catalog):
    catalog.commit(opened(), arrival(1))
    catalog.commit(judged(), e.StepScheduled(at=300, step=a_step()))


def through_to_delivery(catalog):
    scheduled(catalog)
    step = catalog.claim_step(now=301, lease_s=30, transaction_uid="2.25.9", performer="p0")
    catalog.commit(
        e.StepCompleted(
            at=310, step_id=step.step_id, transaction_uid="2.25.9", seconds={"infer": 1.0}
        ),
        e.ResultStored(at=310, result=a_result(step.step_id)),
        e.DeliveryQueued(at=310, delivery=a_delivery()),
    )
    return step


def test_an_instance_makes_its_series_and_keeps_its_attributes(catalog):
    assert catalog.commit(opened(), arrival(1), arrival(2)) == ["", "new", "new"]
    series = catalog.views.series("1.2.3")
    assert (series.instances, series.state, series.modality) == (2, SeriesState.RECEIVING, "CT")
    assert series.due_at == 200.0
    first, second = catalog.views.instances("1.2.3")
    assert first.attributes["ImageType"] == ("ORIGINAL", "PRIMARY")
    assert second == an_instance(2)


def test_the_same_bytes_again_are_a_repetition_and_other_bytes_a_conflict(catalog):
    catalog.commit(opened(), arrival(1))
    assert catalog.commit(opened(2), arrival(1, association=2)) == ["", "repeated"]
    assert catalog.commit(arrival(1, sha256="e" * 64)) == ["conflict"]
    assert catalog.views.series("1.2.3").instances == 1
    assert [a.number for a in catalog.views.associations("1.2.3")] == [1, 2]


def test_a_late_instance_reopens_the_series_with_a_new_revision(catalog):
    catalog.commit(opened(), arrival(1))
    catalog.commit(
        e.SeriesJudged(
            at=300, series_uid="1.2.3", revision=1, state=SeriesState.COMPLETE, reasons=()
        )
    )
    catalog.commit(arrival(2))
    series = catalog.views.series("1.2.3")
    assert (series.state, series.revision) == (SeriesState.RECEIVING, 2)


def test_a_verdict_on_an_old_revision_is_refused(catalog):
    test_a_late_instance_reopens_the_series_with_a_new_revision(catalog)
    with pytest.raises(CatalogError, match="changed since"):
        catalog.commit(
            e.SeriesJudged(
                at=301, series_uid="1.2.3", revision=1, state=SeriesState.COMPLETE, reasons=()
            )
        )


def test_the_end_of_an_association_makes_its_series_due(catalog):
    catalog.commit(opened(), arrival(1))
    assert catalog.views.series_due(150.0) == []
    catalog.commit(e.AssociationEnded(at=140.0, number=1, how="released"))
    assert [s.series_uid for s in catalog.views.series_due(150.0)] == ["1.2.3"]


def test_a_step_is_claimed_once_and_completed_only_by_who_claimed_it(catalog):
    step = through_to_delivery(catalog)
    assert catalog.claim_step(now=400, lease_s=9, transaction_uid="x", performer="p1") is None
    done = catalog.views.step(step.step_id)
    assert (done.state, done.attempt) == (StepState.COMPLETED, 1)
    with pytest.raises(CatalogError):
        catalog.commit(
            e.StepCompleted(at=311, step_id=step.step_id, transaction_uid="2.25.8", seconds={})
        )


def test_a_refused_commit_changes_nothing(catalog):
    through_to_delivery(catalog)
    before = catalog.views.counts()
    with pytest.raises(CatalogError):
        catalog.commit(
            arrival(3), e.StepCompleted(at=1, step_id=1, transaction_uid="no", seconds={})
        )
    assert catalog.views.counts() == before


def test_a_delivery_is_owed_once_a_destination(catalog):
    through_to_delivery(catalog)
    catalog.commit(e.DeliveryQueued(at=311, delivery=a_delivery()))
    catalog.commit(e.DeliveryQueued(at=311, delivery=a_delivery("OTHER")))
    assert [d.destination for d in catalog.views.deliveries("2.25.1")] == ["PACS", "OTHER"]


def test_deliveries_are_claimed_by_destination_and_not_twice(catalog):
    through_to_delivery(catalog)
    catalog.commit(e.DeliveryQueued(at=311, delivery=a_delivery("OTHER")))
    first = catalog.claim_deliveries(now=320, limit=10, busy=frozenset())
    second = catalog.claim_deliveries(now=320, limit=10, busy=frozenset({"PACS"}))
    assert [d.destination for d, _ in first] == ["PACS"]
    assert [d.destination for d, _ in second] == ["OTHER"]
    both = frozenset({"PACS", "OTHER"})
    assert catalog.claim_deliveries(now=320, limit=10, busy=both) == []


def test_a_delivery_whose_sender_failed_is_claimed_again(catalog):
    through_to_delivery(catalog)
    catalog.claim_deliveries(now=320, limit=10, busy=frozenset())
    again = catalog.claim_deliveries(now=321, limit=10, busy=frozenset())
    assert [d.attempt for d, _ in again] == [1]
    assert catalog.views.deliveries("2.25.1")[0].attempt == 2


def test_a_restart_takes_everything_under_way_back_into_the_queue(catalog):
    scheduled(catalog)
    step = catalog.claim_step(now=301, lease_s=30, transaction_uid="t", performer="p")
    catalog.commit(e.NodeStarted(at=400, version="1"))
    assert catalog.views.step(step.step_id).state is StepState.SCHEDULED
    assert catalog.views.associations("1.2.3")[0].ended == "lost"


def test_a_series_under_way_is_judged_at_a_restart_whatever_the_clock_was(catalog):
    catalog.commit(opened(), arrival(1))
    catalog.commit(e.NodeStarted(at=50, version="1"))  # the clock was set back meanwhile
    (series,) = catalog.views.series_due(50)
    assert series.last_at == 50


def test_a_series_that_is_complete_keeps_no_time_of_a_clock_that_was_set_back(catalog):
    scheduled(catalog)
    catalog.commit(e.NodeStarted(at=50, version="1"))
    assert catalog.views.series("1.2.3").last_at == 50
    assert catalog.views.series("1.2.3").state is SeriesState.COMPLETE


def test_a_delivery_of_a_clock_that_was_set_back_is_due_at_once(catalog):
    through_to_delivery(catalog)
    catalog.commit(e.DeliveryClaimed(at=311, delivery_id=1))
    catalog.commit(
        e.DeliveryEnded(
            at=312, delivery_id=1, state=DeliveryState.DEFERRED, status=None, reason="", due_at=330
        )
    )
    catalog.commit(e.NodeStarted(at=50, version="1"))
    (delivery,) = catalog.views.deliveries("2.25.1")
    assert (delivery.due_at, delivery.created_at) == (50, 50)


def test_a_delivery_that_waits_for_its_next_attempt_goes_on_waiting_after_a_start(catalog):
    through_to_delivery(catalog)
    catalog.commit(e.DeliveryClaimed(at=311, delivery_id=1))
    catalog.commit(
        e.DeliveryEnded(
            at=312, delivery_id=1, state=DeliveryState.DEFERRED, status=None, reason="", due_at=900
        )
    )
    catalog.commit(e.NodeStarted(at=400, version="1"))
    (delivery,) = catalog.views.deliveries("2.25.1")
    assert (delivery.due_at, delivery.created_at) == (900, 310)


def test_a_report_that_is_owed_is_due_at_once_when_the_clock_was_set_back(catalog):
    catalog.commit(k.CommitmentAsked(at=312, transaction_uid="2.25.7", peer="PACS", references={}))
    catalog.commit(e.NodeStarted(at=50, version="1"))
    (promise,) = catalog.keeping.promises_due(50)
    assert promise.due_at == 50


def test_a_failing_step_returns_until_it_is_put_into_quarantine(catalog):
    scheduled(catalog)
    catalog.claim_step(now=301, lease_s=30, transaction_uid="t", performer="p")
    catalog.commit(e.StepFailed(at=302, step_id=1, reason="boom", retry_at=350))
    assert catalog.claim_step(now=340, lease_s=30, transaction_uid="t", performer="p") is None
    assert catalog.claim_step(now=350, lease_s=30, transaction_uid="u", performer="p").attempt == 2
    catalog.commit(e.StepFailed(at=351, step_id=1, reason="boom", retry_at=None))
    assert catalog.views.step(1).state is StepState.QUARANTINED
    assert ("QUARANTINED", 1) in catalog.views.unhappy()


def test_more_instances_cancel_the_step_that_was_scheduled_before(catalog):
    catalog.commit(opened(), arrival(1), e.StepScheduled(at=300, step=a_step()))
    catalog.commit(e.StepScheduled(at=301, step=a_step(revision=2)))
    assert [s.state for s in catalog.views.steps("1.2.3")] == [
        StepState.CANCELED,
        StepState.SCHEDULED,
    ]


def test_a_late_instance_cancels_the_step_that_lacks_it(catalog):
    scheduled(catalog)
    catalog.commit(arrival(2))
    (step,) = catalog.views.steps("1.2.3")
    assert (step.state, step.reason) == (StepState.CANCELED, "superseded: more instances arrived")
    assert catalog.claim_step(now=999, lease_s=30, transaction_uid="t", performer="p") is None


def test_a_verdict_on_fewer_instances_than_there_are_is_void(catalog):
    catalog.commit(opened(), arrival(1))
    seen = catalog.views.series("1.2.3")
    catalog.commit(arrival(2))
    with pytest.raises(CatalogError, match="has changed"):
        catalog.commit(judged(instances=seen.instances, was_due_at=seen.due_at))
    assert catalog.views.series("1.2.3").state is SeriesState.RECEIVING


def test_a_verdict_from_before_an_association_ended_is_void(catalog):
    catalog.commit(opened(), arrival(1))
    seen = catalog.views.series("1.2.3")
    catalog.commit(e.AssociationEnded(at=150, number=1, how="released"))
    with pytest.raises(CatalogError, match="has changed"):
        catalog.commit(judged(instances=seen.instances, was_due_at=seen.due_at))


def test_an_association_for_each_image_is_not_judged_at_each_end(catalog):
    for number in range(1, 5):
        catalog.commit(opened(number), arrival(number, association=number))
        catalog.commit(e.AssociationEnded(at=190 + number, number=number, how="released"))
    assert catalog.views.next_series_due() == 195.0


def test_a_held_series_is_neither_judged_nor_performed_nor_delivered(catalog):
    through_to_delivery(catalog)
    held = e.SeriesHeld(at=320, series_uid="1.2.3", reason="an operator held it")
    catalog.commit(held)
    assert catalog.claim_deliveries(now=330, limit=10, busy=frozenset()) == []
    assert catalog.owing.next_due(()) is None
    catalog.commit(e.SeriesReleased(at=340, series_uid="1.2.3", reason="go"))
    assert catalog.views.series("1.2.3").state is SeriesState.COMPLETE
    assert len(catalog.claim_deliveries(now=341, limit=10, busy=frozenset())) == 1


def test_what_arrives_while_a_series_is_held_is_judged_after_the_release(catalog):
    scheduled(catalog)
    catalog.commit(e.SeriesHeld(at=320, series_uid="1.2.3", reason="wait"))
    catalog.commit(arrival(2))
    assert catalog.views.series("1.2.3").state is SeriesState.HELD
    assert catalog.views.series_due(9999) == []
    catalog.commit(e.SeriesReleased(at=340, series_uid="1.2.3", reason="go"))
    (series,) = catalog.views.series_due(341)
    assert (series.state, series.revision, series.released) == (SeriesState.RECEIVING, 2, True)


def test_a_release_is_void_if_more_arrived_since_the_operator_looked(catalog):
    through_to_delivery(catalog)
    catalog.commit(e.SeriesHeld(at=320, series_uid="1.2.3", reason="doubtful"))
    assert catalog.supersession.outdated("1.2.3") == []
    catalog.commit(arrival(2))
    with pytest.raises(CatalogError, match="release it again"):
        catalog.commit(e.SeriesReleased(at=340, series_uid="1.2.3", reason="go", revision=1))
    assert catalog.views.series("1.2.3").state is SeriesState.HELD
    (outdated,) = catalog.supersession.outdated("1.2.3")
    catalog.commit(
        e.DeliveryWithdrawn(at=341, delivery_id=outdated, reason="outdated"),
        e.SeriesReleased(at=341, series_uid="1.2.3", reason="go", revision=2),
    )
    assert catalog.views.series("1.2.3").state is SeriesState.RECEIVING
    assert catalog.claim_deliveries(now=342, limit=10, busy=frozenset()) == []
    catalog.commit(e.DeliveryQueued(at=350, delivery=a_delivery()))  # the very same was made again
    assert len(catalog.claim_deliveries(now=351, limit=10, busy=frozenset())) == 1


def test_what_the_source_counts_is_kept_until_more_arrives(catalog):
    catalog.commit(opened(), arrival(1))
    said = e.SourceCounted(at=160, series_uid="1.2.3", revision=1, count=2, source="PACS has 2")
    catalog.commit(said)
    series = catalog.views.series("1.2.3")
    assert (series.source_count, series.source_at, series.due_at) == (2, 160, 160)
    catalog.commit(judged(), e.SourceCounted(**{**_fields(said), "count": 9}))
    assert catalog.views.series("1.2.3").source_count == 2  # the verdict was quicker


def _fields(event):
    return {name: getattr(event, name) for name in event.__slots__}


def test_other_bytes_under_a_known_uid_are_kept_apart(catalog):
    catalog.commit(opened(), arrival(1))
    assert catalog.commit(arrival(1, sha256="e" * 64, path="objects/ee/e")) == ["conflict"]
    assert catalog.commit(arrival(1, sha256="e" * 64, path="objects/ee/e")) == ["conflict"]
    (kept,) = catalog.views.conflicts("1.2.3")
    assert (kept.sop_instance_uid, kept.path) == ("1.2.3.1", "objects/ee/e")
    assert catalog.views.path_known("objects/ee/e")
    assert catalog.views.series("1.2.3").conflicts == 1


@pytest.mark.parametrize("uid", ["1.2.3", "1.2", "1.2.3.1", "2.25.1", "2.25.2", "P1"])
def test_a_series_is_found_by_anything_that_belongs_to_it(catalog, uid):
    through_to_delivery(catalog)
    assert [s.series_uid for s in catalog.views.find_series(uid)] == ["1.2.3"]


def of_another(number, **fields):
    """An instance whose header has other identifiers than the first of its Series."""
    event = arrival(number, **fields)
    attributes = {**event.instance.attributes, "PatientID": "P2", "AccessionNumber": "A2"}
    return replace(event, instance=replace(event.instance, study_uid="1.9", attributes=attributes))


@pytest.mark.parametrize("text", ["1.2", "P1", "1.9", "P2", "A2"])
def test_a_series_is_found_by_the_header_of_any_of_its_instances(catalog, text):
    catalog.commit(opened(), arrival(1), of_another(2))
    assert [s.series_uid for s in catalog.views.find_series(text)] == ["1.2.3"]


def test_no_text_leads_to_no_series(catalog):
    catalog.commit(opened(), arrival(1))
    assert catalog.views.series("1.2.3").accession_number == ""
    assert catalog.views.find_series("") == catalog.views.find_conflicts("") == []


def test_what_was_kept_apart_is_found_by_its_own_header_and_leads_no_command_astray(catalog):
    strange = of_another(1, sha256="e" * 64)
    strange = replace(strange, instance=replace(strange.instance, series_uid="1.2.4"))
    catalog.commit(opened(), arrival(1))
    assert catalog.commit(strange) == ["conflict"]
    for text in ("1.2.4", "1.9", "P2", "A2"):
        (kept,) = catalog.views.find_conflicts(text)
        assert (kept.series_uid, kept.own_series_uid) == ("1.2.3", "1.2.4")
        assert catalog.views.find_series(text) == [], "nothing of it is anybody's Series"
    assert catalog.views.conflicts("1.2.3") == catalog.views.conflicts("1.2.4") != []


def test_an_older_catalog_learns_what_leads_to_its_series(tmp_path):
    path = tmp_path / "catalog.db"
    catalog = Catalog(path)
    catalog.commit(opened(), arrival(1), of_another(2), of_another(1, sha256="e" * 64))
    catalog.close()
    old = sqlite3.connect(path)
    for name in ("own_series", "own_study", "patient", "accession"):
        old.execute(f"DROP INDEX conflict_{name}")
    for name in ("own_series_uid", "own_study_uid", "patient_id", "accession_number"):
        old.execute(f"ALTER TABLE conflict DROP COLUMN {name}")
    old.execute("DROP TABLE identifier")
    old.execute("DROP TABLE unreachable")
    old.execute("DROP TABLE missed")
    old.execute("DROP TABLE apart")
    old.execute("PRAGMA user_version = 4")
    old.commit()
    old.close()

    catalog = Catalog(path)
    assert [s.series_uid for s in catalog.views.find_series("A2")] == ["1.2.3"]
    assert [c.own_series_uid for c in catalog.views.find_conflicts("P2")] == ["1.2.3"]
    catalog.close()
    assert differences(path, tmp_path / "scratch.db", lambda _done, _total: None) == {}


def test_events_come_back_as_they_were_written(catalog):
    through_to_delivery(catalog)
    events = [event for _, event in catalog.views.events_after(0, 100)]
    assert opened() in events
    assert arrival(1) in events
    assert e.StepScheduled(at=300, step=a_step()) in events
    assert e.DeliveryQueued(at=310, delivery=a_delivery()) in events


def test_folding_the_events_again_gives_the_same_tables(catalog, tmp_path):
    through_to_delivery(catalog)
    catalog.claim_deliveries(now=320, limit=10, busy=frozenset())
    catalog.commit(
        e.DeliveryEnded(
            at=321, delivery_id=1, state=DeliveryState.SENT, status=0, reason="", due_at=321
        )
    )
    again = Catalog(tmp_path / "again.db")
    for _, event in catalog.views.events_after(0, 1000):
        again.commit(event)
    assert tables(tmp_path / "again.db") == tables(tmp_path / "catalog.db")
    again.close()


def tables(path):
    db = sqlite3.connect(path)
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: sorted(map(repr, db.execute(f"SELECT * FROM {name}"))) for name in names}
    db.close()
    return found


@pytest.mark.parametrize(
    ("table", "machine", "states_"),
    [
        ("series", states.SERIES_TRANSITIONS, SeriesState),
        ("step", states.STEP_TRANSITIONS, StepState),
        ("delivery", states.DELIVERY_TRANSITIONS, DeliveryState),
    ],
)
def test_the_catalog_refuses_every_transition_that_is_not_in_the_table(
    tmp_path, table, machine, states_
):
    catalog = Catalog(tmp_path / "c.db")
    through_to_delivery(catalog)
    catalog.close()
    db = connect(tmp_path / "c.db")
    for old in states_:
        for new in states_:
            db.execute("BEGIN")
            db.execute(f"DROP TRIGGER {table}_transition")
            db.execute(f"UPDATE {table} SET state = ?", (old,))
            db.execute("COMMIT")
            fresh = connect(tmp_path / "c.db")
            try:
                fresh.execute(f"UPDATE {table} SET state = ?", (new,))
                happened = True
            except sqlite3.IntegrityError:
                happened = False
            fresh.close()
            assert happened == (new == old or new in machine[old]), (old, new)
            db.close()
            db = connect(tmp_path / "c.db")
    db.close()


def test_many_threads_commit_and_every_commit_is_there(catalog):
    def store(association):
        catalog.commit(opened(association))
        for number in range(20):
            series = f"1.2.{association}"
            catalog.commit(arrival(number, series=series, association=association))

    threads = [threading.Thread(target=store, args=(n,)) for n in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalog.views.counts()["instance"] == 100


def test_one_callers_mistake_is_not_his_neighbours(catalog):
    catalog.commit(opened())
    with pytest.raises(CatalogError):
        catalog.commit(opened())  # the number is taken
    assert catalog.commit(arrival(1)) == ["new"]


def test_a_file_that_is_no_catalog_is_named(tmp_path):
    (tmp_path / "c.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CatalogError, match=r"c\.db is damaged .*catalog rebuild"):
        Catalog(tmp_path / "c.db")


def test_a_catalog_is_readable_by_its_owner_only(tmp_path):
    Catalog(tmp_path / "c.db").close()
    assert (tmp_path / "c.db").stat().st_mode & 0o077 == 0


def test_the_same_step_may_not_finish_with_a_result_of_someone_else(catalog):
    step = through_to_delivery(catalog)
    catalog.commit(e.ResultStored(at=400, result=replace(a_result(step.step_id), size=99)))
    assert catalog.views.result("2.25.1").size == 1, "the first result stays"
