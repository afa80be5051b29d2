"""What an operator's commands do to the record of a node that is not running."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from dicom_node.catalog import Catalog
from dicom_node.cli.hold import hold, release
from dicom_node.cli.retry import retry
from dicom_node.cli.why import why
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.records import Delivery, Instance, Result, Step
from dicom_node.domain.states import DeliveryState, SeriesState, StepState

SERIES = "1.2.3"


class Record:
    """A catalog, written as the node would write it, with a tick of the clock for each event."""

    def __init__(self, path, config_path):
        self.path, self.config_path = path, config_path
        self.now = 1000.0
        self.catalog = Catalog(path)
        self.steps = 0
        self.commit(
            e.AssociationOpened,
            number=1,
            calling_ae="TESTPACS",
            called_ae="DICOMNODE",
            address="127.0.0.1",
        )

    def commit(self, kind, **fields):
        self.now += 1
        return self.catalog.commit(kind(at=self.now, **fields))

    def arrives(self, number, series=SERIES):
        self.commit(
            e.InstanceArrived,
            instance=Instance(
                sop_instance_uid=f"{series}.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                study_uid="1.2",
                series_uid=series,
                path=f"objects/aa/{series}.{number}",
                size=10,
                sha256=f"{series}.{number}",
                association=1,
                received_at=self.now,
                attributes={"Modality": "CT", "SeriesDescription": "Thorax", "PatientID": "P"},
            ),
            judge_at=self.now,
        )

    def complete(self, revision=1, *, unrouted=""):
        self.commit(
            e.SeriesJudged,
            series_uid=SERIES,
            revision=revision,
            state=SeriesState.COMPLETE,
            reasons=("whole",),
        )
        if unrouted:
            self.commit(e.SeriesUnrouted, series_uid=SERIES, revision=revision, reasons=(unrouted,))

    def makes(self, uid, *, revision=1, replaces=(), to=("pacs",), kind="seg"):
        """A step that completes with one result, owed to peers."""
        self.steps += 1
        step = Step(
            step_id=0,
            series_uid=SERIES,
            revision=revision,
            route="lungs",
            tool_id="lung-unet",
            results=(kind,),
            destinations=to,
            instance_uids=(f"{SERIES}.1",),
            state=StepState.SCHEDULED,
            attempt=0,
            priority=0,
            due_at=self.now,
            replaces=replaces,
        )
        self.commit(e.StepScheduled, step=step)
        transaction = f"2.25.77{self.steps}"
        self.commit(
            e.StepClaimed,
            step_id=self.steps,
            transaction_uid=transaction,
            performer="p0",
            lease_until=self.now + 60,
        )
        self.commit(
            e.StepCompleted, step_id=self.steps, transaction_uid=transaction, seconds={"infer": 1.0}
        )
        self.result(uid, to=to, kind=kind)

    def result(self, uid, *, to=("pacs",), kind="seg", series_uid=""):
        """One more of the last step."""
        result = Result(
            sop_instance_uid=uid,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            series_uid=series_uid or f"{uid}.0",
            study_uid="1.2",
            step_id=self.steps,
            source_series_uid=SERIES,
            tool_id="lung-unet",
            tool_version="1",
            kind=kind,
            path=f"objects/bb/{uid}",
            size=1,
            sha256=uid,
            created_at=self.now,
        )
        self.commit(e.ResultStored, result=result)
        for name in to:
            self.commit(
                e.DeliveryQueued,
                delivery=Delivery(
                    delivery_id=0,
                    result_uid=uid,
                    destination=name,
                    state=DeliveryState.QUEUED,
                    attempt=0,
                    created_at=self.now,
                    due_at=self.now,
                ),
            )

    def number(self, uid):
        return self.catalog.views.deliveries(uid)[0].delivery_id

    def sending(self, uid):
        self.commit(e.DeliveryClaimed, delivery_id=self.number(uid))

    def ended(self, uid, state=DeliveryState.SENT, reason=""):
        self.sending(uid)
        self.commit(
            e.DeliveryEnded,
            delivery_id=self.number(uid),
            state=state,
            status=0,
            reason=reason,
            due_at=self.now,
        )

    def state(self, uid):
        return self.catalog.views.deliveries(uid)[0].state

    def run(self, command, *arguments):
        return CliRunner().invoke(command, [*arguments, "--config", str(self.config_path)])

    def told(self, command, *arguments):
        """The answer on one line, however it is wrapped."""
        return " ".join(self.run(command, *arguments).output.split())

    def answer(self, command, *arguments):
        return json.loads(self.run(command, *arguments, "--json").stdout)

    def verdict(self, what=SERIES):
        return self.answer(why, what)[0]["verdict"]


@contextmanager
def recording(folder, build):
    peers = build.peer_table("pacs", "TESTPACS", 11113)
    path = build.write_node(folder, peers=peers)
    (folder / "var").mkdir()
    record = Record(folder / "var" / "catalog.db", path)
    yield record
    record.catalog.close()


@pytest.fixture
def record(tmp_path, build):
    with recording(tmp_path / "node", build) as made:
        yield made


def replaced(record):
    """Two results, of which the PACS has both; the second replaced the first."""
    record.arrives(1)
    record.complete()
    record.makes("2.25.1")
    record.ended("2.25.1")
    record.arrives(2)
    record.complete(revision=2)
    record.makes("2.25.2", revision=2, replaces=("2.25.1",))
    record.ended("2.25.2")


def test_what_was_replaced_is_not_sent_again_and_stays_what_the_pacs_has(record):
    replaced(record)
    assert record.answer(retry, SERIES, "--again")["deliveries"] == 1
    assert record.state("2.25.2") is DeliveryState.QUEUED
    assert record.state("2.25.1") is DeliveryState.SENT
    record.commit(e.DeliveryReset, delivery_id=record.number("2.25.1"))
    assert record.state("2.25.1") is DeliveryState.SENT, "also where it was replaced meanwhile"


def test_what_failed_and_was_replaced_is_not_among_all(record):
    record.arrives(1)
    record.complete()
    record.makes("2.25.1")
    record.ended("2.25.1", DeliveryState.PARKED, "no")
    record.arrives(2)
    record.complete(revision=2)
    record.makes("2.25.2", revision=2, replaces=("2.25.1",))
    assert record.answer(retry, "--all")["reason"] == "nothing has failed"


def test_what_was_withdrawn_for_another_kind_is_sent_where_that_is_asked_for(record):
    record.arrives(1)
    record.complete()
    record.makes("2.25.1")
    record.ended("2.25.1", DeliveryState.PARKED, "no")
    number = record.number("2.25.1")
    record.commit(e.DeliveryWithdrawn, delivery_id=number, reason="pictures go instead")
    assert record.answer(retry, SERIES)["deliveries"] == 0
    assert record.answer(retry, SERIES, "--again")["deliveries"] == 1
    assert record.state("2.25.1") is DeliveryState.QUEUED


def test_what_was_committed_can_be_sent_again(record):
    record.arrives(1)
    record.complete()
    record.makes("2.25.1")
    record.ended("2.25.1")
    record.commit(
        k.DeliveryConfirmed,
        delivery_id=record.number("2.25.1"),
        state=DeliveryState.COMMITTED,
        reason="",
        due_at=record.now,
    )
    assert "--again" in record.answer(retry, SERIES)["reason"]
    assert record.answer(retry, SERIES, "--again")["deliveries"] == 1
    assert record.state("2.25.1") is DeliveryState.QUEUED


def test_what_is_being_sent_right_now_is_said(record):
    record.arrives(1)
    record.complete()
    record.makes("2.25.1")
    record.result("2.25.2")
    record.ended("2.25.2", DeliveryState.PARKED, "no")
    record.sending("2.25.1")
    for arguments in (("--all", "--to", "pacs"), (SERIES,)):
        told = record.told(retry, *arguments)
        assert "1 delivery: due when the node runs: it is not running" in told
        assert "; 1 is being sent right now" in told
        assert record.state("2.25.2") is DeliveryState.QUEUED
        told = record.run(retry, *arguments)
        assert "nothing" in told.output
        assert "has failed; 1 is being sent right now" in told.output
        assert record.answer(retry, *arguments)["sending"] == 1
        record.ended("2.25.2", DeliveryState.PARKED, "no")


def test_a_delivery_that_was_claimed_meanwhile_does_not_spoil_the_others(record):
    record.arrives(1)
    record.complete()
    record.makes("2.25.1")
    record.result("2.25.2")
    record.ended("2.25.2", DeliveryState.PARKED, "no")
    record.sending("2.25.1")
    record.catalog.commit(
        *(e.DeliveryReset(at=5000, delivery_id=record.number(uid)) for uid in ("2.25.1", "2.25.2"))
    )
    assert [record.state(uid) for uid in ("2.25.1", "2.25.2")] == ["SENDING", "QUEUED"]


@pytest.mark.parametrize("command", [why, retry, hold, release], ids=lambda c: c.name)
@pytest.mark.parametrize("text", ["", "  "])
def test_a_variable_that_nobody_has_set_hits_nothing(record, command, text):
    record.arrives(1)  # it has no accession number
    done = record.run(command, text)
    assert done.exit_code == 2
    assert "is empty" in done.output
    series = record.catalog.views.series(SERIES)
    assert (series.state, series.released) == (SeriesState.RECEIVING, False)


def test_an_empty_text_beside_all_is_an_error_too(record):
    assert record.run(retry, "", "--all").exit_code == 2


def test_several_series_that_were_hit_are_named(record):
    record.arrives(1)
    assert record.told(hold, "P") == "1 series held"
    record.arrives(1, series="1.2.4")
    record.arrives(1, series="1.2.5")
    done = record.run(hold, "P")
    assert done.output.splitlines() == ["2 series held", "  1.2.4  CT Thorax", "  1.2.5  CT Thorax"]
    assert record.answer(release, "P")["hit"] == [
        {"series_uid": uid, "description": "CT Thorax"} for uid in ("1.2.3", "1.2.4", "1.2.5")
    ]


def test_a_result_of_before_is_named_where_the_routes_take_the_series_no_more(record):
    record.arrives(1)
    record.complete()
    record.makes("2.25.1")
    record.ended("2.25.1")
    record.arrives(2)
    assert record.verdict().endswith("; its earlier result of lung-unet: pacs has it")
    record.complete(revision=2, unrouted="route 'lungs': Rows is 1, not 2")
    assert record.verdict() == (
        "complete, no result: route 'lungs': Rows is 1, not 2; its earlier result of lung-unet: "
        "pacs has it"
    )
    record.commit(e.SeriesHeld, series_uid=SERIES, reason="wrong patient")
    assert "its earlier result of lung-unet: pacs has it" in record.verdict()


def test_a_result_that_was_replaced_is_not_named_as_one_of_before(record):
    replaced(record)
    assert "its earlier result" not in record.verdict()
    assert record.verdict().endswith("pacs has it; pacs has the earlier one beside it")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (DeliveryState.SENT, "pacs was told to hide the earlier one"),
        (
            DeliveryState.PARKED,
            "pacs has the earlier one beside it: the note that tells it to hide it is PARKED "
            "(it takes no notes; once that is mended: dicom-node retry 2.25.9)",
        ),
    ],
)
def test_who_was_told_of_a_replacement_and_who_was_not(record, state, words):
    replaced(record)
    record.result("2.25.9", kind="rejection")
    record.commit(e.RejectionOwed, delivery_id=record.number("2.25.1"), note_uid="2.25.9")
    assert "has the earlier one beside it: the note that tells it to hide it is QUEUED" in (
        record.verdict()
    )
    record.ended("2.25.9", state, "it takes no notes")
    assert record.verdict().endswith(words)


def test_what_was_removed_says_why_and_asks_for_no_release(record):
    record.arrives(1)
    record.complete()
    record.commit(
        k.SeriesPurged, series_uid=SERIES, reason="kept for 30 days", files=1, size=10, seen=99
    )
    assert "its files were removed on 1970-01-01 (kept for 30 days)" in record.verdict()
    record.arrives(2)
    record.commit(
        e.SeriesJudged,
        series_uid=SERIES,
        revision=2,
        state=SeriesState.INCOMPLETE,
        reasons=("1 of its 2 files was removed: have the Series sent again",),
    )
    assert record.verdict() == (
        "INCOMPLETE: 1 of its 2 files was removed: have the Series sent again; 1 of its 2 files is "
        "lacking, removed on 1970-01-01 (kept for 30 days)"
    )
    assert "have the images sent again" in record.run(release, SERIES).output
    assert record.catalog.views.series(SERIES).state is SeriesState.INCOMPLETE
    assert "have the images sent again" in record.answer(retry, SERIES)["reason"]


def test_many_pictures_of_one_result_are_one_line(record):
    record.arrives(1)
    record.complete()
    record.makes("2.25.100", kind="sc")
    pictures = ["2.25.100", *(f"2.25.{100 + n}" for n in range(1, 60))]
    for uid in pictures[1:]:
        record.result(uid, kind="sc", series_uid="2.25.100.0")
    for uid in pictures[:50]:
        record.ended(uid)
    text = record.run(why, SERIES).output
    assert "60 results (sc) were made: 2.25.100, 2.25.101 and 58 more" in " ".join(text.split())
    assert text.count("pacs: SENT") == 1
    assert "50 times from" in text
    assert len(text.splitlines()) < 30
    everything = record.run(why, SERIES, "--all").output
    assert everything.count("(sc) was made") == 60
    assert everything.count("pacs: SENT") == 50
    asked = record.told(why, "2.25.100.0")
    assert "2.25.100.0 is the series of the 60 results (sc) that lung-unet 1 made" in asked
    assert "pacs has it (50 objects), pacs is QUEUED (10 objects)" in asked
    assert asked.count("is what lung-unet") == 0
