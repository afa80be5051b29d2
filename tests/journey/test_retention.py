"""A whole node that keeps nothing it need not: over real DIMSE."""

from __future__ import annotations

import pytest
from pynetdicom.sop_class import CTImageStorage, Verification

from dicom_node.dimse.entity import Entity
from dicom_node.testing.commitment import Commitment, send_commitment_request
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import a_series

CT = "1.2.840.10008.5.1.4.1.1.2"
FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
PASSING = """
[[route]]
name = "lungs"
when = 'Modality == "CT"'
tool = "lung-threshold"
results = ["seg"]
to = ["@sender"]
delete_after_delivery = true
"""


@pytest.fixture
def pacs(tmp_path):
    with LocalPacs(tmp_path / "pacs", commitment=Commitment()) as running:
        yield running


def peer(pacs):
    return f"""
[[peer]]
name = "pacs"
ae_title = "{pacs.ae_title}"
host = "127.0.0.1"
port = {pacs.port}
may = ["store", "commit"]
offers = ["store", "commit"]
"""


def files(node):
    return list((node.folder / "var" / "spool" / "objects").rglob("*.dcm"))


def test_what_all_peers_have_is_gone_and_can_come_again(start_node, pacs):
    pacs.commitment = Commitment(way="same")
    node = start_node(peers=peer(pacs), routes=PASSING, more="proof_after_s = 0.05")
    series = a_series(5)
    uid = series[0].SeriesInstanceUID
    send_series(node.address, objects=series[:4], **FROM_PACS)
    node.wait(lambda: node.running.catalog.views.series(uid).purged_at is not None)
    node.wait(lambda: not files(node))
    told = [line.text for line in node.story(uid).lines]
    assert any("5 files" in line and "delivered" in line for line in told), told
    send_series(node.address, objects=series[4:], **FROM_PACS)
    node.wait(lambda: "INCOMPLETE" in node.why(uid))
    assert "4 of its 5 files were removed: have the Series sent again" in node.why(uid)
    assert set(send_series(node.address, objects=series[:4], **FROM_PACS)) == {0}
    assert pacs.wait_for(2)
    node.wait(lambda: not files(node))


def test_what_was_promised_stays_where_room_is_short(start_node, pacs):
    node = start_node(peers=peer(pacs), routes="", more="[retain]\nfree_gib = 1000000")
    promised, other = a_series(2), a_series(3, missing=())
    series = promised[0].SeriesInstanceUID
    with_promise = [(CT, d.SOPInstanceUID) for d in promised]
    send_series(node.address, objects=promised, abort_after=2, **FROM_PACS)  # judged later
    status = send_commitment_request(
        node.address, "DICOMNODE", with_promise, "2.25.7", calling_ae="TESTPACS"
    )
    assert status == 0
    assert pacs.wait_until(lambda: pacs.reports_received)
    for dataset in other:
        dataset.SeriesInstanceUID = "1.2.3.4"
        dataset.SOPInstanceUID += ".1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    send_series(node.address, objects=other, **FROM_PACS)
    views = node.running.catalog.views
    node.wait(lambda: views.series("1.2.3.4").purged_at is not None)
    node.wait(lambda: len(files(node)) == 2)
    node.wait(lambda: views.series(series).state == "COMPLETE")
    assert views.series(series).purged_at is None


def test_a_full_node_rejects_who_wants_to_store_and_answers_who_looks_whether_it_lives(
    tmp_path, pacs, build
):
    path = build.write_node(tmp_path / "node", peers=peer(pacs), routes="")
    full = "min_free_gib = 1000000\nstop_free_gib = 1000000"
    path.write_text(path.read_text().replace("min_free_gib = 0.01", full))
    with build.started(path) as node:
        storing = associated(node, CTImageStorage)
        assert storing.is_rejected
        rejection = storing.acceptor.primitive
        assert (rejection.result, rejection.result_source, rejection.diagnostic) == (2, 3, 1)
        asking = associated(node, Verification)
        assert asking.send_c_echo().Status == 0
        asking.release()


def associated(node, sop_class):
    ae = Entity(ae_title="TESTPACS")
    ae.add_requested_context(sop_class)
    return ae.associate(*node.address, ae_title="DICOMNODE")
