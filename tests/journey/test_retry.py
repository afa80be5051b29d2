"""`retry`: for one patient or for all, what failed and what has to be done once more."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from dicom_node.cli.retry import retry
from dicom_node.cli.why import why
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, a_series

FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}


@dataclass
class Told:
    exit_code: int
    output: str
    counts: dict


def again(node, *arguments):
    command = [*arguments, "--config", str(node.config_path)]
    done = CliRunner().invoke(retry, [*command, "--json"], standalone_mode=False)
    assert done.exception is None, done.exception
    return Told(done.return_value, done.output, json.loads(done.stdout))


def series(seed):
    return a_series(6, header=Header(seed=seed))


@pytest.fixture
def table(build, pacs):
    return build.peer_table("pacs", "TESTPACS", pacs.port)


def test_a_mended_route_is_asked_again_after_a_restart(start_node, build, pacs, table):
    wrong = build.route.replace('"CT"', '"MR"')
    node = start_node(peers=table, routes=wrong)
    objects = series(1)
    uid = objects[0].SeriesInstanceUID
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "Modality is 'CT', not 'MR'" in node.why(uid))

    node = start_node(peers=table)
    told = again(node, uid)

    assert (told.exit_code, told.counts["series"]) == (0, 1)
    assert pacs.wait_for(1, 60)
    node.wait(lambda: "pacs has it" in node.why(uid))
    lines = [line.text for line in node.story(uid).lines]
    assert any("judged anew" in line for line in lines)


def test_a_route_that_is_still_wrong_says_so_again(start_node, build, table):
    node = start_node(peers=table, routes=build.route.replace('"CT"', '"MR"'))
    objects = series(1)
    uid = objects[0].SeriesInstanceUID
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "no result" in node.why(uid))
    again(node, uid)
    node.wait(lambda: node.running.catalog.views.series(uid).state == "COMPLETE")
    assert node.running.catalog.views.series(uid).revision == 2
    assert "Modality is 'CT', not 'MR'" in node.why(uid)


def test_a_peer_that_can_be_sent_to_now_gets_what_no_route_could_send(start_node, table, pacs):
    node = start_node(peers=table + "offers = []\n")
    objects = series(1)
    uid = objects[0].SeriesInstanceUID
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "does not offer" in node.why(uid))
    node = start_node(peers=table)
    counts = again(node, uid).counts
    assert (counts["steps"], counts["deliveries"], counts["series"]) == (0, 0, 1)
    assert [hit["series_uid"] for hit in counts["hit"]] == [uid]
    assert pacs.wait_for(1, 60)


def test_a_new_route_takes_a_series_that_had_a_result_already(start_node, build, pacs, table):
    with LocalPacs(pacs.folder.parent / "other", ae_title="OTHER") as other:
        both = table + build.peer_table("other", "OTHER", other.port)
        node = start_node(peers=both)
        objects = series(1)
        uid = objects[0].SeriesInstanceUID
        send_series(node.address, objects=objects, **FROM_PACS)
        node.wait(lambda: "pacs has it" in node.why(uid))

        node = start_node(peers=both, routes=build.route.replace('"@sender"', '"other"'))
        assert again(node, uid).exit_code == 1, "nothing has failed"
        assert again(node, uid, "--judge").counts["series"] == 1

        assert other.wait_for(1, 60)
        node.wait(lambda: "other has it" in node.why(uid))
        assert other.datasets()[0].SOPInstanceUID == pacs.datasets()[0].SOPInstanceUID
        assert len(pacs.attempts) == 1, "the first is not sent there again"


def test_what_the_pacs_has_is_sent_again_if_it_is_asked_for(start_node, pacs, table):
    node = start_node(peers=table)
    objects = series(1)
    uid = objects[0].SeriesInstanceUID
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "pacs has it" in node.why(uid))

    refused = again(node, uid)
    assert refused.exit_code == 1
    assert f"dicom-node retry {uid} --again" in refused.counts["reason"]
    assert again(node, uid, "--again").counts["deliveries"] == 1

    node.wait(lambda: len(pacs.attempts) == 2)
    node.wait(lambda: "pacs has it" in node.why(uid))


def test_all_that_failed_is_tried_again_at_once_or_for_one_peer(start_node, build, pacs, table):
    pacs.on_store = lambda _attempt: 0xA900
    with LocalPacs(pacs.folder.parent / "other", ae_title="OTHER") as other:
        other.on_store = lambda _attempt: 0xA900
        both = table + build.peer_table("other", "OTHER", other.port)
        to_both = build.route.replace('["@sender"]', '["@sender", "other"]')
        node = start_node(peers=both, routes=to_both)
        uids = []
        for seed in (1, 2):
            objects = series(seed)
            uids.append(objects[0].SeriesInstanceUID)
            send_series(node.address, objects=objects, **FROM_PACS)
        for uid in uids:
            node.wait(lambda uid=uid: node.why(uid).count("PARKED") == 2)
        pacs.on_store = other.on_store = lambda _attempt: 0

        assert again(node, "--all", "--to", "other").counts["deliveries"] == 2
        assert other.wait_for(2, 60)
        assert not pacs.datasets()
        assert again(node, "--all").counts["deliveries"] == 2
        assert pacs.wait_for(2, 60)


def test_a_step_whose_model_was_away_is_among_all(start_node, build, pacs, table):
    node = start_node(peers=table)
    objects = series(1)
    uid = objects[0].SeriesInstanceUID
    path = node.folder / "models" / "lung-threshold" / "model.toml"
    views = node.running.catalog.views
    whole = path.read_text()
    path.write_text("nonsense")  # from the performer's next start on
    os.kill(node.performer_pid(), signal.SIGKILL)
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: any(step.attempt for step in views.steps(uid)) and "retry" in node.why(uid))
    path.write_text(whole)
    assert again(node, "--all").counts["steps"] == 1
    assert pacs.wait_for(1, 60)


def test_what_cannot_be_retried_is_explained(start_node, table):
    node = start_node(peers=table)
    assert "nothing with 1.2.3" in again(node, "1.2.3").counts["reason"]
    assert again(node, "--all").counts["reason"] == "nothing has failed"
    objects = a_series(12, missing=(5,))
    uid = objects[0].SeriesInstanceUID
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "INCOMPLETE" in node.why(uid))
    assert f"dicom-node release {uid}" in again(node, uid).counts["reason"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "Say what"), (("1.2", "--all"), "Say what"), (("1.2", "--to", "nobody"), "known: pacs")],
)
def test_a_wish_that_makes_no_sense_is_a_usage_error(start_node, table, arguments, words):
    node = start_node(peers=table)
    done = CliRunner().invoke(retry, [*arguments, "--config", str(node.config_path)])
    assert done.exit_code == 2
    assert words in done.output


def test_the_log_says_which_result_went_where(start_node, pacs, table, caplog):
    caplog.set_level("INFO", "dicom_node")
    node = start_node(peers=table)
    objects = series(1)
    uid = objects[0].SeriesInstanceUID
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "pacs has it" in node.why(uid))
    seg = pacs.datasets()[0].SOPInstanceUID
    assert f"series {uid}: result {seg}: pacs: SENT" in caplog.text
    told = CliRunner().invoke(why, [seg, "--config", str(node.config_path)])
    assert uid in told.output, "and `why` takes what the log names"
