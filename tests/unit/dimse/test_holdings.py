"""What a peer has of a Series: found by lists and among all, counted by it and by us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_node.dimse.holdings import CHUNK
from dicom_node.dimse.scu import (
    Counted,
    Held,
    Learned,
    Phase,
    Timeouts,
    count_series,
    held_instances,
)
from dicom_node.domain.records import Peer
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, a_series

STUDY, SERIES = Header().study_uid, Header().series_uid
OTHER = "1.2.826.0.1.3680043.2.9999"


def a_peer(port: int) -> Peer:
    return Peer(name="pacs", ae_title="TESTPACS", host="127.0.0.1", port=port)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[LocalPacs]:
    """Holds four instances of the Series, and two of another in the same Study."""
    with LocalPacs(tmp_path / "pacs") as running:
        others = a_series(2, header=Header(series="other"))
        send_series(("127.0.0.1", running.port), running.ae_title, [*a_series(4), *others])
        running.queries.clear()
        yield running


@pytest.fixture
def stock() -> Iterator[Callable[[Callable], Peer]]:
    """Starts a server of pynetdicom that answers C-FIND as the given function does."""
    servers = []

    def start(on_find: Callable) -> Peer:
        entity = AE("TESTPACS")
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        servers.append(
            entity.start_server(
                ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, on_find)]
            )
        )
        return a_peer(servers[-1].server_address[1])

    yield start
    for server in servers:
        server.shutdown()


def uids() -> list[str]:
    return [str(d.SOPInstanceUID) for d in a_series(4)]


def held(peer: Peer, wanted: list[str]) -> Held:
    return held_instances(
        peer=peer,
        calling_ae="DICOMNODE",
        study_uid=STUDY,
        series_uid=SERIES,
        sop_instance_uids=wanted,
    )


def counted(peer: Peer) -> Counted:
    return count_series(peer=peer, calling_ae="DICOMNODE", study_uid=STUDY, series_uid=SERIES)


# --- which ----------------------------------------------------------------------------------------


def test_what_is_there_is_found_by_one_list(pacs: LocalPacs) -> None:
    answer = held(a_peer(pacs.port), uids()[:3])
    assert answer.found == set(uids()[:3])
    assert answer.outcome.succeeded
    (query,) = pacs.queries
    assert query.QueryRetrieveLevel == "IMAGE"
    assert (query.StudyInstanceUID, query.SeriesInstanceUID) == (STUDY, SERIES)


def test_what_is_not_there_is_looked_for_twice_and_not_found(pacs: LocalPacs) -> None:
    pacs.forget(uids()[0])
    answer = held(a_peer(pacs.port), [*uids(), OTHER])
    assert answer.found == set(uids()[1:])
    assert answer.outcome.succeeded
    assert len(pacs.queries) == 2


def test_an_instance_of_another_series_is_not_found(pacs: LocalPacs) -> None:
    other = str(a_series(2, header=Header(series="other"))[0].SOPInstanceUID)
    assert held(a_peer(pacs.port), [other]).found == frozenset()


def test_many_are_asked_for_in_chunks(pacs: LocalPacs) -> None:
    many = [f"{OTHER}.{number}" for number in range(2 * CHUNK)]
    answer = held(a_peer(pacs.port), [*uids(), *many])
    assert answer.found == set(uids())
    assert len(pacs.queries) == 4  # three lists, and the whole Series
    assert sum(len(q.SOPInstanceUID) for q in pacs.queries[:3]) == 2 * CHUNK + 4


def one_image(uid: str) -> Dataset:
    match = Dataset()
    match.SOPInstanceUID = uid
    return match


@pytest.mark.parametrize("code", [0x0000, 0xA900, 0xC001])
def test_a_peer_that_knows_no_lists_is_asked_for_the_series(stock: Callable, code: int) -> None:
    def on_find(event: object) -> Iterator:
        if event.identifier.SOPInstanceUID:
            yield code, None
            return
        for uid in uids():
            yield 0xFF00, one_image(uid)

    answer = held(stock(on_find), uids())
    assert answer.found == set(uids())
    assert answer.outcome.succeeded


def test_a_peer_that_ignores_the_keys_gives_nothing_that_was_not_wanted(stock: Callable) -> None:
    def on_find(event: object) -> Iterator:
        for uid in (OTHER, uids()[0]):
            yield 0xFF00, one_image(uid)

    assert held(stock(on_find), uids()[:1]).found == {uids()[0]}


def test_a_peer_that_fails_leaves_the_rest_unknown(stock: Callable) -> None:
    def on_find(event: object) -> Iterator:
        yield 0xFF00, one_image(uids()[0])
        yield 0xA700, None

    answer = held(stock(on_find), uids())
    assert answer.found == {uids()[0]}
    assert not answer.outcome.succeeded


def test_a_peer_that_is_not_there_is_asked_once(free_port: Callable) -> None:
    answer = held(a_peer(free_port()), uids())
    assert (answer.found, answer.outcome.phase) == (frozenset(), Phase.CONNECT)


# --- how many -------------------------------------------------------------------------------------


def test_the_peer_says_how_many_it_has(pacs: LocalPacs) -> None:
    answer = counted(a_peer(pacs.port))
    assert (answer.count, answer.how) == (4, Learned.STATED)
    assert len(pacs.queries) == 1


def test_what_the_peer_says_is_not_checked(pacs: LocalPacs) -> None:
    pacs.stated_count = lambda _series, count: count + 5
    assert counted(a_peer(pacs.port)).count == 9


@pytest.mark.parametrize("stated", [None, 0, -1])
def test_where_it_does_not_say_its_instances_are_counted(
    pacs: LocalPacs, stated: int | None
) -> None:
    pacs.stated_count = lambda _series, _count: stated
    answer = counted(a_peer(pacs.port))
    assert (answer.count, answer.how) == (4, Learned.COUNTED)
    assert [q.QueryRetrieveLevel for q in pacs.queries] == ["SERIES", "IMAGE"]


def test_a_series_that_is_not_there_has_no_count(pacs: LocalPacs) -> None:
    for uid in uids():
        pacs.forget(uid)
    answer = counted(a_peer(pacs.port))
    assert (answer.count, answer.how) == (None, Learned.NOT)
    assert answer.outcome.succeeded


def test_the_count_of_another_series_is_not_taken(stock: Callable) -> None:
    def on_find(event: object) -> Iterator:
        match = Dataset()
        if event.identifier.QueryRetrieveLevel == "SERIES":
            match.SeriesInstanceUID, match.NumberOfSeriesRelatedInstances = OTHER, 99
        else:
            match = one_image(uids()[0])
        yield 0xFF00, match

    assert counted(stock(on_find)).count == 1


@pytest.mark.parametrize("code", [0xA700, 0xA900, 0xC000])
def test_a_peer_that_refuses_both_queries_has_not_told(stock: Callable, code: int) -> None:
    def on_find(event: object) -> Iterator:
        yield code, None

    answer = counted(stock(on_find))
    assert (answer.count, answer.how, answer.outcome.status) == (None, Learned.NOT, code)


def test_a_peer_without_query_has_not_told(free_port: Callable) -> None:
    answer = count_series(
        peer=a_peer(free_port()),
        calling_ae="DICOMNODE",
        study_uid=STUDY,
        series_uid=SERIES,
        timeouts=Timeouts(connect_s=2),
    )
    assert (answer.count, answer.outcome.phase) == (None, Phase.CONNECT)
