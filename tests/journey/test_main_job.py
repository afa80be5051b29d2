"""The main job over real DIMSE: a series comes in, its segmentation goes back, exactly once."""

from __future__ import annotations

import threading

import pydicom
import pytest
from click.testing import CliRunner

from dicom_node.cli.retry import retry
from dicom_node.testing.pacs import refuse_first, send_series
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import Header, a_localizer, a_series, ct_series

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}


def peer(pacs, may='["store"]'):
    return f"""
[[peer]]
name = "pacs"
ae_title = "{pacs.ae_title}"
host = "127.0.0.1"
port = {pacs.port}
may = {may}
"""


def segs(pacs):
    return [d for d in pacs.datasets() if d.SOPClassUID == SEG]


def test_a_series_comes_back_as_a_segmentation_in_its_own_study(start_node, pacs):
    node = start_node(peers=peer(pacs))
    series = a_series(12)
    assert set(send_series(node.address, objects=series, **FROM_PACS)) == {0}
    assert pacs.wait_for(1, 60)
    (seg,) = segs(pacs)
    assert seg.StudyInstanceUID == series[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == series[0].FrameOfReferenceUID
    assert seg.PatientID == series[0].PatientID
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Right lung", "Left lung"]
    referenced = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {r.ReferencedSOPInstanceUID for r in referenced} == {d.SOPInstanceUID for d in series}
    node.wait(lambda: "pacs has it" in node.why(series[0].SeriesInstanceUID))
    assert pacs.stored_counts[seg.SOPInstanceUID] == 1


def test_what_was_received_lies_in_the_spool_byte_for_byte(start_node, pacs):
    node = start_node(peers=peer(pacs), routes="")
    series = a_series(4)
    send_series(node.address, objects=series, **FROM_PACS)
    for sent in series:
        known = node.running.catalog.views.instance(sent.SOPInstanceUID)
        kept = pydicom.dcmread(node.folder / "var" / "spool" / known.path)
        assert kept == sent
        assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID


def test_interleaved_series_over_several_associations_each_get_their_own_result(start_node, pacs):
    # the one association may end before the other begins
    node = start_node(peers=peer(pacs), complete="release_s = 2\nquiet_s = 2\ngive_up_s = 4")
    one, two, three = (a_series(8, header=Header(seed=n, series=f"s{n}")) for n in range(3))
    mixed = [d for pair in zip(one, two, strict=True) for d in pair]
    halves = [mixed + three[:4], three[4:]]
    threads = [
        threading.Thread(target=lambda h=h: send_series(node.address, objects=h, **FROM_PACS))
        for h in halves
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pacs.wait_for(3, 90)
    sources = {s.ReferencedSeriesSequence[0].SeriesInstanceUID for s in segs(pacs)}
    assert sources == {s[0].SeriesInstanceUID for s in (one, two, three)}
    for seg in segs(pacs):
        referenced = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert len(referenced) == 8


def test_one_association_an_image_makes_one_result(start_node, pacs):
    node = start_node(peers=peer(pacs))
    series = a_series(6)
    for dataset in series:
        send_series(node.address, objects=[dataset], **FROM_PACS)
    assert pacs.wait_for(1, 60)
    node.wait(lambda: "pacs has it" in node.why(series[0].SeriesInstanceUID))
    (seg,) = segs(pacs)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6


def test_the_same_series_again_makes_no_second_result(start_node, pacs):
    node = start_node(peers=peer(pacs))
    series = a_series(6)
    send_series(node.address, objects=series, **FROM_PACS)
    assert pacs.wait_for(1, 60)
    assert set(send_series(node.address, objects=series, **FROM_PACS)) == {0}
    send_series(node.address, objects=a_series(6, header=Header(seed=9)), **FROM_PACS)
    assert pacs.wait_for(2, 60), "another series still does"
    assert set(pacs.stored_counts.values()) == {1}
    assert len(node.running.catalog.views.results(series[0].SeriesInstanceUID)) == 1


def test_an_instance_with_other_content_under_a_known_uid_is_kept_apart(start_node, pacs):
    node = start_node(peers=peer(pacs), routes="")
    series = a_series(3)
    send_series(node.address, objects=series, **FROM_PACS)
    series[0].PatientComments = "other content"
    assert send_series(node.address, objects=series[:1], **FROM_PACS) == [0x0111]
    known = node.running.catalog.views.instance(series[0].SOPInstanceUID)
    assert (node.folder / "var" / "spool" / known.path).is_file(), "the first stays"
    (other,) = node.running.catalog.views.conflicts(series[0].SeriesInstanceUID)
    kept = pydicom.dcmread(node.folder / "var" / "spool" / other.path)
    assert kept.PatientComments == "other content"
    told = [line.text for line in node.story(series[0].SeriesInstanceUID).lines]
    assert any("with other content: kept apart" in text for text in told)


def test_the_nodes_own_result_coming_back_is_kept_and_not_processed(start_node, pacs):
    everything = """
[[route]]
name = "everything"
when = 'Rows > 0'
tool = "lung-threshold"
results = ["seg"]
to = ["@sender"]
"""
    node = start_node(peers=peer(pacs), routes=everything)
    send_series(node.address, objects=a_series(6), **FROM_PACS)
    assert pacs.wait_for(1, 60)
    (seg,) = segs(pacs)
    assert send_series(node.address, objects=[seg], **FROM_PACS) == [0]
    views = node.running.catalog.views

    def judged():
        back = views.series(seg.SeriesInstanceUID)
        return back is not None and back.state == "COMPLETE"

    node.wait(judged)
    assert views.steps(seg.SeriesInstanceUID) == []
    assert pacs.stored_counts[seg.SOPInstanceUID] == 1


def test_a_localizer_in_the_series_is_left_out(start_node, pacs):
    node = start_node(peers=peer(pacs))
    volume, _ = chest_phantom(slices=10, size=64, spacing_mm=(25.0, 6.0, 6.0))
    objects = [a_localizer(volume), *ct_series(volume)]
    send_series(node.address, objects=objects, **FROM_PACS)
    assert pacs.wait_for(1, 60)
    (seg,) = segs(pacs)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 10
    story = node.story(objects[1].SeriesInstanceUID)
    assert any("localizer" in line.text for line in story.lines)


def test_a_pacs_that_is_busy_is_asked_again_until_it_takes_the_result(start_node, pacs):
    pacs.on_store = refuse_first(2, 0xA700)
    node = start_node(peers=peer(pacs))
    series = a_series(6)
    send_series(node.address, objects=series, **FROM_PACS)
    assert pacs.wait_for(1, 60)
    node.wait(lambda: "pacs has it" in node.why(series[0].SeriesInstanceUID))
    assert [a.times for a in pacs.attempts] == [1, 2, 3]


def test_a_permanent_refusal_waits_for_a_person_and_retry_sends_again(start_node, pacs):
    pacs.on_store = lambda attempt: 0xA900 if attempt.number == 1 else 0
    node = start_node(peers=peer(pacs))
    series = a_series(6)
    uid = series[0].SeriesInstanceUID
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: "PARKED" in node.why(uid))
    assert "0xA900" in node.why(uid) or "A900" in "".join(x.text for x in node.story(uid).lines)
    done = CliRunner().invoke(retry, [uid, "--config", str(node.config_path)])
    assert "1 delivery: due again" in done.output
    assert pacs.wait_for(1, 60)
    node.wait(lambda: "pacs has it" in node.why(uid))


def test_a_pacs_that_was_down_gets_its_result_when_it_is_back(start_node, pacs, tmp_path):
    node = start_node(peers=peer(pacs))
    pacs.admits = lambda _calling: False
    series = a_series(6)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(
        lambda: (
            "DEFERRED" in node.why(series[0].SeriesInstanceUID)
            or "PARKED" in node.why(series[0].SeriesInstanceUID)
        )
    )
    state = node.why(series[0].SeriesInstanceUID)
    pacs.admits = lambda _calling: True
    if "DEFERRED" in state:
        assert pacs.wait_for(1, 60)


def test_a_restart_between_receiving_and_judging_loses_nothing(start_node, pacs):
    node = start_node(peers=peer(pacs), more="")
    series = a_series(6)
    send_series(node.address, objects=series, abort_after=6, **FROM_PACS)  # quiet time is needed
    node = start_node(peers=peer(pacs))
    assert pacs.wait_for(1, 60)
    assert len(segs(pacs)[0].ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
    assert node.running.catalog.views.series(series[0].SeriesInstanceUID).instances == 6


@pytest.mark.parametrize("missing", [(5,), (4, 5)])
def test_a_series_with_a_hole_is_given_up_with_the_reason(start_node, pacs, missing):
    node = start_node(peers=peer(pacs))
    series = a_series(12, missing=missing)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: "INCOMPLETE" in node.why(series[0].SeriesInstanceUID))
    assert "missing after position" in node.why(series[0].SeriesInstanceUID)
    assert not segs(pacs)


def test_slices_that_come_late_mend_a_hole(start_node, pacs):
    node = start_node(peers=peer(pacs))
    whole, holed = a_series(12), a_series(12, missing=(5,))
    uid = whole[0].SeriesInstanceUID
    send_series(node.address, objects=holed, **FROM_PACS)
    node.wait(lambda: "INCOMPLETE" in node.why(uid))
    send_series(node.address, objects=[whole[5]], **FROM_PACS)
    assert pacs.wait_for(1, 60)
    assert len(segs(pacs)[0].ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 12
