"""When a series is complete, shown over real DIMSE: what the source counts decides, if it counts.

The waits of these nodes are longer than the tests: what ends, ended for want of no evidence.
"""

from __future__ import annotations

import pytest

from dicom_node.domain import events as e
from dicom_node.domain.states import SeriesState
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import a_series

FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
LONG = "release_s = 300\nquiet_s = 300\ngive_up_s = 600"


def asked_peer(pacs, more=""):
    return f"""
[[peer]]
name = "pacs"
ae_title = "TESTPACS"
host = "127.0.0.1"
port = {pacs.port}
offers = ["store", "query"]
{more}
"""


def into(pacs, series):
    """The series lies in the PACS, as one that a modality has sent."""
    send_series(("127.0.0.1", pacs.port), "TESTPACS", series, calling_ae="CT1")


def state_of(node, series):
    known = node.running.catalog.views.series(series[0].SeriesInstanceUID)
    return known.state if known else None


def verdicts(node, series):
    events = node.running.catalog.views.events_of(series[0].SeriesInstanceUID)
    return [x for _, x in events if isinstance(x, e.SeriesJudged)]


@pytest.fixture
def series():
    return a_series(8)


def test_as_many_as_the_source_has_starts_at_once(start_node, pacs, series):
    node = start_node(peers=asked_peer(pacs), complete=LONG)
    into(pacs, series)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: state_of(node, series) is SeriesState.COMPLETE)
    assert "8 of 8 instances" in verdicts(node, series)[-1].reasons
    assert any("pacs has 8" in reason for reason in verdicts(node, series)[-1].reasons)
    assert pacs.wait_for(len(series) + 1, 60), "and the result comes"


def test_a_source_that_does_not_count_is_asked_for_its_images(start_node, pacs, series):
    pacs.stated_count = lambda _uid, _true: None
    node = start_node(peers=asked_peer(pacs), complete=LONG)
    into(pacs, series)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: state_of(node, series) is SeriesState.COMPLETE)
    assert "8 of 8 instances" in verdicts(node, series)[-1].reasons


def test_fewer_than_the_source_has_waits_and_the_rest_completes_it(start_node, pacs, series):
    node = start_node(peers=asked_peer(pacs), complete=LONG)
    into(pacs, series)
    send_series(node.address, objects=series[:6], **FROM_PACS)
    uid = series[0].SeriesInstanceUID
    node.wait(lambda: "pacs has 8" in node.why(uid))
    assert state_of(node, series) is SeriesState.RECEIVING
    assert "6 of 8 instances" in node.why(uid)
    send_series(node.address, objects=series[6:], **FROM_PACS)
    node.wait(lambda: state_of(node, series) is SeriesState.COMPLETE)
    assert node.running.catalog.views.series(uid).revision == 1, "nothing began too early"


def test_fewer_than_the_source_has_to_the_limit_is_incomplete_until_released(
    start_node, pacs, series
):
    limits = "release_s = 0.3\nquiet_s = 0.5\ngive_up_s = 1"
    node = start_node(peers=asked_peer(pacs), complete=limits)
    into(pacs, series)
    send_series(node.address, objects=series[:6], **FROM_PACS)
    node.wait(lambda: state_of(node, series) is SeriesState.INCOMPLETE)
    uid = series[0].SeriesInstanceUID
    assert "pacs has 8" in node.why(uid)
    assert f"dicom-node release {uid}" in node.why(uid)


def test_a_hole_that_the_source_has_too_is_not_waited_for(start_node, pacs):
    series = a_series(8)
    del series[3]
    node = start_node(peers=asked_peer(pacs), complete=LONG)
    into(pacs, series)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: state_of(node, series) is SeriesState.COMPLETE)
    assert any("at the source too" in reason for reason in verdicts(node, series)[-1].reasons)


def test_a_source_that_is_not_there_leaves_it_to_the_hints(start_node, pacs, series, free_port):
    gone = asked_peer(pacs).replace(f"port = {pacs.port}", f"port = {free_port()}")
    node = start_node(peers=gone, complete="release_s = 0.3\nquiet_s = 300\ngive_up_s = 600")
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: state_of(node, series) is SeriesState.COMPLETE)
    assert any("could not be asked" in reason for reason in verdicts(node, series)[-1].reasons)


def test_a_peer_can_have_a_patience_of_its_own(start_node, pacs, series):
    hasty = asked_peer(pacs, "release_s = 0.2").replace(', "query"', "")
    node = start_node(peers=hasty, complete=LONG)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: state_of(node, series) is SeriesState.COMPLETE)


def test_one_association_an_image_waits_for_the_source_and_not_for_the_quiet_time(
    start_node, pacs, series
):
    node = start_node(
        peers=asked_peer(pacs), complete="release_s = 1\nquiet_s = 300\ngive_up_s = 600"
    )
    into(pacs, series)
    for dataset in series:
        send_series(node.address, objects=[dataset], **FROM_PACS)
    node.wait(lambda: state_of(node, series) is SeriesState.COMPLETE)
    assert "8 of 8 instances" in verdicts(node, series)[-1].reasons


def test_an_aborted_association_is_no_proof_and_no_obstacle(start_node, pacs, series):
    node = start_node(peers=asked_peer(pacs), complete=LONG)
    into(pacs, series)
    send_series(node.address, objects=series, **FROM_PACS, abort_after=8)
    node.wait(lambda: state_of(node, series) is SeriesState.COMPLETE)
    assert "8 of 8 instances" in verdicts(node, series)[-1].reasons


def test_positions_beyond_all_bounds_are_judged_like_any_others(start_node, pacs):
    node = start_node(peers=asked_peer(pacs), complete=LONG)
    odd = a_series(4)
    for dataset in odd:
        dataset.ImagePositionPatient = [1e300, -1.7e300, float(dataset.InstanceNumber)]
    into(pacs, odd)
    send_series(node.address, objects=odd, **FROM_PACS)
    node.wait(lambda: state_of(node, odd) is SeriesState.COMPLETE)
