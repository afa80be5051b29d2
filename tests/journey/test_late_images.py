"""Over real DIMSE: images that come late, and a PACS that takes no Segmentation."""

from __future__ import annotations

import pydicom
import pytest

from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import a_series

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SC = "1.2.840.10008.5.1.4.1.1.7"
KOS = "1.2.840.10008.5.1.4.1.1.88.59"
FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
BOTH = """
[[route]]
name = "lungs"
when = 'Modality == "CT"'
tool = "lung-threshold"
to = ["@sender", "archive"]
"""


def peer(pacs, name="pacs", more=""):
    return f"""
[[peer]]
name = "{name}"
ae_title = "{pacs.ae_title}"
host = "127.0.0.1"
port = {pacs.port}
{more}
"""


def of_class(pacs, sop_class):
    return [d for d in pacs.datasets() if d.SOPClassUID == sop_class]


@pytest.fixture
def archive(tmp_path):
    with LocalPacs(tmp_path / "archive", ae_title="ARCHIVE") as running:
        yield running


def test_a_late_image_makes_a_result_that_replaces_and_who_honours_notes_is_told(
    start_node, pacs, archive
):
    notes = 'offers = ["store", "reject"]'
    node = start_node(peers=peer(pacs, more=notes) + peer(archive, "archive"), routes=BOTH)
    series = a_series(7)
    uid = series[0].SeriesInstanceUID
    send_series(node.address, objects=series[:6], **FROM_PACS)
    assert pacs.wait_for(1)
    assert archive.wait_for(1)
    node.wait(lambda: node.why(uid).count("has it") == 2)
    (old,) = of_class(pacs, SEG)
    send_series(node.address, objects=series[6:], **FROM_PACS)
    assert pacs.wait_for(3), "the new result and the note"
    assert archive.wait_for(2)
    new = next(d for d in of_class(pacs, SEG) if d.SOPInstanceUID != old.SOPInstanceUID)
    assert len(new.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 7
    assert new.RelatedSeriesSequence[0].SeriesInstanceUID == old.SeriesInstanceUID
    (note,) = of_class(pacs, KOS)
    evidence = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    rejected = [r.ReferencedSOPInstanceUID for r in evidence.ReferencedSOPSequence]
    assert rejected == [old.SOPInstanceUID]
    order = [a.sop_instance_uid for a in pacs.attempts]
    assert order == [old.SOPInstanceUID, new.SOPInstanceUID, note.SOPInstanceUID]
    node.wait(lambda: "pacs was told to hide the earlier one" in node.why(uid))
    assert "archive has the earlier one beside it" in node.why(uid)
    assert of_class(archive, KOS) == []
    assert len(of_class(archive, SEG)) == 2


def test_a_result_that_could_not_be_sent_yet_is_withdrawn(start_node, pacs):
    def all_but_the_first(attempt):
        return 0xA700 if attempt.sop_instance_uid == pacs.attempts[0].sop_instance_uid else 0

    pacs.on_store = all_but_the_first  # so it does not matter when it is tried once more
    node = start_node(peers=peer(pacs))
    series = a_series(7)
    uid = series[0].SeriesInstanceUID
    send_series(node.address, objects=series[:6], **FROM_PACS)
    node.wait(lambda: "DEFERRED" in node.why(uid))
    send_series(node.address, objects=series[6:], **FROM_PACS)
    views = node.running.catalog.views
    node.wait(lambda: len(views.results(uid)) == 2)
    first, second = sorted(views.results(uid), key=lambda r: r.step_id)
    node.wait(lambda: "pacs has it" in node.why(uid))
    node.wait(lambda: views.deliveries(first.sop_instance_uid)[0].state == "WITHDRAWN")
    assert [d.SOPInstanceUID for d in of_class(pacs, SEG)] == [second.sop_instance_uid]
    assert any("superseded" in line.text for line in node.story(uid).lines)


@pytest.mark.parametrize("how", ["no context", "a status"])
def test_a_pacs_that_takes_no_segmentation_gets_pictures_in_its_place(start_node, tmp_path, how):
    old = LocalPacs(tmp_path / "old", ae_title="TESTPACS")
    if how == "no context":
        old.unsupported = frozenset({SEG})
    else:
        old.on_store = lambda attempt: 0x0122 if attempt.sop_class_uid == SEG else 0
    with old as pacs:
        node = start_node(peers=peer(pacs, more='fallback = "sc"'))
        series = a_series(6)
        uid = series[0].SeriesInstanceUID
        send_series(node.address, objects=series, **FROM_PACS)
        assert pacs.wait_for(6, 60)
        node.wait(lambda: "pacs has it (6 objects)" in node.why(uid))
        images = of_class(pacs, SC)
        assert len({i.SeriesInstanceUID for i in images}) == 1
        assert {i.StudyInstanceUID for i in images} == {series[0].StudyInstanceUID}
        sources = {i.SourceImageSequence[0].ReferencedSOPInstanceUID for i in images}
        assert sources == {d.SOPInstanceUID for d in series}
        assert of_class(pacs, SEG) == []
        assert "Secondary Captures go instead" in node.why(uid)


def test_a_route_may_ask_for_both_kinds(start_node, pacs):
    routes = BOTH.replace('to = ["@sender", "archive"]', 'results = ["seg", "sc"]')
    node = start_node(peers=peer(pacs), routes=routes)
    send_series(node.address, objects=a_series(6), **FROM_PACS)
    assert pacs.wait_for(7, 60)
    assert len(of_class(pacs, SEG)) == 1
    assert len(of_class(pacs, SC)) == 6


def test_what_comes_back_of_it_is_kept_and_not_processed(start_node, pacs):
    routes = BOTH.replace('to = ["@sender", "archive"]', 'results = ["sc"]').replace(
        "'Modality == \"CT\"'", "'Rows > 0'"
    )
    node = start_node(peers=peer(pacs), routes=routes)
    send_series(node.address, objects=a_series(6), **FROM_PACS)
    assert pacs.wait_for(6, 60)
    images = [pydicom.dcmread(path) for path in pacs.instances()]
    assert set(send_series(node.address, objects=images, **FROM_PACS)) == {0}
    views = node.running.catalog.views

    def judged():
        back = views.series(images[0].SeriesInstanceUID)
        return back is not None and back.state == "COMPLETE"

    node.wait(judged)
    assert views.steps(images[0].SeriesInstanceUID) == []
