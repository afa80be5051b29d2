"""Each refusal is found by `why`, and a flood of them costs a few rows."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dicom_node.catalog import Catalog, codec
from dicom_node.dimse.contract import AssociationRequest, Refusal, StoreAnswer, StoreRequest
from dicom_node.dimse.status import LOCAL_LIMIT_EXCEEDED
from dicom_node.domain import events as e
from dicom_node.domain.records import Peer
from dicom_node.domain.security import Certificate
from dicom_node.node import bell as bells
from dicom_node.node import refusals
from dicom_node.node.admit import Admission
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal
from dicom_node.node.receive import StorageReceiver
from dicom_node.node.refusals import EACH, KEPT_S
from dicom_node.node.why import stories
from dicom_node.node.words import opened
from dicom_node.spool.store import Spool
from dicom_node.testing.received import store_through
from dicom_node.testing.series import a_series

PEER = Peer(name="ct", ae_title="CT1", host="127.0.0.1", port=104, may=frozenset(), idle_s=600.0)


@pytest.fixture
def node(tmp_path):
    catalog, bell = Catalog(tmp_path / "catalog.db"), bells.Bell(tmp_path)
    journal, woken = Journal(catalog, bell), []

    def receiver(peer: Peer) -> StorageReceiver:
        return StorageReceiver(
            admission=Admission(
                ae_title="NODE", peers=(peer,), accept_unknown=False, min_free_bytes=0, quiet_s=1.0
            ),
            spool=Spool(tmp_path / "spool"),
            journal=journal,
            clock=SystemClock(),
            wake=lambda: woken.append(1),
        )

    yield SimpleNamespace(
        catalog=catalog,
        receiver=receiver(PEER),
        storing=receiver(replace(PEER, may=frozenset({"store"}))),
        clock=SystemClock(),
        woken=woken,
    )
    catalog.close()
    bell.close()


def asking(calling: str = "CT1", address: str = "127.0.0.1") -> AssociationRequest:
    return AssociationRequest(calling_ae=calling, called_ae="NODE", address=address, port=1)


def refuse(node, number: int, uid: str) -> StoreAnswer:
    """The peer may not store: its object is refused as it begins."""
    answer = node.receiver.begin(
        StoreRequest(
            association=number,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=uid,
            transfer_syntax_uid="1.2.840.10008.1.2",
            message_id=1,
            calling_ae="CT1",
        )
    )
    assert isinstance(answer, StoreAnswer)
    return answer


def events(node) -> list[e.Event]:
    return [event for _, event in node.catalog.views.events_after(0, 100_000)]


def by_the_front(number: int, request: str, uid: str = "") -> Refusal:
    return Refusal(
        association=number,
        caller=asking(),
        request=request,
        sop_instance_uid=uid,
        answer=StoreAnswer(status=0x0122, comment="not of the context"),
    )


def test_thousands_of_refused_objects_cost_few_rows_and_each_is_found(node):
    number = node.receiver.admit(asking())
    for n in range(2000):
        assert refuse(node, number, f"1.2.3.{n}").recorded
    node.receiver.finish()
    refused = [event for event in events(node) if isinstance(event, e.InstanceRefused)]
    assert len(refused) < EACH.first + 10
    assert sum(1 + len(event.others) for event in refused) == 2000
    for n in (0, 70, 1234, 1999):
        (story,) = stories(node.catalog, f"1.2.3.{n}")
        assert "refused with 0x0124" in story.verdict


def test_of_a_peer_that_goes_on_all_day_the_rest_is_counted(node, monkeypatch):
    monkeypatch.setattr(refusals, "NAMED_MAX", 1000)
    number = node.receiver.admit(asking())
    for n in range(5000):
        refuse(node, number, f"1.2.3.{n}")
    node.receiver.finish()
    refused = [event for event in events(node) if isinstance(event, e.InstanceRefused)]
    assert sum(event.times for event in refused) == 5000
    assert sum(len(event.others) for event in refused) == 1000


def test_what_was_refused_of_a_peer_is_found_by_its_title(node):
    number = node.receiver.admit(asking())
    refuse(node, number, "1.2.3.4")
    node.receiver.rejected(asking(), LOCAL_LIMIT_EXCEEDED)
    (story,) = stories(node.catalog, "CT1")
    assert [line.kind for line in story.lines] == ["InstanceRefused", "AssociationRejected"]


def test_what_is_kept_is_recorded_after_a_minute(node):
    number = node.receiver.admit(asking())
    for n in range(EACH.first + 1):
        refuse(node, number, f"1.2.3.{n}")
    last = f"1.2.3.{EACH.first}"
    assert node.woken, "the stage learns that something is due"
    assert stories(node.catalog, last) == []
    due = node.receiver.run_due(node.clock.now())
    assert due is not None
    assert node.receiver.run_due(node.clock.now() + KEPT_S + 1) is None
    assert "0x0124" in stories(node.catalog, last)[0].verdict


def test_an_object_refused_by_the_front_is_found_by_its_uid(node):
    number = node.receiver.admit(asking())
    node.receiver.refused(by_the_front(number, "C-STORE", "1.2.3.4"))
    node.receiver.ended(number, "released")
    (story,) = stories(node.catalog, "1.2.3.4")
    assert story.verdict == (
        "instance 1.2.3.4 from CT1 was refused with 0x0122: not of the context"
    )
    assert [type(event).__name__ for event in events(node)] == [
        "AssociationOpened",
        "InstanceRefused",
        "AssociationEnded",
    ]


def test_a_refused_request_is_found_by_the_title_and_a_flood_of_it_is_counted(node):
    number = node.receiver.admit(asking())
    for _ in range(3000):
        node.receiver.refused(by_the_front(number, "C-FIND"))
    (told,) = events(node)
    (story,) = stories(node.catalog, "CT1")
    assert story.verdict == (
        "C-FIND from CT1 at 127.0.0.1 was refused with 0x0122: not of the context"
    )
    assert told.times == 1


def test_a_broken_association_is_found_by_title_and_a_broken_connection_by_address(node):
    number = node.receiver.admit(asking())
    node.receiver.broke(asking(), number, "the PDU does not belong here")
    node.receiver.broke(asking("", "10.1.2.3"), None, "the PDU is of no known type")
    (story,) = stories(node.catalog, "CT1")
    assert story.verdict == (
        f"association {number} of CT1 at 127.0.0.1 was broken: the PDU does not belong here"
    )
    (story,) = stories(node.catalog, "10.1.2.3")
    assert story.verdict == "a connection of 10.1.2.3 was broken: the PDU is of no known type"


def test_a_rejection_by_the_front_is_found_and_its_title_cannot_forge_a_line(node):
    node.receiver.rejected(asking("EVIL\nline" + "x" * 500), LOCAL_LIMIT_EXCEEDED)
    (told,) = events(node)
    assert told.calling_ae.startswith("EVIL\\nline")
    assert len(told.calling_ae) <= 64
    assert "local limit exceeded" in told.reason


def test_a_flood_from_thousands_of_addresses_costs_few_rows(node):
    for n in range(3000):
        node.receiver.broke(asking("", f"10.0.{n // 250}.{n % 250}"), None, "no known type")
    assert len(events(node)) < 550


def test_a_flood_from_one_address_hides_nobody_else(node):
    for n in range(3000):
        node.receiver.rejected(asking(f"X{n}"), LOCAL_LIMIT_EXCEEDED)
    assert len(events(node)) < 60
    node.receiver.rejected(asking("NEW_CT", "10.1.2.3"), LOCAL_LIMIT_EXCEEDED)
    assert events(node)[-1].calling_ae == "NEW_CT"


def test_an_echo_is_one_line_in_the_log_and_nothing_in_the_catalog(
    node, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "dicom_node")
    node.receiver.echoed(asking())
    (line,) = caplog.records
    assert (line.levelname, line.getMessage()) == (
        "INFO",
        "CT1 at 127.0.0.1: C-ECHO was answered",
    )
    assert events(node) == []


@pytest.mark.parametrize(
    ("certificate", "told"),
    [
        (None, "TLS 1.2 without a certificate"),
        (
            Certificate(sha256="ab" * 32, subject=(("CN", "pacs.hospital"), ("O", "A, B\n"))),
            "TLS 1.2 as CN=pacs.hospital,O=A\\, B\\n",
        ),
        (Certificate(sha256="ab" * 32), "TLS 1.2 as sha256:" + "ab" * 32),
    ],
)
def test_who_came_by_tls_is_recorded_with_the_certificate_that_he_showed(
    node, caplog: pytest.LogCaptureFixture, certificate: Certificate | None, told: str
):
    caplog.set_level(logging.INFO, "dicom_node")
    plain = asking()
    secure = replace(plain, over_tls=True, tls_version="TLS 1.2", certificate=certificate)
    node.receiver.echoed(secure)
    assert caplog.messages == [f"CT1 at 127.0.0.1 by {told}: C-ECHO was answered"]
    for number, request in enumerate((plain, secure)):
        refuse(node, node.receiver.admit(request), f"1.2.{number}")

    first, second = (event for event in events(node) if isinstance(event, e.AssociationOpened))
    assert (first.secured, second.secured) == ("", told)
    words = [opened("CT1", "127.0.0.1", 7, one.secured) for one in (first, second)]
    assert words == [
        "CT1 at 127.0.0.1 opened association 7",
        f"CT1 at 127.0.0.1 opened association 7 by {told}",
    ]


def test_an_association_that_was_recorded_before_this_is_one_in_clear():
    old = '{"at":1.0,"number":7,"calling_ae":"A","called_ae":"B","address":"10.1.2.3"}'

    assert codec.from_json("AssociationOpened", old).secured == ""


def test_the_idle_limit_of_a_peer_is_that_of_its_associations(node):
    assert node.receiver.idle_s(node.receiver.admit(asking())) == 600.0


def test_the_story_of_a_series_says_by_which_fault_its_association_ended(node):
    (dataset,) = a_series(1)
    number = node.storing.admit(asking())
    assert store_through(node.storing, dataset, association=number) == 0
    node.storing.broke(asking(), number, "it was disconnected inside a message")
    node.storing.ended(number, "disconnected")
    (story,) = stories(node.catalog, str(dataset.SeriesInstanceUID))
    told = [line.text for line in story.lines if line.kind == "AssociationBroken"]
    assert told == [
        f"association {number} of CT1 at 127.0.0.1 was broken: it was disconnected inside a message"
    ]
