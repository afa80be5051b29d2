"""`why`: the story of whatever an operator has a number of, and why there is no result."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
from click.testing import CliRunner

from dicom_node.cli.hold import release
from dicom_node.cli.why import why
from dicom_node.testing.pacs import send_series
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import Header, a_localizer, a_series, ct_series

FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
SEEDS = itertools.count(1)
SCREEN = 40  # lines


@pytest.fixture(scope="module")
def node(tmp_path_factory, build, shared_pacs):
    peers = build.peer_table("pacs", "TESTPACS", shared_pacs.port)
    heads = build.route.replace('"lungs"', '"heads"').replace(
        "'Modality == \"CT\"'", '\'BodyPartExamined == "HEAD" and PatientID == "X"\''
    )
    with build.a_node(
        tmp_path_factory.mktemp("node"), peers=peers, routes=build.route + heads
    ) as running:
        yield running


def series(slices=6, **more):
    return a_series(slices, header=Header(seed=next(SEEDS), **more))


def sent(node, objects, **more):
    send_series(node.address, objects=objects, **FROM_PACS, **more)
    return objects[0].SeriesInstanceUID


def arrives(node, uid):
    node.wait(lambda: "pacs has it" in node.why(uid))


def told(node, what, *options):
    done = CliRunner().invoke(
        why, [str(what), *options, "--config", str(node.config_path)], standalone_mode=False
    )
    assert done.exception is None, done.exception
    assert done.return_value == 0, done.output
    return done.stdout


def words(node, what, *options):
    """What is told, whatever way it is wrapped."""
    return " ".join(told(node, what, *options).split())


def plain(node, what):
    return json.loads(told(node, what, "--json"))


def test_a_normal_story_fits_on_a_screen_and_every_number_leads_to_it(node, shared_pacs):
    objects = series(extra={"AccessionNumber": "ACC-NORMAL", "PatientID": "P-NORMAL"})
    uid = sent(node, objects)
    arrives(node, uid)
    text = told(node, uid)

    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= SCREEN
    order = ["opened association", "6 instances stored", "is COMPLETE", "was scheduled by route",
             "took", "was made", "pacs: SENT"]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places), text
    seg = next(
        d for d in shared_pacs.datasets() if d.StudyInstanceUID == objects[0].StudyInstanceUID
    )
    for number in (
        "ACC-NORMAL", "P-NORMAL", objects[0].StudyInstanceUID, objects[3].SOPInstanceUID,
        seg.SOPInstanceUID, seg.SeriesInstanceUID,
    ):  # fmt: skip
        assert f"series {uid}" in told(node, number), number


def test_an_instance_and_a_result_are_told_what_they_are(node, shared_pacs):
    volume, _ = chest_phantom(slices=6, size=64, spacing_mm=(22.0, 6.0, 6.0))
    header = Header(seed=next(SEEDS))
    localizer = a_localizer(volume, header=header)
    planes = ct_series(volume, header=header)
    uid = sent(node, [*planes, localizer])
    assert localizer.SeriesInstanceUID == uid
    arrives(node, uid)

    assert "part of the input of lung-threshold" in words(node, planes[0].SOPInstanceUID)
    assert "is left out: " in words(node, localizer.SOPInstanceUID)
    (result,) = plain(node, uid)[0]["results"]
    about = words(node, result["sop_instance_uid"])
    assert f"{result['sop_instance_uid']} is what lung-threshold 1" in about
    assert "made of this Series (seg)" in about
    assert "pacs has it" in about


def test_a_copy_that_the_gate_left_out_is_no_part_of_the_input(node):
    objects = series(8)
    copied = copy.deepcopy(objects[4])
    copied.SOPInstanceUID = f"{objects[4].SeriesInstanceUID[:50]}.77"
    copied.InstanceNumber = 99
    uid = sent(node, [*objects, copied])
    arrives(node, uid)
    assert "was left out by lung-threshold" in words(node, copied.SOPInstanceUID)
    assert "part of the input of lung-threshold" in words(node, objects[4].SOPInstanceUID)


def test_a_late_instance_makes_a_second_result_and_both_say_so(node):
    objects = series(8)
    uid = sent(node, objects[:-1])
    arrives(node, uid)
    first = plain(node, uid)[0]["results"][0]["sop_instance_uid"]
    sent(node, objects[-1:])
    node.wait(lambda: len(plain(node, uid)[0]["results"]) == 2)
    arrives(node, uid)

    second = plain(node, uid)[0]["results"][1]["sop_instance_uid"]
    assert "revision 2" in words(node, uid)
    assert f"it was replaced by {second}" in words(node, first)
    assert f"to replace {first}" in words(node, second)


def test_each_clause_that_failed_stands_there_with_the_value_seen_and_no_patient_data(node):
    uid = sent(node, series(extra={"PatientID": "SECRET-ID"}))
    arrives(node, uid)
    text = words(node, uid)
    assert "BodyPartExamined is 'CHEST', not 'HEAD'" in text
    assert "PatientID is a value that is not shown" in text


def test_what_came_twice_and_what_came_otherwise_are_told_apart(node, shared_pacs):
    objects = series()
    uid = sent(node, objects)
    arrives(node, uid)
    sent(node, objects[:2])
    other = copy.deepcopy(objects[3])
    other.PatientComments = "other content"
    sent(node, [other])
    node.wait(lambda: "with other content" in words(node, uid))
    text = words(node, uid)
    assert "6 instances stored over association" in text
    assert "2 instances came again over association" in text
    assert f"instance {objects[3].SOPInstanceUID} came over association" in text
    (kept,) = plain(node, uid)[0]["kept_apart"]
    assert kept["sop_instance_uid"] == objects[3].SOPInstanceUID


def test_every_accession_number_and_patient_id_of_a_series_leads_to_it(node):
    objects = series()
    for dataset in objects[3:]:
        dataset.PatientID, dataset.AccessionNumber = "P-SECOND", "ACC-SECOND"
    uid = sent(node, objects)
    node.wait(lambda: "no result: the Series holds images of 2 patients" in node.why(uid))
    for number in ("P-SECOND", "ACC-SECOND"):
        text = words(node, number)
        assert f"series {uid}" in text
        assert f"3 of its 6 instances have {number}" in text


def test_a_series_of_which_all_was_kept_apart_is_told_and_where_the_others_are(node):
    objects = series()
    uid = sent(node, objects)
    arrives(node, uid)
    strange = [copy.deepcopy(dataset) for dataset in objects]
    for dataset in strange:  # a PACS that split the series and kept the SOP Instance UIDs
        dataset.SeriesInstanceUID, dataset.AccessionNumber = "1.2.88", "ACC-SPLIT"
    assert set(send_series(node.address, objects=strange, **FROM_PACS)) == {0x0111}

    for number in ("1.2.88", "ACC-SPLIT"):
        text = words(node, number)
        assert "nothing of series 1.2.88 is processed: 6 objects were answered 0111" in text
        assert f"others with their UIDs are in {uid}" in text
        assert "TESTPACS at 127.0.0.1 opened association" in text
    assert len(plain(node, "1.2.88")[0]["kept_apart"]) == 6
    assert "6 times from" in words(node, uid), "and its own story has them"
    assert "in series 1.2.88: kept apart as" in words(node, uid)

    strange[0].SOPInstanceUID = "1.2.88.1"
    sent(node, strange[:1])
    node.wait(lambda: "6 objects were answered 0111" in node.why("1.2.88"))


def test_many_refused_for_one_reason_are_told_once_and_one_by_one_if_asked(node):
    objects = series()
    for dataset in objects[1:]:
        dataset.PixelData = dataset.PixelData[:100]
    uid = sent(node, objects)
    node.wait(lambda: "5 instances were refused" in node.why(uid))
    short, full = words(node, uid), words(node, uid, "--all")
    assert "5 instances over association" in short
    assert "and 3 more" in short
    assert "Pixel Data has 100 bytes" in short
    refused = [d.SOPInstanceUID for d in objects[1:]]
    assert sum(f"instance {r} from TESTPACS was refused" in short for r in refused) == 0
    assert sum(f"instance {r} from TESTPACS was refused" in full for r in refused) == 5


def test_attempts_over_and_over_are_one_line_with_their_number_and_the_last(node, shared_pacs):
    objects = series()
    uid = objects[0].SeriesInstanceUID
    shared_pacs.on_store = lambda attempt: 0xA700 if attempt.times < 4 else 0
    sent(node, objects)
    arrives(node, uid)
    shared_pacs.on_store = lambda _attempt: 0
    text = words(node, uid)
    assert "3 times from " in text
    assert ", last: pacs: DEFERRED with 0xA700" in text
    assert text.count("DEFERRED") == 1
    assert words(node, uid, "--all").count("pacs: DEFERRED") == 3


def test_an_association_for_each_image_fills_no_screen(node):
    objects = series(12)
    for dataset in objects:
        sent(node, [dataset])
    uid = objects[0].SeriesInstanceUID
    arrives(node, uid)
    text = told(node, uid)
    assert "12 times from" in text
    assert len(text.splitlines()) <= SCREEN


def test_a_study_of_many_series_is_told_by_their_verdicts(node):
    study = [series(2, series=f"s{n}", extra={"StudyInstanceUID": "1.2.77"}) for n in range(4)]
    uids = [sent(node, objects) for objects in study]
    for uid in uids:
        node.wait(lambda uid=uid: node.running.catalog.views.series(uid).state == "COMPLETE")
    text = told(node, "1.2.77")
    assert all(uid in text for uid in uids)
    assert "opened association" not in text
    assert "4 series; dicom-node why SERIES_UID" in text
    assert "opened association" in told(node, "1.2.77", "--all")


def test_json_leaves_nothing_out(node):
    uid = sent(node, series())
    arrives(node, uid)
    (story,) = plain(node, uid)
    kinds = [line["kind"] for line in story["lines"]]
    assert kinds.count("InstanceArrived") == 6
    for kind in ("StepClaimed", "DeliveryQueued", "DeliveryClaimed", "DeliveryEnded"):
        assert kind in kinds
    assert story["steps"][0]["route"] == "lungs"
    assert story["results"][0]["deliveries"][0]["destination"] == "pacs"
    assert [line["at"] for line in story["lines"]] == sorted(line["at"] for line in story["lines"])


def test_a_restart_in_the_middle_is_part_of_the_story(tmp_path, build, shared_pacs):
    peers = build.peer_table("pacs", "TESTPACS", shared_pacs.port)
    path = build.write_node(tmp_path / "node", peers=peers)
    objects = series()
    with build.started(path) as node:
        uid = sent(node, objects, abort_after=6)
    with build.started(path) as node:
        arrives(node, uid)
        assert "the node was started" in words(node, uid)


def test_what_the_gate_let_pass_with_a_warning_is_in_the_verdict(tmp_path, build, shared_pacs):
    path = build.write_node(
        tmp_path / "node", peers=build.peer_table("pacs", "TESTPACS", shared_pacs.port)
    )
    model = path.parent / "models" / "lung-threshold" / "model.toml"
    model.write_text(model.read_text() + '\n[policy]\nholes = "warn"\n')
    with build.started(path) as node:
        uid = sent(node, a_series(12, missing=(5,), header=Header(seed=next(SEEDS))))
        node.wait(lambda: "INCOMPLETE" in node.why(uid))
        CliRunner().invoke(release, [uid, "--config", str(node.config_path)])
        arrives(node, uid)
        assert "made its result, with a warning (1 plane is missing" in node.why(uid)
