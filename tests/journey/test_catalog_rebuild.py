"""A catalog that is damaged or gone: said at once, and made anew without losing an object."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from importlib import resources
from types import SimpleNamespace

import pydicom
import pytest
from click.testing import CliRunner

from dicom_node.catalog import Catalog
from dicom_node.catalog.integrity import wal_of
from dicom_node.catalog.schema import connect
from dicom_node.cli.catalog import catalog as catalog_command
from dicom_node.cli.doctor import doctor
from dicom_node.cli.hold import hold, release
from dicom_node.cli.retry import retry
from dicom_node.cli.status import status
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogDamaged, CatalogError, ConfigurationError
from dicom_node.domain.records import Peer
from dicom_node.domain.states import DeliveryState, SeriesState
from dicom_node.node.layout import lock_catalog, share_catalog
from dicom_node.node.reasons import NOBODY, REBUILT
from dicom_node.node.respool import sender_of
from dicom_node.spool.store import Spool
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, a_series, file_of

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
PAGE = 4096


def run(*arguments, command=catalog_command):
    """Exit code, output, standard error."""
    done = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value or 0, done.stdout, done.stderr


def rebuilt(node, *more):
    """The node stopped and its catalog made anew: what --json tells."""
    code, told, _ = run("rebuild", "--config", node.config_path, "--json", *more)
    assert code == 0
    return json.loads(told)


def checked(node, *more):
    code, told, _ = run("check", "--config", node.config_path, "--json", *more)
    return code, json.loads(told)


def database(node):
    return node.folder / "var" / "catalog.db"


def opened(node):
    return Catalog(database(node))


def written(catalog):
    """Something that is in the log, and matters to nobody."""
    catalog.commit(e.AssociationEnded(at=1.0, number=999, how="lost"))


def spoil(path, *tables):
    """Overwrite every page of the tables but the root."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    marks = ",".join("?" * len(tables))
    query = f"SELECT pageno FROM dbstat WHERE name IN ({marks}) AND pagetype = 'leaf'"
    pages = [row[0] for row in db.execute(query, tables)]
    db.close()
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(b"\xa5" * PAGE)
    return len(pages)


def lose(path):
    """The catalog is gone altogether."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory, build):
    """The folder of a node that has segmented one series, the series' UID, and the result."""
    folder = tmp_path_factory.mktemp("made")
    series = a_series(6)
    uid = series[0].SeriesInstanceUID
    with LocalPacs(folder / "pacs", ae_title="TESTPACS") as pacs:
        peers = build.peer_table("pacs", "TESTPACS", pacs.port)
        with build.a_node(folder / "node", peers=peers) as node:
            send_series(node.address, objects=series, **FROM_PACS)
            node.wait(lambda: "pacs has it" in node.why(uid))
        (seg,) = (d for d in pacs.datasets() if d.SOPClassUID == SEG)
    return folder / "node", uid, seg


@pytest.fixture
def worked(tmp_path, build, made, pacs):
    """A copy of it, which knows the PACS of the test; and the series' UID."""
    folder, uid, _ = made
    shutil.copytree(folder, tmp_path / "node")
    peers = build.peer_table("pacs", "TESTPACS", pacs.port)
    path = build.write_node(tmp_path / "node", peers=peers)
    return SimpleNamespace(folder=tmp_path / "node", config_path=path), uid


@pytest.fixture
def again(start_node, build, pacs):
    """Start the node of the test again."""
    return lambda: start_node(peers=build.peer_table("pacs", "TESTPACS", pacs.port))


@pytest.mark.parametrize("how", ["rubbish", "gone", "empty"])
def test_a_node_without_its_catalog_says_what_to_do_and_does_not_start(worked, again, how):
    node, _ = worked
    lose(database(node))
    if how != "gone":
        database(node).write_bytes(b"rubbish" * 999 if how == "rubbish" else b"")
    with pytest.raises(CatalogDamaged, match="dicom-node catalog rebuild"):
        again()
    code, told, _ = run("--config", node.config_path, "--json", command=doctor)
    assert code == 1
    findings = [f for f in json.loads(told)["findings"] if f["check"] == "catalog"]
    assert [f["state"] for f in findings] == ["failed"]
    assert "rebuild" in findings[0]["text"] + findings[0]["advice"]


def test_from_the_spool_alone_the_same_object_is_made_and_sent_again(worked, again, made, pacs):
    node, _uid = worked
    before = made[2]
    lose(database(node))
    told = rebuilt(node)
    assert (told["source"], told["kept_as"]) == ("spool", "")
    assert (told["counts"]["instance"], told["counts"]["result"]) == (6, 1)
    assert (told["rested"]["due"], told["rested"]["strangers"]) == (1, 6)
    again().wait(lambda: pacs.stored_counts == {before.SOPInstanceUID: 1})
    assert pacs.datasets() == [before]


def test_of_old_series_nothing_is_scheduled_until_it_is_asked_for(worked, again, pacs):
    node, uid = worked
    lose(database(node))
    told = rebuilt(node, "--since", "0")
    assert (told["rested"]["due"], told["rested"]["resting"]) == (0, 1)
    node = again()
    series = node.running.catalog.views.series(uid)
    assert (series.state, series.due_at) == (SeriesState.COMPLETE, None)
    assert series.reason.startswith(REBUILT)
    (result,) = node.running.catalog.views.results(uid)
    assert result.tool_id == "lung-threshold"
    assert node.running.catalog.views.is_own_series(result.series_uid)
    (step,) = node.running.catalog.views.steps(uid)
    assert (step.state, step.step_id) == ("COMPLETED", result.step_id)
    assert node.running.catalog.views.next_series_due() is None
    assert node.running.catalog.owing.next_due(()) is None
    assert "retry --judge" in json.dumps([line.text for line in node.story(uid).lines])
    code, *_ = run("--judge", uid, "--config", node.config_path, command=retry)
    assert code == 0
    node.wait(lambda: pacs.stored_counts == {result.sop_instance_uid: 1})


def test_a_late_instance_of_an_old_series_makes_a_new_result(worked, again, pacs):
    node, uid = worked
    lose(database(node))
    rebuilt(node, "--since", "0")
    node = again()
    late = a_series(7)[6:]
    assert send_series(node.address, objects=late, **FROM_PACS) == [0]
    assert pacs.wait_for(1, 60)
    assert len(node.running.catalog.views.results(uid)) == 2


def is_sent(views, uid, *, steps):
    """Whether so many steps were performed, and all that they made has arrived."""
    performed = [step.state for step in views.steps(uid)] == ["COMPLETED"] * steps
    states = {
        d.state for result in views.results(uid) for d in views.deliveries(result.sop_instance_uid)
    }
    return performed and states == {DeliveryState.SENT}


@pytest.mark.parametrize("results", ['["seg"]', '["sc"]', '["seg", "sc"]'])
def test_what_replaced_an_earlier_result_is_made_again_as_the_same_object(
    tmp_path, build, pacs, results
):
    wanted = {
        "peers": build.peer_table("pacs", "TESTPACS", pacs.port),
        "routes": build.route.replace('["seg"]', results),
    }
    series = a_series(7)
    uid = series[0].SeriesInstanceUID
    with build.a_node(tmp_path / "node", **wanted) as node:
        views = node.running.catalog.views
        send_series(node.address, objects=series[:6], **FROM_PACS)
        node.wait(lambda: is_sent(views, uid, steps=1))
        first = set(pacs.stored_counts)
        send_series(node.address, objects=series[6:], **FROM_PACS)
        node.wait(lambda: is_sent(views, uid, steps=2))
        second = set(pacs.stored_counts) - first
    lose(database(node))
    assert rebuilt(node)["counts"]["result"] == len(first | second)
    with build.a_node(tmp_path / "node", **wanted) as node:
        node.wait(lambda: dict.fromkeys(second, 2).items() <= pacs.stored_counts.items())
        assert pacs.stored_counts == dict.fromkeys(second, 2) | dict.fromkeys(first, 1)
        node.wait(lambda: "pacs has it" in node.why(uid))


def test_with_its_events_readable_nothing_is_forgotten_or_sent_again(worked, again, made, pacs):
    node, uid = worked
    catalog = opened(node)
    before = catalog.views.counts(), catalog.views.events_after(0, 999)
    catalog.close()
    assert spoil(database(node), "instance", "series")
    with pytest.raises(CatalogDamaged):
        again()
    told = rebuilt(node)
    assert told["source"] == "events"
    assert (node.folder / "var" / told["kept_as"]).is_file()
    catalog = opened(node)
    assert (catalog.views.counts(), catalog.views.events_after(0, 999)) == before
    (delivery,) = catalog.views.deliveries(catalog.views.results(uid)[0].sop_instance_uid)
    assert delivery.state is DeliveryState.SENT
    catalog.close()
    assert checked(node)[0] == 0
    node = again()
    other = a_series(5, header=Header(seed=9))
    send_series(node.address, objects=other, **FROM_PACS)
    assert pacs.wait_for(1, 60)
    assert made[2].SOPInstanceUID not in pacs.stored_counts


def test_without_room_for_a_new_catalog_the_old_one_stays_as_it_is(worked, monkeypatch):
    node, _uid = worked
    before = database(node).read_bytes()

    def connected(path):
        db = connect(path)
        db.execute("PRAGMA max_page_count = 40")
        return db

    monkeypatch.setattr("dicom_node.catalog.refold.connect", connected)
    with pytest.raises(CatalogError, match="the disk is full"):
        rebuilt(node)
    assert database(node).read_bytes() == before
    assert list(database(node).parent.glob("*.rebuil*")) == []


def test_what_can_be_read_of_the_events_tells_who_sent_what(worked, again, build):
    node, uid = worked
    catalog = opened(node)
    association = catalog.views.associations(uid)[0]
    received = {i.sop_instance_uid: i.received_at for i in catalog.views.instances(uid)}
    summary = catalog.views.results(uid)[0].summary
    catalog.close()
    db = sqlite3.connect(database(node))
    db.execute("DELETE FROM event WHERE kind = 'SeriesJudged'")
    db.commit()
    db.close()
    told = rebuilt(node)
    assert (told["source"], told["rested"]["strangers"]) == ("spool", 0)
    catalog = opened(node)
    (found,) = catalog.views.associations(uid)
    assert (found.calling_ae, found.address) == (association.calling_ae, association.address)
    assert {i.sop_instance_uid: i.received_at for i in catalog.views.instances(uid)} == received
    assert catalog.views.results(uid)[0].summary == summary
    catalog.close()


def test_events_that_are_not_wanted_are_not_used(worked):
    node, _uid = worked
    told = rebuilt(node, "--from-spool")
    assert (told["source"], told["rested"]["strangers"]) == ("spool", 6)


def test_a_log_that_cannot_be_read_stops_the_node_and_no_object_is_lost(worked, again):
    node, _uid = worked
    live = opened(node)
    late = a_series(8)[6:]
    spool = Spool(node.folder / "var" / "spool")
    for dataset in late:
        spool.put(file_of(dataset))
    written(live)
    path = database(node)
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), copy.with_name(copy.name + suffix))
    live.close()
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).replace(path.with_name(path.name + suffix))
    with wal_of(path).open("r+b") as file:
        file.write(b"zzzz")
    with pytest.raises(CatalogDamaged, match="write-ahead log"):
        again()
    told = rebuilt(node)
    assert (told["source"], told["entered"]) == ("events", 2)
    assert told["counts"]["instance"] == 8


def test_a_result_whose_file_is_lost_before_it_was_sent_is_made_again(tmp_path, build, pacs):
    with socket.create_server(("127.0.0.1", 0)) as socket_of_nobody:
        closed = socket_of_nobody.getsockname()[1]
    series = a_series(6)
    uid = series[0].SeriesInstanceUID
    peers = build.peer_table("pacs", "TESTPACS", closed)
    with build.a_node(tmp_path / "node", peers=peers) as node:
        send_series(node.address, objects=series, **FROM_PACS)
        node.wait(lambda: node.running.catalog.views.results(uid))
        (lost,) = node.running.catalog.views.results(uid)
    Spool(node.folder / "var" / "spool").path(lost.path).unlink()
    peers = build.peer_table("pacs", "TESTPACS", pacs.port)
    with build.a_node(tmp_path / "node", peers=peers) as node:
        node.wait(lambda: "pacs has it" in node.why(uid))
        assert pacs.stored_counts == {lost.sop_instance_uid: 1}
        (made,) = node.running.catalog.views.results(uid)
        assert made.path == lost.path


def test_of_two_objects_with_one_uid_the_older_is_the_instance(worked):
    node, uid = worked
    spool = Spool(node.folder / "var" / "spool")
    catalog = opened(node)
    first = catalog.views.instances(uid)[0]
    catalog.close()
    other = pydicom.dcmread(spool.path(first.path))
    other.PatientComments = "other content"
    later = spool.put(file_of(other)).path
    os.utime(spool.path(later), (first.received_at + 100, first.received_at + 100))
    lose(database(node))
    assert rebuilt(node)["rested"]["conflicts"] == 1
    catalog = opened(node)
    assert catalog.views.instance(first.sop_instance_uid).path == first.path
    assert [c.path for c in catalog.views.conflicts(uid)] == [later]
    catalog.close()


def test_files_that_hold_no_object_are_left_alone(worked):
    node, _ = worked
    spool = Spool(node.folder / "var" / "spool")
    path = spool.put(b"no DICOM").path
    lose(database(node))
    assert rebuilt(node)["rested"]["unreadable"] == [path]
    assert spool.path(path).is_file()


DIES = """
import os, signal, sys
from pathlib import Path
from dicom_node.config.load import load
from dicom_node.node.clock import SystemClock
from dicom_node.node.rebuild import Wish, rebuild

def progress(what, done, total):
    if what == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

rebuild(load(Path(sys.argv[1])), Wish(since_s=86400.0), SystemClock(), progress)
"""


@pytest.mark.parametrize("where", ["events", "folders", "files", "results", "series"])
def test_a_rebuild_that_is_killed_is_simply_run_again(worked, where):
    node, _uid = worked
    spoil(database(node), "instance", "series")
    if where != "events":
        lose(database(node))
    killed = subprocess.run(
        [sys.executable, "-c", DIES, node.config_path, where],
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert database(node).exists() == (where == "events"), "the old one is where it was"
    told = rebuilt(node)
    assert (told["counts"]["instance"], told["counts"]["result"]) == (6, 1)
    assert sorted(p.name for p in database(node).parent.glob("*.rebuil*")) == []


def test_a_rebuild_that_died_at_its_very_end_is_finished_before_the_node_starts(worked, again):
    node, uid = worked
    told = rebuilt(node)
    pending = database(node).with_name("catalog.db.rebuilt")
    shutil.copy(database(node), pending)
    with pytest.raises(CatalogDamaged, match="interrupted"):
        again()
    told = rebuilt(node)
    assert told["source"] == "interrupted"
    assert not pending.exists()
    assert again().why(uid)


def test_a_catalog_is_not_rebuilt_under_a_running_node(worked, again):
    node = again()
    with pytest.raises(ConfigurationError, match="another node uses the data folder"):
        rebuilt(node)


def test_nothing_is_acknowledged_once_damage_was_met(worked, again):
    node = again()
    catalog = opened(node)
    written(catalog)
    catalog.close()
    late = a_series(40, header=Header(seed=3))
    assert send_series(node.address, objects=late[:20], **FROM_PACS) == [0] * 20
    assert spoil(database(node), "event", "instance", "series", "event_subject")
    other = sqlite3.connect(database(node))  # what it wrote makes the node read anew
    other.execute("PRAGMA application_id = 1")
    other.close()
    statuses = send_series(node.address, objects=late[20:], **FROM_PACS)
    assert statuses == [0x0110] * 20
    done = CliRunner().invoke(status, ["--config", str(node.config_path)])
    error = done.stderr + str(done.exception)
    assert "THE CATALOG IS DAMAGED" in error
    assert "dicom-node catalog rebuild" in error
    with pytest.raises(CatalogDamaged):
        again()


def test_the_check_finds_what_is_lost_altered_unknown_and_different(worked):
    node, _uid = worked
    assert checked(node, "--deep")[0] == 0
    spool = Spool(node.folder / "var" / "spool")
    lost, altered, *_ = sorted(spool.files())
    unknown = spool.put(b"no DICOM").path
    os.utime(spool.path(unknown), (1.0, 1.0))
    spool.path(lost).unlink()
    with spool.path(altered).open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff")
    db = sqlite3.connect(database(node))
    db.execute("UPDATE instance SET size = size + 1")
    db.commit()
    db.close()
    code, told = checked(node)
    assert code == 1
    assert (told["lost"], told["unreadable"], told["altered"]) == ([lost], [unknown], [])
    assert told["differing"] == {"instance": 6}
    assert checked(node, "--deep")[1]["altered"] == sorted({altered, unknown} - {unknown})
    code, shown, _ = run("check", "--config", node.config_path, "--deep")
    assert code == 1
    for word in ("lost", "altered", "differ", "catalog rebuild", lost):
        assert word in shown, word


def test_the_check_leaves_a_catalog_of_an_older_version_as_it_is(worked):
    node, _ = worked
    lose(database(node))
    db = sqlite3.connect(database(node))
    for name in ("0001.sql", "0002.sql"):
        db.executescript(
            resources.files("dicom_node.catalog.migrations").joinpath(name).read_text()
        )
    db.execute("PRAGMA user_version = 2")
    db.close()
    before = database(node).read_bytes()
    code, told = checked(node)
    assert (code, told["outdated"], told["page"]) == (0, True, [])
    assert "older version" in run("check", "--config", node.config_path)[1]
    assert database(node).read_bytes() == before
    db = sqlite3.connect(database(node))
    db.execute("PRAGMA user_version = 9999")
    db.close()
    with pytest.raises(CatalogError, match="newer version"):
        checked(node)


def test_the_check_finds_files_that_were_stored_before_the_clock_was_set_back(worked):
    node, _ = worked
    spool = Spool(node.folder / "var" / "spool")
    path = spool.put(file_of(a_series(1, header=Header(seed=4))[0])).path
    ahead = spool.path(path).stat().st_mtime + 3600
    os.utime(spool.path(path), (ahead, ahead))
    assert checked(node)[1]["unknown"] == [path]


def test_nobody_changes_a_catalog_that_is_being_made_anew(worked):
    node, uid = worked
    commands = {retry: (uid, "--again"), hold: (uid,), release: (uid,), status: ()}
    with lock_catalog(node.folder / "var"):
        for command, arguments in commands.items():
            with pytest.raises(CatalogError, match="is being made anew"):
                run(*arguments, "--config", node.config_path, command=command)
    refused = pytest.raises(CatalogError, match="another command works")
    with share_catalog(node.folder / "var"), refused:
        rebuilt(node)
    shutil.copy(database(node), database(node).with_name("catalog.db.rebuilt"))
    with pytest.raises(CatalogError, match="interrupted"):
        run(uid, "--config", node.config_path, command=hold)


def test_the_check_of_a_damaged_catalog_says_so(worked):
    node, _ = worked
    spoil(database(node), "instance")
    code, told = checked(node)
    assert (code, bool(told["page"])) == (1, True)


def test_a_rebuild_tells_people_what_it_did(worked):
    node, _ = worked
    lose(database(node))
    code, shown, _ = run("rebuild", "--config", node.config_path, "--since", "0")
    assert code == 0
    assert "made anew from the files of the spool" in shown
    assert "1 series with 6 instances, 1 result" in shown
    assert "the sender of 6 instances is taken to be pacs" in shown


def test_the_sender_is_guessed_only_where_nobody_else_can_have_sent(worked, build, pacs):
    node, uid = worked
    two = build.peer_table("pacs", "TESTPACS", pacs.port) + build.peer_table("ct", "CT1", 104)
    build.write_node(node.folder, peers=two)
    lose(database(node))
    rebuilt(node)
    catalog = opened(node)
    assert [a.calling_ae for a in catalog.views.associations(uid)] == [NOBODY]
    catalog.close()
    rebuilt(node, "--from-spool", "--sender", "pacs")
    catalog = opened(node)
    assert [a.calling_ae for a in catalog.views.associations(uid)] == ["TESTPACS"]
    catalog.close()
    with pytest.raises(ConfigurationError, match="no configured peer"):
        rebuilt(node, "--sender", "nobody")


@pytest.mark.parametrize(
    ("host", "networks", "address"),
    [
        ("10.1.2.3", (), "10.1.2.3"),
        ("localhost", (), "127.0.0.1"),
        ("pacs.example.org", (), "pacs.example.org"),
        ("pacs.example.org", ("10.0.0.0/8",), "10.0.0.0"),
    ],
)
def test_a_peer_is_known_again_by_the_address_that_is_written_for_it(host, networks, address):
    peer = Peer(name="p", ae_title="PACS", host=host, port=104, networks=networks)
    assert sender_of(peer) == ("PACS", address)
