"""The audit trail of a catalog's events: what is told, and what a crash may cost."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from collector.server import CERTIFICATES, SyslogCollector, parsed
from dicom_node.audit.box import Posted, post
from dicom_node.audit.codes import NODE_AUTHENTICATION
from dicom_node.audit.file import AuditFile
from dicom_node.audit.message import Message, Participant, security_alert
from dicom_node.audit.spool import AuditSpool
from dicom_node.audit.syslog import Collector, Endpoint, Origin
from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain import security as s
from dicom_node.domain.errors import AuditError
from dicom_node.domain.records import Delivery, Instance, Peer, Result, Step
from dicom_node.domain.states import DeliveryState, StepState
from dicom_node.node.audit import (
    AGAIN_S,
    FILE,
    GATHER_S,
    MORE_S,
    SETTLE_S,
    SYSLOG,
    Recorder,
    Reporter,
    Sender,
)
from dicom_node.node.audited import Teller, node_itself

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
PACS = Peer(name="pacs", ae_title="PACS", host="10.9.9.9", port=104)


@dataclass
class Told:
    """What a message says, as far as these tests ask."""

    event: str
    action: str
    outcome: str
    who: list[str]
    study: str = ""
    patient: str = ""
    name: str = ""
    classes: dict[str, int] = field(default_factory=dict)
    words: str = ""
    why: str = ""
    kind: str = ""


def told(xml: str) -> Told:
    root = ET.fromstring(xml)
    event = root.find("EventIdentification")
    one = Told(
        event=event.find("EventID").get("originalText"),
        action=event.get("EventActionCode"),
        outcome=event.get("EventOutcomeIndicator"),
        who=[p.get("UserID") for p in root.findall("ActiveParticipant")],
        why=event.findtext("EventOutcomeDescription") or "",
    )
    kind = event.find("EventTypeCode")
    one.kind = kind.get("originalText") if kind is not None else ""
    for about in root.findall("ParticipantObjectIdentification"):
        match about.find("ParticipantObjectIDTypeCode").get("originalText"):
            case "Study Instance UID":
                one.study = about.get("ParticipantObjectID")
                one.classes = {
                    c.get("UID", ""): int(c.get("NumberOfInstances"))
                    for c in about.iter("SOPClass")
                }
            case "Patient Number":
                one.patient = about.get("ParticipantObjectID")
                one.name = about.findtext("ParticipantObjectName")
            case "Node ID":
                detail = about.find("ParticipantObjectDetail").get("value")
                one.words = base64.b64decode(detail).decode()
    return one


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def luck(self) -> float:
        return 0.0

    def new_uid(self) -> str:
        return "2.25.1"


class Site:
    """A catalog with an audit trail; crash() forgets what was in memory."""

    def __init__(self, folder: Path, readers: tuple[str, ...] = (FILE,), **limits: int) -> None:
        self.folder = folder
        self.readers = readers
        self.limits = {"limit_bytes": 1 << 20, **limits}
        self.catalog = Catalog(folder / "catalog.db")
        self.clock = Clock()
        self.rings: list[str] = []
        self.file = AuditFile(path=folder / "audit.log", limit_bytes=1 << 30, keep=1)
        self.catalog.commit(e.NodeStarted(at=1.0, version="1"))
        self.up()

    def up(self) -> None:
        self.spool = AuditSpool(self.folder / "audit", self.readers, **self.limits)
        node = node_itself("NODE", "node.test")
        self.recorder = Recorder(
            spool=self.spool,
            trail=self.catalog.trail,
            teller=Teller(self.catalog.trail, node, {"pacs": PACS}),
            reporter=Reporter(
                node=node,
                source_id="NODE@node.test",
                origin=Origin(host="node.test", process=1, version="1"),
            ),
            file=self.file if FILE in self.readers else None,
            box=self.folder / "audit" / "box",
            wake=self.rings.append,
        )

    def crash(self) -> None:
        self.spool.close()
        self.up()

    def run(self) -> float | None:
        self.clock.at += 60.0
        return self.recorder.run_due(self.clock.at)

    def lines(self) -> list[bytes]:
        path = self.file.path
        return path.read_bytes().splitlines() if path.exists() else []

    def told(self) -> list[Told]:
        return [told(parsed(one).xml) for one in self.lines()]

    def news(self) -> list[Told]:
        """What was told since this was last asked."""
        before = getattr(self, "_known", 0)
        self.run()
        found = self.told()
        self._known = len(found)
        return found[before:]

    def opened(self, number: int, title: str = "CT1") -> None:
        self.catalog.commit(
            e.AssociationOpened(
                at=10.0, number=number, calling_ae=title, called_ae="NODE", address="10.1.1.1"
            )
        )

    def arrived(self, uid: str, number: int = 1, *, series: str = "1.5", sop_class: str = CT,
                study: str = "1.4", sha: str = "") -> None:  # fmt: skip
        instance = Instance(
            sop_instance_uid=uid, sop_class_uid=sop_class, transfer_syntax_uid="1.2",
            study_uid=study, series_uid=series, path=f"{uid}.dcm", size=1, sha256=sha or uid,
            association=number, received_at=11.0,
            attributes={"PatientID": f"P{study}", "PatientName": "Muster^Anna",
                        "AccessionNumber": "A1"},
        )  # fmt: skip
        self.catalog.commit(e.InstanceArrived(at=11.0, instance=instance, judge_at=99.0))

    def ended(self, number: int, how: str = "released") -> None:
        self.catalog.commit(e.AssociationEnded(at=20.0, number=number, how=how))

    def close(self) -> None:
        self.spool.close()
        self.catalog.close()


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path)
    assert [m.event for m in one.news()] == ["Application Activity"]
    yield one
    one.close()


def test_a_start_and_a_stop_are_told(site):
    site.recorder.finish(2000.0)

    assert [(m.event, m.kind) for m in site.told()] == [
        ("Application Activity", "Application Start"),
        ("Application Activity", "Application Stop"),
    ]


def test_a_study_is_told_when_it_begins_and_when_it_is_there(site):
    site.opened(1)
    site.arrived("1.1")
    (begun,) = site.news()
    assert (begun.event, begun.who) == ("Begin Transferring DICOM Instances", ["CT1", "NODE"])
    assert (begun.study, begun.patient, begun.name) == ("1.4", "P1.4", "Muster^Anna")
    site.arrived("1.2")
    site.arrived("1.3", series="1.6", sop_class=MR)
    assert site.news() == []

    site.ended(1)

    (done,) = site.news()
    assert (done.event, done.action, done.outcome) == ("DICOM Instances Transferred", "C", "0")
    assert (done.who, done.study, done.classes) == (["CT1", "NODE"], "1.4", {CT: 2, MR: 1})
    assert (done.patient, done.name) == ("P1.4", "Muster^Anna")


def test_two_patients_are_never_in_one_message(site):
    site.opened(1)
    site.arrived("1.1")
    site.arrived("1.2", series="1.6", study="1.7")
    site.ended(1)

    found = site.news()

    assert [(m.event[:5], m.study, m.patient) for m in found] == [
        ("Begin", "1.4", "P1.4"),
        ("Begin", "1.7", "P1.7"),
        ("DICOM", "1.4", "P1.4"),
        ("DICOM", "1.7", "P1.7"),
    ]


def test_what_was_here_before_was_read_and_not_created(site):
    for number, uids in ((1, ("1.1", "1.2")), (2, ("1.1", "1.2", "1.3"))):
        site.opened(number)
        for uid in uids:
            site.arrived(uid, number)
        site.ended(number)
        found = [(m.action, m.classes) for m in site.news() if "Transferred" in m.event]

    assert found == [("C", {CT: 1}), ("R", {CT: 2})]


@pytest.mark.parametrize("again", [False, True])
def test_an_association_for_each_image_costs_the_last_no_more_than_the_first(site, again):
    """Counted in steps of SQLite's machine."""

    def sent(numbers: range) -> int:
        for number in numbers:
            site.opened(number)
            site.arrived("1.1" if again else f"1.1.{number}", number)
            site.ended(number)
        taken: list[int] = []
        site.catalog._db.set_progress_handler(lambda: taken.append(1), 10)
        for _ in range(3):
            site.run()
        site.catalog._db.set_progress_handler(None, 0)
        return len(taken)

    def here(numbers: range) -> None:
        for number in numbers:
            site.arrived("1.1" if number == 1000 else f"1.9.{number}", 1000)
        site.run()

    here(range(1000, 1000 + 50 * again))
    first = sent(range(1, 301))
    here(range(1050, 1050 + 600 * again))
    then = sent(range(301, 601))

    assert then < 1.2 * first
    assert sum("Transferred" in m.event for m in site.told()) == 600


def test_what_was_kept_apart_is_told_of_whoever_sent_it(site):
    """Whose data it is, they say themselves; it is told of each who sent them."""
    site.opened(1)
    site.arrived("1.1")
    site.ended(1)
    site.news()
    for number, title in ((2, "CT2"), (3, "CT3")):
        site.opened(number, title)
        site.arrived("1.1", number, series="1.8", study="1.7", sha="other")
        site.arrived("1.1", number, sha="third")
        site.arrived("1.1", number, sha="fourth", sop_class=MR)
        site.ended(number)

        stranger, own = site.news()

        assert stranger.who == own.who == [title, "NODE"]
        assert (stranger.event, stranger.outcome) == ("DICOM Instances Transferred", "4")
        assert (stranger.study, stranger.patient, stranger.name) == ("1.7", "P1.7", "Muster^Anna")
        assert (stranger.classes, own.classes) == ({CT: 1}, {CT: 1, MR: 1})
        assert (own.study, own.patient, own.outcome) == ("1.4", "P1.4", "4")
        assert stranger.why.startswith("answered with status 0111, and kept apart")


def test_what_was_under_way_when_the_node_died_is_told_at_its_start(site):
    site.opened(1)
    site.arrived("1.1")
    site.catalog.commit(e.NodeStarted(at=30.0, version="1"))
    site.crash()

    found = site.news()

    assert [(m.event, m.classes) for m in found] == [
        ("Begin Transferring DICOM Instances", {CT: 1}),
        ("DICOM Instances Transferred", {CT: 1}),
        ("Application Activity", {}),
    ]


def test_a_crash_before_it_is_spooled_loses_nothing(site, monkeypatch):
    site.opened(1)
    site.arrived("1.1")
    site.ended(1)
    monkeypatch.setattr(site.spool, "append", _fails)
    assert site.run() == pytest.approx(site.clock.at + AGAIN_S)
    site.crash()

    assert [m.event for m in site.news()] == [
        "Begin Transferring DICOM Instances",
        "DICOM Instances Transferred",
    ]


def test_a_crash_after_it_is_spooled_tells_nothing_twice(site):
    site.opened(1)
    site.arrived("1.1")
    site.ended(1)
    before = len(site.lines())
    site.news()
    site.crash()
    site.news()

    assert len(site.lines()) == before + 2


def test_a_crash_between_the_file_and_its_cursor_writes_the_same_again(site, monkeypatch):
    site.opened(1)
    site.arrived("1.1")
    monkeypatch.setattr(site.spool, "advance", _fails)
    site.run()
    site.crash()
    site.run()

    first, again = site.lines()[-2:]
    assert first == again
    assert "sequenceId" in parsed(again).structured


def _fails(*arguments: object) -> None:
    raise AuditError("the spool of the audit trail cannot be written: No space left on device")


def test_another_catalog_is_told_from_its_start_on(site):
    """After a rebuild the numbers of events are those of others."""
    site.opened(1)
    site.arrived("1.1")
    site.ended(1)
    site.news()
    site.catalog.close()
    (site.folder / "catalog.db").unlink()
    for left in site.folder.glob("catalog.db-*"):
        left.unlink()
    site.catalog = Catalog(site.folder / "catalog.db")
    site.opened(1)
    site.arrived("1.1")  # rebuilt: long since told
    site.catalog.commit(e.NodeStarted(at=500.0, version="1"))
    site.crash()

    assert [m.event for m in site.news()][-1] == "Application Activity"
    site.opened(2)
    site.arrived("1.9", 2, series="1.8", study="1.9")
    assert [m.study for m in site.news()] == ["1.9"]


def test_who_is_rejected_or_breaks_the_protocol_is_an_alert(site):
    site.catalog.commit(
        e.AssociationRejected(
            at=5.0, calling_ae="EVIL", called_ae="NODE", address="10.6.6.6", reason="no peer",
            times=3,
        ),
        e.AssociationBroken(at=6.0, calling_ae="", address="10.6.6.7", reason="no DICOM"),
        s.HandshakeFailed(at=7.0, address="10.6.6.8", reason="it showed no certificate"),
    )  # fmt: skip

    rejected, broken, unsecured = site.news()

    assert (rejected.event, rejected.kind) == ("Security Alert", NODE_AUTHENTICATION.meaning)
    assert rejected.who == ["NODE", "EVIL"]
    assert rejected.words == "rejected: no peer (3 times)"
    assert rejected.outcome == "4"
    assert (broken.who, broken.words) == (["NODE", "10.6.6.7"], "no DICOM")
    assert unsecured.who == ["NODE", "10.6.6.8"]
    assert unsecured.words == "no TLS: it showed no certificate"


def test_who_is_not_the_user_that_he_must_be_failed_to_log_in(site):
    rejected = e.AssociationRejected(
        at=5.0, calling_ae="CT1", called_ae="NODE", address="10.1.1.1", reason="not that user",
        user="mallory",
    )  # fmt: skip
    site.catalog.commit(rejected, replace(rejected, at=6.0, user=""))

    named, nameless = site.news()

    assert (named.event, named.kind, named.outcome) == ("User Authentication", "Login", "4")
    assert (named.who, named.why) == (["mallory", "NODE"], "not that user")
    assert nameless.who == ["CT1", "NODE"]


def test_who_is_the_user_that_he_must_be_logged_in(site):
    opened = e.AssociationOpened(
        at=5.0, number=1, calling_ae="CT1", called_ae="NODE", address="10.1.1.1", user="ct-one"
    )
    site.catalog.commit(opened, replace(opened, number=2, user=""))

    (login,) = site.news()

    assert (login.event, login.kind, login.outcome) == ("User Authentication", "Login", "0")
    assert login.who == ["ct-one", "NODE"]


def test_a_change_of_the_certificate_is_told_and_so_is_one_that_is_refused(site):
    site.catalog.commit(
        s.CertificateLoaded(at=5.0, sha256="ab12", expires_at=9.0),
        s.CertificateRefused(at=6.0, reason="tls.key is k.pem: others may read it"),
    )

    loaded, refused = site.news()

    assert loaded.event == refused.event == "Security Alert"
    assert loaded.kind == refused.kind == "Security Configuration"
    assert (loaded.outcome, refused.outcome) == ("0", "4")
    assert loaded.who == refused.who == ["NODE"]
    assert "sha256:ab12" in loaded.words
    assert "others may read it" in refused.words


def test_who_asks_for_what_he_may_not_is_an_alert_and_other_refusals_are_failed_transfers(site):
    site.opened(1)
    refused = e.InstanceRefused(
        at=5.0, association=1, calling_ae="CT1", sop_instance_uid="1.1", study_uid="1.4",
        series_uid="1.5", status=0x0124, reason="it may not", others=("1.2",),
    )  # fmt: skip
    request = e.RequestRefused(
        at=8.0, association=1, calling_ae="CT1", address="10.1.1.1", request="N-ACTION",
        status=0x0124, reason="its may lacks commit",
    )  # fmt: skip
    site.catalog.commit(
        refused,
        replace(refused, at=6.0, status=0xC000, reason="cut"),
        replace(refused, at=7.0, status=0xC000, reason="cut", study_uid=""),
        request,
        replace(request, status=0x0211),
    )

    restricted, failed, asked = site.news()

    assert restricted.kind == asked.kind == "Use of Restricted Function"
    assert restricted.words == "C-STORE was refused: it may not (2 times)"
    assert asked.words == "N-ACTION was refused: its may lacks commit"
    assert (failed.event, failed.outcome) == ("DICOM Instances Transferred", "4")
    assert (failed.study, failed.classes, failed.why) == (
        "1.4", {"": 2}, "refused with status C000: cut",
    )  # fmt: skip


def owed(site: Site) -> None:
    site.opened(1)
    site.arrived("1.1")
    site.ended(1)
    site.catalog.commit(
        e.StepScheduled(at=30.0, step=Step(
            step_id=0, series_uid="1.5", revision=1, route="r", tool_id="t", results=("seg",),
            destinations=("pacs",), instance_uids=("1.1",), state=StepState.SCHEDULED, attempt=0,
            priority=0, due_at=30.0,
        )),
        e.ResultStored(at=31.0, result=Result(
            sop_instance_uid="1.99", sop_class_uid=SEG, transfer_syntax_uid="1.2",
            series_uid="1.98", study_uid="1.4", step_id=1, source_series_uid="1.5", tool_id="t",
            tool_version="1", kind="seg", path="r.dcm", size=1, sha256="x", created_at=31.0,
        )),
        e.DeliveryQueued(at=32.0, delivery=Delivery(
            delivery_id=0, result_uid="1.99", destination="pacs", state=DeliveryState.QUEUED,
            attempt=0, created_at=32.0, due_at=32.0,
        )),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "outcome"),
    [(DeliveryState.SENT, "0"), (DeliveryState.DEFERRED, "4"), (DeliveryState.PARKED, "8")],
)
def test_a_result_on_its_way_is_told_with_how_it_ended(site, state: DeliveryState, outcome: str):
    owed(site)
    site.news()
    site.catalog.commit(e.DeliveryClaimed(at=33.0, delivery_id=1))
    site.catalog.commit(e.DeliveryEnded(
        at=34.0, delivery_id=1, state=state, status=None, reason="so it was", due_at=99.0
    ))  # fmt: skip

    begun, done = site.news()

    assert (begun.event, begun.who) == ("Begin Transferring DICOM Instances", ["NODE", "PACS"])
    assert (done.event, done.outcome) == ("DICOM Instances Transferred", outcome)
    assert (done.patient, done.study, done.classes) == ("P1.4", "1.4", {SEG: 1})
    assert done.why == ("" if outcome == "0" else "so it was")


def test_what_is_removed_is_told(site):
    owed(site)
    site.news()
    site.catalog.commit(k.SeriesPurged(
        at=50.0, series_uid="1.5", reason="old", files=2, size=2,
        seen=site.catalog.trail.next_position(0)[0],
    ))  # fmt: skip

    (gone,) = site.news()

    assert (gone.event, gone.action) == ("DICOM Instances Accessed", "D")
    assert (gone.study, gone.patient, gone.classes) == ("1.4", "P1.4", {CT: 1})


def an_alert(words: str) -> Message:
    return security_alert(
        at=1.0, node=Participant(user_id="NODE"), kind=NODE_AUTHENTICATION, what=words
    )


def test_what_is_no_event_is_told_and_too_much_of_it_is_counted(site):
    for number in range(1003):
        site.recorder.tell(an_alert(str(number)))

    lost, *found = site.news()

    assert (lost.kind, lost.outcome) == ("Audit Recording Stopped", "12")
    assert lost.words == "3 audit messages were lost: too many at once"
    assert [m.words for m in found] == [str(n) for n in range(3, 1003)]


def test_what_waits_in_memory_outlives_a_disk_that_refuses(site, monkeypatch):
    site.recorder.tell(an_alert("one"))
    monkeypatch.setattr(site.spool, "append", _fails)
    site.run()
    monkeypatch.undo()
    site.recorder.tell(an_alert("two"))

    assert [m.words for m in site.news()] == ["one", "two"]


def test_what_commands_post_is_told_once(site):
    xml = "<AuditMessage>by hand</AuditMessage>"
    post(site.folder / "audit" / "box", Posted(at=7.0, well=True, xml=xml), "one")
    site.run()
    site.run()

    assert [parsed(one).xml for one in site.lines()].count(xml) == 1
    assert parsed(site.lines()[-1]).time == "1970-01-01T00:00:07.000Z"


@pytest.mark.parametrize(
    "body",
    [
        *(f'{{"at": {at}, "well": true, "xml": "<a/>"}}' for at in ("Infinity", "NaN", "1e300")),
        *(f'{{"at": {at}, "well": true, "xml": "<a/>"}}' for at in ("-1", "9" * 400)),
        "[" * 200_000,
        "[1]",
    ],
    ids=lambda body: body[:20],
)
def test_what_is_posted_and_is_no_message_goes_and_the_trail_goes_on(site, body):
    box = site.folder / "audit" / "box"
    box.mkdir()
    (box / "odd.message").write_text(body)
    site.recorder.tell(an_alert("told"))

    assert [m.words for m in site.news()] == ["told"]
    assert list(box.iterdir()) == []


def test_many_events_are_told_at_one_time_and_the_stage_comes_again_for_more(site, monkeypatch):
    monkeypatch.setattr("dicom_node.catalog.trail.AT_ONCE", 4)
    monkeypatch.setattr("dicom_node.node.audit.AT_ONCE", 4)
    for number in range(1, 4):
        site.opened(number)
        site.arrived(f"1.{number}", number)
        site.ended(number)

    assert site.run() == pytest.approx(site.clock.at + MORE_S)
    while site.run() is not None:
        pass
    assert len([m for m in site.told() if "Transferred" in m.event]) == 3


def test_within_a_second_nothing_is_written_twice(site):
    site.run()
    site.recorder.tell(an_alert("soon"))

    assert site.recorder.run_due(site.clock.at + 0.1) == pytest.approx(site.clock.at + GATHER_S)
    assert "soon" not in [m.words for m in site.told()]


def test_to_tell_never_waits_for_the_disk(site, monkeypatch):
    """A store goes on while the spool is stuck in a write."""
    inside, go_on = threading.Event(), threading.Event()
    append = site.spool.append

    def stuck(*arguments: object) -> None:
        inside.set()
        assert go_on.wait(30)
        append(*arguments)

    monkeypatch.setattr(site.spool, "append", stuck)
    site.recorder.tell(an_alert("one"))
    thread = threading.Thread(target=site.run)
    thread.start()
    assert inside.wait(30)

    site.recorder.tell(an_alert("two"))  # returns
    site.opened(5)
    site.arrived("1.1", 5)

    go_on.set()
    thread.join()
    assert [m.words for m in site.news()] == ["one", "", "two"]


# --- towards the collector


def sender(site: Site, port: int) -> Sender:
    endpoint = Endpoint(host="127.0.0.1", port=port, ca=CERTIFICATES / "ca.pem")
    return Sender(spool=site.spool, collector=Collector(endpoint), clock=site.clock)


@pytest.fixture
def sending(tmp_path):
    one = Site(tmp_path, (SYSLOG,))
    yield one
    one.close()


def words(collector: SyslogCollector) -> list[str]:
    return [told(parsed(one).xml).words for one in collector.messages]


def until(ready: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def say(site: Site, *some: str) -> None:
    for one in some:
        site.recorder.tell(an_alert(one))
    site.run()


def test_what_is_recorded_is_sent_and_settled_later(sending):
    with SyslogCollector() as there:
        stage = sender(sending, there.port)
        say(sending, "one", "two")
        assert stage.run_due(sending.clock.at) == pytest.approx(sending.clock.at + SETTLE_S)
        until(lambda: len(there.messages) == 3)
        assert words(there) == ["", "one", "two"]
        assert sending.spool.cursor(SYSLOG).next == 1

        sending.clock.at += SETTLE_S
        assert stage.run_due(sending.clock.at) is None
        assert sending.spool.cursor(SYSLOG).next == 4
        stage.finish(1.0)


def test_a_collector_that_is_away_gets_all_when_it_is_back(sending):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    stage = sender(sending, port)
    say(sending, "one")
    now = sending.clock.at
    waits = []
    for _ in range(3):
        due = stage.run_due(now)
        waits.append(round(due - sending.clock.at, 3))
        sending.clock.at = now = due
    assert waits == [1.0, 2.0, 4.0]
    say(sending, "two")

    with SyslogCollector(port=port) as there:
        assert stage.run_due(sending.clock.at) is not None
        until(lambda: len(there.messages) == 3)
        assert words(there) == ["", "one", "two"]
        stage.finish(1.0)


def test_a_collector_that_refuses_this_node_after_the_handshake_does_not_work(sending, caplog):
    """By TLS 1.3 the handshake is well; it wants a certificate, and is shown none."""
    caplog.set_level("INFO", "dicom_node")
    waits = []
    with SyslogCollector(client_ca=True) as there:
        stage = sender(sending, there.port)
        say(sending, "one")
        for _ in range(4):
            at = sending.clock.at
            while (due := stage.run_due(at)) == at + SETTLE_S:
                time.sleep(0.01)  # until it is noticed
            waits.append(round(due - at, 3))
            sending.clock.at = due
        assert there.messages == []

    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert [one.levelname for one in caplog.records] == ["ERROR"]
    assert sending.spool.cursor(SYSLOG).next == 1


def test_a_collector_works_again_once_it_has_borne_a_connection(sending, caplog):
    caplog.set_level("INFO", "dicom_node")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    stage = sender(sending, port)
    say(sending, "one")
    sending.clock.at = stage.run_due(sending.clock.at)

    with SyslogCollector(port=port) as there:
        sending.clock.at = stage.run_due(sending.clock.at)
        assert not any("works again" in one.message for one in caplog.records)
        until(lambda: len(there.messages) == 2)
        stage.run_due(sending.clock.at)
        last = caplog.records[-1].message
        assert last == f"audit trail: the collector 127.0.0.1:{port} works again"
        stage.finish(1.0)


def test_what_a_dying_collector_may_not_have_read_is_sent_again(sending):
    """Its kernel had acknowledged every byte; nobody has read them."""
    deaf = SyslogCollector(reads=False)
    stage = sender(sending, deaf.port)
    say(sending, "one")
    stage.run_due(sending.clock.at)
    deaf.stop()
    assert deaf.messages == []

    with SyslogCollector(port=deaf.port) as there:
        sending.clock.at += 1.0
        due = stage.run_due(sending.clock.at)  # notices
        sending.clock.at = due
        stage.run_due(sending.clock.at)
        until(lambda: len(there.messages) == 2)
        assert words(there) == ["", "one"]
        stage.finish(1.0)


def test_after_a_crash_it_begins_where_it_was_settled_and_repeats_to_the_byte(sending):
    with SyslogCollector() as there:
        stage = sender(sending, there.port)
        say(sending, "one")
        stage.run_due(sending.clock.at)
        until(lambda: len(there.messages) == 2)
        sending.clock.at += SETTLE_S
        stage.run_due(sending.clock.at)
        say(sending, "two")
        stage.run_due(sending.clock.at)
        until(lambda: len(there.messages) == 3)
        stage._collector.drop()
        sending.crash()

        again = sender(sending, there.port)
        again.run_due(sending.clock.at)
        until(lambda: len(there.messages) == 4)

        assert words(there) == ["", "one", "two", "two"]
        assert there.messages[2] == there.messages[3]
        again.finish(1.0)


def test_a_goodbye_that_is_answered_settles_everything(sending):
    with SyslogCollector() as there:
        stage = sender(sending, there.port)
        say(sending, "one")
        stage.finish(5.0)

        assert words(there) == ["", "one"]
        assert there.goodbyes == 1
        assert sending.spool.cursor(SYSLOG).next == 3


def test_when_the_spool_was_full_the_next_message_says_how_many_were_lost(tmp_path):
    site = Site(tmp_path, (SYSLOG,), limit_bytes=10_000, segment_bytes=2_000)
    for number in range(30):
        say(site, str(number))
    with SyslogCollector() as there:
        stage = sender(site, there.port)
        site.run()
        stage.run_due(site.clock.at)
        until(lambda: there.messages)
        until(lambda: words(there)[-1] != "")
        stage.finish(5.0)

        numbers = [int(re.search(rb'sequenceId="(\d+)"', m)[1]) for m in there.messages]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))  # what is left is whole
        cursor = site.spool.cursor(SYSLOG)
        *_, last = (one for one in words(there) if "were lost" in one)
        assert "before they reached the syslog: the spool was full" in last
        in_all = int(re.search(r"\((\d+) in all\)", last)[1])
        assert in_all + cursor.untold == cursor.lost == numbers[0] - 1 > 0
    site.close()
