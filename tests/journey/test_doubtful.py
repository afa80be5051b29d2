"""A result that its tool doubts says so wherever it is read, and is held where the model asks."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner

from dicom_node.cli.hold import release
from dicom_node.cli.status import status
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series

SEEDS = itertools.count(1)
ALL = "pacs has it (7 objects)"  # a SEG and its pictures
DOUBT = "Only the right lung was found: the left one may be missed."


@pytest.fixture(scope="module")
def node(tmp_path_factory, build, shared_pacs):
    """Two models: one delivers what it doubts, and one, for heads, has it held."""
    folder = tmp_path_factory.mktemp("node") / "node"
    careful = build.write_model(folder / "models", model_id="careful")
    with (careful / "model.toml").open("a") as file:
        file.write('\n[policy]\ndoubtful = "hold"\n')
    plain = build.route.replace("'Modality == \"CT\"'", "'BodyPartExamined == \"CHEST\"'")
    heads = plain.replace('"lungs"', '"held"').replace('"lung-threshold"', '"careful"')
    heads = heads.replace("CHEST", "HEAD").replace('["seg"]', '["seg", "sc"]')
    peers = build.peer_table("pacs", "TESTPACS", shared_pacs.port)
    with build.a_node(folder, peers=peers, routes=plain + heads) as running:
        yield running


def objects_of(*, body_part, one_lung=True, slices=6):
    objects = a_series(
        slices, spacing_mm=(30.0, 8.0, 8.0), header=Header(seed=next(SEEDS), body_part=body_part)
    )
    for dataset in objects if one_lung else ():
        pixels = np.frombuffer(dataset.PixelData, np.int16).reshape(32, 32).copy()
        pixels[8:24, 17:28] = 40
        dataset.PixelData = pixels.tobytes()
    return objects


def send(node, objects):
    send_series(node.address, "DICOMNODE", objects, calling_ae="TESTPACS")
    return objects[0].SeriesInstanceUID


def sent(node, **what):
    return send(node, objects_of(**what))


def released(node, uid):
    done = CliRunner().invoke(release, [uid, "--config", str(node.config_path)])
    assert done.exit_code == 0, done.output


def row_of(node, uid):
    done = CliRunner().invoke(status, ["--json", "--config", str(node.config_path)])
    told = json.loads(done.stdout)
    return next(row for row in (*told["attention"], *told["series"]) if row["series_uid"] == uid)


def test_a_doubtful_result_is_delivered_and_says_so_wherever_it_is_read(node, shared_pacs):
    uid = sent(node, body_part="CHEST")
    node.wait(lambda: "pacs has it" in node.why(uid))
    assert f"made its result, which is doubtful ({DOUBT.rstrip('.')})" in node.why(uid)
    assert any(f"Doubtful: {DOUBT.rstrip('.')}" in line.text for line in node.story(uid).lines)
    assert f"Doubtful: {DOUBT}" in row_of(node, uid)["doubts"]
    (seg,) = shared_pacs.made_from(uid)
    assert f"Doubtful: {DOUBT}" in seg.ImageComments
    assert all(f"Doubtful: {DOUBT}" in s.SegmentDescription for s in seg.SegmentSequence)
    assert seg.SeriesDescription.startswith("Lung threshold, DOUBTFUL - ")


def test_a_result_without_doubt_is_as_it_was(node, shared_pacs):
    uid = sent(node, body_part="CHEST", one_lung=False)
    node.wait(lambda: "pacs has it" in node.why(uid))
    assert "doubtful" not in node.why(uid)
    assert row_of(node, uid)["doubts"] == []
    (seg,) = shared_pacs.made_from(uid)
    assert "DOUBTFUL" not in seg.SeriesDescription
    assert "Doubtful" not in seg.ImageComments


def test_a_doubtful_result_is_held_until_an_operator_releases_it_and_then_sent_once(
    node, shared_pacs
):
    uid = sent(node, body_part="HEAD")
    node.wait(lambda: "HELD" in node.why(uid))
    passed = sent(node, body_part="HEAD", one_lung=False)
    node.wait(lambda: ALL in node.why(passed))
    assert shared_pacs.made_from(uid) == [], "every stage had its turn meanwhile"
    assert len(node.running.catalog.views.results(uid)) == 7, "it was made"
    assert f"HELD: the result of careful is doubtful: {DOUBT}" in node.why(uid)
    assert f"dicom-node release {uid}" in node.why(uid)
    assert row_of(node, uid)["state"] == "HELD"

    released(node, uid)
    node.wait(lambda: ALL in node.why(uid))
    passed = sent(node, body_part="HEAD", one_lung=False)
    node.wait(lambda: ALL in node.why(passed))
    assert len(shared_pacs.made_from(uid)) == 7
    assert len(node.running.catalog.views.steps(uid)) == 1, "it was not made again"
    assert "which is doubtful" in node.why(uid)
    assert all("DOUBTFUL" in d.SeriesDescription for d in shared_pacs.made_from(uid))


def test_what_was_held_for_doubt_is_not_sent_when_more_images_came(node, shared_pacs):
    objects = objects_of(body_part="HEAD", slices=7)
    uid = send(node, objects[:6])
    node.wait(lambda: "HELD" in node.why(uid))
    send(node, objects[6:])
    node.wait(lambda: "then a result is made anew" in node.why(uid))
    views = node.running.catalog.views
    outdated = {result.sop_instance_uid for result in views.results(uid)}

    released(node, uid)
    node.wait(lambda: len(views.results(uid)) > len(outdated))
    passed = sent(node, body_part="HEAD", one_lung=False)
    node.wait(lambda: ALL in node.why(passed))
    assert shared_pacs.made_from(uid) == [], (
        "every stage had its turn, and the new one is held, too"
    )
    assert f"HELD: the result of careful is doubtful: {DOUBT}" in node.why(uid)
    told = [line for line in node.story(uid).lines if line.kind == "DeliveryWithdrawn"]
    assert len(told) == len(outdated)
    assert all("outdated before it was sent: more images came" in line.text for line in told)

    released(node, uid)
    node.wait(lambda: "pacs has it (8 objects)" in node.why(uid))
    arrived = {d.SOPInstanceUID for d in shared_pacs.made_from(uid)}
    assert len(arrived) == 8
    assert not arrived & outdated
