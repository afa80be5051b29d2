"""`status`: what needs attention comes first, with the UIDs that the other commands take."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import pytest
from click.testing import CliRunner

from dicom_node.catalog import Catalog
from dicom_node.cli.doctor import doctor
from dicom_node.cli.retry import retry
from dicom_node.cli.status import status
from dicom_node.cli.why import why
from dicom_node.domain.events import NodeStarted
from dicom_node.node.clock import SystemClock
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series

FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}


def shown(node, *options):
    done = CliRunner().invoke(
        status, [*options, "--config", str(node.config_path)], standalone_mode=False
    )
    assert done.exception is None, done.exception
    return done


@pytest.fixture
def table(build, pacs):
    return build.peer_table("pacs", "TESTPACS", pacs.port)


def test_what_was_refused_for_good_stands_first_with_its_reason(start_node, table, pacs):
    pacs.on_store = lambda _attempt: 0xA900
    node = start_node(peers=table)
    bad = a_series(6, header=Header(seed=1))
    uid = bad[0].SeriesInstanceUID
    send_series(node.address, objects=bad, **FROM_PACS)
    node.wait(lambda: "PARKED" in node.why(uid))
    pacs.on_store = lambda _attempt: 0
    good = a_series(6, header=Header(seed=2))
    send_series(node.address, objects=good, **FROM_PACS)
    node.wait(lambda: "pacs has it" in node.why(good[0].SeriesInstanceUID))

    text = shown(node).output
    assert max(map(len, text.splitlines())) <= 80
    first, newest = text.split("NEWEST SERIES")
    assert "DICOMNODE is running" in first
    assert "NEEDS ATTENTION: 1 PARKED" in first
    assert uid in first
    assert "accession ACC-0" in first
    assert "0xA900" in first
    assert good[0].SeriesInstanceUID not in first
    assert good[0].SeriesInstanceUID in newest

    only = shown(node, "--attention")
    assert only.return_value == 1
    assert "NEWEST" not in only.output
    told = json.loads(shown(node, "--attention", "--json").stdout)
    assert [row["series_uid"] for row in told["attention"]] == [uid]

    named = told["attention"][0]["series_uid"]
    CliRunner().invoke(retry, [named, "--config", str(node.config_path)])
    node.wait(lambda: "pacs has it" in node.why(uid))
    calm = shown(node, "--attention")
    assert calm.return_value == 0
    assert "nothing needs attention" in calm.output


def test_a_series_that_no_route_takes_says_which_clause_failed(start_node, build, table):
    node = start_node(peers=table, routes=build.route.replace('"CT"', '"MR"'))
    objects = a_series(6)
    uid = objects[0].SeriesInstanceUID
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "no result" in node.why(uid))
    told = " ".join(shown(node).output.split())
    assert "no result: route 'lungs': Modality is 'CT', not 'MR'" in told
    assert "ATTENTION" not in told, "most series are nobody's business"


def test_an_incomplete_series_needs_attention(start_node, table):
    node = start_node(peers=table)
    objects = a_series(12, missing=(5,))
    uid = objects[0].SeriesInstanceUID
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "INCOMPLETE" in node.why(uid))
    text = shown(node).output
    assert "NEEDS ATTENTION: 1 INCOMPLETE" in text
    assert "missing after position" in " ".join(text.split("NEWEST")[0].split())


def test_what_a_peer_is_refused_is_counted_by_status(start_node, table):
    node = start_node(peers=f"{table}objects_per_minute = 2\n")
    with contextlib.suppress(ConnectionError):
        send_series(node.address, objects=a_series(6), **FROM_PACS)
    node.wait(lambda: json.loads(shown(node, "--json").stdout)["refused"])
    (refused,) = json.loads(shown(node, "--json").stdout)["refused"]
    assert (refused["ae_title"], refused["status"], refused["times"]) == ("TESTPACS", "A700", 4)
    told = " ".join(shown(node).output.split())
    assert "TESTPACS was refused 4 requests with A700" in told
    assert "more than 2 objects a minute" in told
    done = CliRunner().invoke(doctor, ["--config", str(node.config_path)], standalone_mode=False)
    assert "4 of TESTPACS since the start with A700" in " ".join(done.output.split())


def test_who_is_turned_away_is_told_where_one_looks_for_images(start_node, table):
    node = start_node(peers=table)
    with pytest.raises(ConnectionError):
        send_series(node.address, "DICOMNODE", a_series(1), calling_ae="STRANGER")
    assert "STRANGER was rejected 1 time" in shown(node).output
    nothing = CliRunner().invoke(why, ["ACC-0", "--config", str(node.config_path)])
    assert "knows nothing of ACC-0" in nothing.output
    assert "dicom-node why STRANGER" in nothing.output
    told = CliRunner().invoke(why, ["STRANGER", "--config", str(node.config_path)])
    assert "[[peer]]" in told.output


def test_a_peer_that_is_away_is_named_with_what_waits_for_it(start_node, table, pacs):
    pacs.on_store = lambda _attempt: 0xA700
    node = start_node(peers=table)
    objects = a_series(6)
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "DEFERRED" in node.why(objects[0].SeriesInstanceUID))
    told = " ".join(shown(node, "--attention").output.split())
    assert "pacs is waited for, with 1 result: " in told
    assert "dicom-node retry --all --to pacs" in told
    pacs.on_store = lambda _attempt: 0
    node.wait(lambda: "pacs has it" in node.why(objects[0].SeriesInstanceUID))
    assert "waited for" not in shown(node).output


def test_the_longest_uids_fit_and_stay_whole(start_node, table):
    node = start_node(peers=table)
    objects = a_series(6)
    uid = "2.25." + "9" * 59
    for dataset in objects:
        dataset.SeriesInstanceUID = uid
    send_series(node.address, objects=objects, **FROM_PACS)
    node.wait(lambda: "pacs has it" in node.why(uid))
    for told in (
        shown(node).output,
        CliRunner().invoke(why, [uid, "--config", str(node.config_path)]).output,
    ):
        assert uid in told
        assert max(map(len, told.splitlines())) <= 80


def test_a_node_that_is_stopped_is_said_to_be(tmp_path, table, build):
    with build.a_node(tmp_path / "node", peers=table) as node:
        objects = a_series(1)
        send_series(node.address, objects=objects, **FROM_PACS)
        node.wait(lambda: shown(node).output.startswith("DICOMNODE is running\n"))
    stopped = shown(node, "--attention")
    assert stopped.output.startswith("DICOMNODE is NOT RUNNING\n")
    assert "nothing needs attention" not in stopped.output
    assert stopped.return_value == 1, "what a monitor looks at"


def test_a_node_that_takes_nothing_in_is_said_to_be_so(tmp_path, table, build):
    with build.a_node(tmp_path / "node", peers=table, routes="") as node:
        full = node.config_path.read_text().replace("min_free_gib = 0.01", "min_free_gib = 1e6")
        node.config_path.write_text(full)
        done = shown(node, "--attention")
        assert done.return_value == 1
        first = " ".join(done.output.split("GiB free")[0].split())
        assert first.startswith("DICOMNODE is running, but ")
        assert "REFUSING WHAT IS SENT: " in first or "CLOSED TO SENDERS: " in first


def test_a_node_whose_performer_is_dead_is_said_to_be(start_node, table):
    node = start_node(peers=table)
    path = node.folder / "models" / "lung-threshold" / "model.toml"
    path.write_text("nonsense")  # from the performer's next start on
    os.kill(node.performer_pid(), signal.SIGKILL)
    node.wait(lambda: shown(node, "--attention").return_value == 1)
    told = shown(node, "--attention").output
    assert told.startswith("DICOMNODE is running, but WITHOUT A PERFORMER")


def test_a_clock_that_is_far_ahead_is_said_and_nothing_goes_for_its_age(
    start_node, table, tmp_path, caplog
):
    """The node's last event is two months old; its clock is right, which it cannot know."""
    data_dir = tmp_path / "node" / "var"
    data_dir.mkdir(parents=True)
    catalog = Catalog(data_dir / "catalog.db")
    catalog.commit(NodeStarted(at=SystemClock().now() - 60 * 86400, version="0"))
    catalog.close()
    for _restart in range(2):
        with caplog.at_level("WARNING", logger="dicom_node"):
            node = start_node(peers=table)
        assert "60 days after all that it had recorded" in caplog.text
        caplog.clear()
        told = json.loads(shown(node, "--json").stdout)
        assert told["node"]["clock_doubted_until"]
        assert "the clock was far ahead" in " ".join(shown(node).output.split())
