"""A Series of which the node refused a part is not taken for whole."""

from __future__ import annotations

from dicom_node.domain.states import SeriesState
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series

PEERS = """
[[peer]]
name = "hasty"
ae_title = "HASTY"
host = "127.0.0.1"
port = 104
objects_per_minute = 5

[[peer]]
name = "patient"
ae_title = "PATIENT"
host = "127.0.0.1"
port = 105
"""
GIVES_UP = "release_s = 0.2\nquiet_s = 1\ngive_up_s = 1.5"


def state(node, uid: str) -> SeriesState:
    return node.running.catalog.views.series(uid).state


def test_a_series_whose_rest_was_refused_is_incomplete_and_whole_once_that_has_come(start_node):
    node = start_node(peers=PEERS, complete=GIVES_UP)
    objects = a_series(8)
    uid = objects[0].SeriesInstanceUID
    statuses = send_series(node.address, "DICOMNODE", objects, calling_ae="HASTY")
    assert statuses == [0] * 5 + [0xA700] * 3
    node.wait(lambda: state(node, uid) is not SeriesState.RECEIVING)
    assert state(node, uid) is SeriesState.INCOMPLETE
    assert "3 instances more came with it, to be refused" in node.why(uid)

    assert send_series(node.address, "DICOMNODE", objects[5:], calling_ae="PATIENT") == [0] * 3
    node.wait(lambda: state(node, uid) is SeriesState.COMPLETE)


def test_another_series_that_was_taken_whole_before_is_not_kept_waiting(start_node):
    node = start_node(peers=PEERS, complete=GIVES_UP)
    first, second = a_series(3), a_series(6, header=Header(series="second"))
    sent = [*first, *second]
    statuses = send_series(node.address, "DICOMNODE", sent, calling_ae="HASTY")
    assert statuses == [0] * 5 + [0xA700] * 4
    node.wait(lambda: state(node, second[0].SeriesInstanceUID) is SeriesState.INCOMPLETE)
    assert state(node, first[0].SeriesInstanceUID) is SeriesState.COMPLETE
