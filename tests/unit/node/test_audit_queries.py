"""The queries that the node makes are told before they go out, with the keys that go out."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node.audit.message import Message
from dicom_node.domain.records import Peer, Series
from dicom_node.domain.states import SeriesState
from dicom_node.node.asked import Queries
from dicom_node.node.audit import nobody
from dicom_node.node.clock import SystemClock

PACS = Peer(name="pacs", ae_title="PACS", host="10.1.2.3", port=104)
SERIES = Series(
    series_uid="1.5",
    study_uid="1.4",
    state=SeriesState.RECEIVING,
    revision=1,
    instances=3,
    first_at=1.0,
    last_at=2.0,
    due_at=None,
)


@pytest.fixture
def order() -> list[object]:
    """What was told and asked, in order."""
    return []


@pytest.fixture
def queries(order) -> Queries:
    return Queries(tell=order.append, ae_title="NODE", clock=SystemClock())


def keys(message: object) -> pydicom.Dataset:
    assert isinstance(message, Message)
    (about,) = message.concerned
    assert [p.user_id for p in message.participants] == ["NODE", "PACS"]
    assert dict(about.details)["TransferSyntax"] == ImplicitVRLittleEndian.encode()
    return pydicom.dcmread(BytesIO(bytes(about.query or b"")), force=True)


def test_a_count_is_told_before_it_is_asked_for(queries, order):
    def count(peer: Peer, series: Series) -> tuple[int | None, str]:
        order.append("asked")
        return 3, "pacs has 3"

    assert queries.counting(count)(PACS, SERIES) == (3, "pacs has 3")

    told, asked = order
    assert asked == "asked"
    found = keys(told)
    assert found.QueryRetrieveLevel == "SERIES"
    assert (found.StudyInstanceUID, found.SeriesInstanceUID) == ("1.4", "1.5")


def test_a_count_by_qido_is_told_with_its_service(queries, order):
    peer = Peer(name="p", ae_title="PACS", host="h", port=1, dicomweb="https://pacs/dicom-web")
    queries.counting(lambda *_: (3, ""))(peer, SERIES)

    (about,) = order[0].concerned
    assert about.id == "https://pacs/dicom-web"
    assert about.query == b"StudyInstanceUID=1.4&SeriesInstanceUID=1.5"


def test_a_list_is_told_in_the_pieces_in_which_it_is_asked_for(queries, order):
    """A message of all UIDs might be longer than a collector takes."""
    uids = [f"1.2.{n}" for n in range(250)]
    listing = queries.listing(lambda *_: (frozenset(), None))

    assert listing(PACS, "1.4", "1.5", uids) == (frozenset(), None)

    found = [keys(one) for one in order]
    assert [len(one.SOPInstanceUID) for one in found] == [100, 100, 50]
    assert {uid for one in found for uid in one.SOPInstanceUID} == set(uids)


def test_without_an_audit_trail_nothing_is_in_between():
    off = Queries(tell=nobody, ae_title="NODE", clock=SystemClock())

    def count(peer: Peer, series: Series) -> tuple[int | None, str]:
        return None, ""

    def listing(*arguments: object) -> tuple[frozenset[str], str | None]:
        return frozenset(), None

    assert off.counting(count) is count
    assert off.listing(listing) is listing
