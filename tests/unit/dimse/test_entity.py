"""Whatever the machine is busy with: the answer of a peer reaches the one who waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

from dicom_node.dimse.outcome import Phase
from dicom_node.dimse.scu import Timeouts, echo, find, store
from dicom_node.domain.records import Peer
from dicom_node.testing.pacs import LocalPacs
from dicom_node.testing.proxy import FaultProxy
from dicom_node.testing.series import a_series, items_of, write_files

LATE_S = 0.05  # a peer on the same machine answers within it
PATIENCE = Timeouts(connect_s=5, associate_s=5, answer_s=2)


@pytest.fixture
def starved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends looks for the response late, and the association's own thread wakes late."""
    get_msg = DIMSEServiceProvider.get_msg

    def late(provider: Any, block: bool = False) -> Any:
        if block:
            time.sleep(6 * LATE_S)
        return get_msg(provider, block)

    def wake(association: Any, paused: bool) -> None:
        if not paused and association.is_requestor:
            time.sleep(LATE_S)
        vars(association)["_is_paused"] = paused

    paused = property(lambda association: vars(association)["_is_paused"], wake)
    monkeypatch.setattr(DIMSEServiceProvider, "get_msg", late)
    monkeypatch.setattr(Association, "_is_paused", paused, raising=False)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with LocalPacs(tmp_path / "pacs") as pacs:
        yield Peer(name="pacs", ae_title=pacs.ae_title, host="127.0.0.1", port=pacs.port)


def test_a_response_is_not_lost_where_threads_wait_for_their_turn(
    peer: Peer, starved: None, tmp_path: Path
) -> None:
    images = a_series(4)
    items = items_of(write_files(tmp_path / "ct", images))
    terms: dict[str, Any] = {"peer": peer, "calling_ae": "US", "timeouts": PATIENCE}
    outcomes = store(items=items, **terms)
    assert [outcome.detail for outcome in outcomes] == ["status 0x0000 (success)"] * 4
    assert echo(**terms).succeeded
    study = {"StudyInstanceUID": str(images[0].StudyInstanceUID)}
    assert len(find(level="STUDY", keys=study, **terms).matches) == 1


def test_nobody_waits_for_an_association_that_ended_before_the_request_went_out(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Association._get_valid_context
    with FaultProxy(("127.0.0.1", peer.port)) as between:

        def cut_then_chosen(association: Any, *args: Any, **more: Any) -> Any:
            between.cut_all()
            association.join(10)
            return chosen(association, *args, **more)

        monkeypatch.setattr(Association, "_get_valid_context", cut_then_chosen)
        outcome = echo(peer=replace(peer, port=between.port), calling_ae="US", timeouts=PATIENCE)
    assert (outcome.phase, outcome.detail) == (Phase.ABORT, "the peer closed the connection")
