"""The audit trail of a whole node: to a file and a collector, over a kill, and by commands."""

from __future__ import annotations

import base64
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

from collector.server import CERTIFICATES, SyslogCollector, parsed
from dicom_node.audit.segment import Seen
from dicom_node.audit.spool import AuditSpool, backlog
from dicom_node.audit.syslog import Origin, line
from dicom_node.catalog import Catalog
from dicom_node.cli.examine import State
from dicom_node.cli.examine_audit import audit
from dicom_node.cli.main import main
from dicom_node.config.hazards import unsafe
from dicom_node.config.load import read
from dicom_node.dimse.scu import echo
from dicom_node.domain.events import NodeStarted
from dicom_node.domain.records import Peer
from dicom_node.node.auditing import LAG_S, troubles
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series

FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
WHOSE = Header(seed=5, patient_name="Muster^Anna", patient_id="PID-5", accession_number="ACC-5")


def audit_table(port: int = 0, *, file: str = "audit/trail.log") -> str:
    lines = ["[audit]"]
    if file:
        lines.append(f'file = "{file}"')
    if port:
        lines += [f'syslog = "127.0.0.1:{port}"', f'ca = "{CERTIFICATES / "ca.pem"}"']
    return "\n".join(lines)


def until(ready, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def told(messages: list[bytes]) -> list[SimpleNamespace]:
    """What each says: event, action, who took part, study, patient, instances."""
    found = []
    for one in messages:
        root = ET.fromstring(parsed(one).xml)
        about = {
            o.find("ParticipantObjectIDTypeCode").get("originalText"): o
            for o in root.findall("ParticipantObjectIdentification")
        }
        study, patient = about.get("Study Instance UID"), about.get("Patient Number")
        query = about.get("SOP Class UID")
        found.append(
            SimpleNamespace(
                event=root.find("EventIdentification/EventID").get("originalText"),
                kind=getattr(root.find("EventIdentification/EventTypeCode"), "attrib", {}).get(
                    "originalText", ""
                ),
                action=root.find("EventIdentification").get("EventActionCode"),
                outcome=root.find("EventIdentification").get("EventOutcomeIndicator"),
                who=[p.get("UserID") for p in root.findall("ActiveParticipant")],
                study="" if study is None else study.get("ParticipantObjectID"),
                patient="" if patient is None else patient.get("ParticipantObjectID"),
                count=0
                if study is None
                else sum(int(c.get("NumberOfInstances")) for c in study.iter("SOPClass")),
                query=b""
                if query is None
                else base64.b64decode(query.findtext("ParticipantObjectQuery")),
            )
        )
    return found


@pytest.fixture
def cli(monkeypatch, capsys):
    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["dicom-node", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        capsys.readouterr()
        return int(ended.value.code or 0)

    return run


def test_a_series_is_told_on_its_whole_way_and_by_the_commands(
    start_node, build, pacs, cli, tmp_path
):
    peers = build.peer_table("pacs", "TESTPACS", pacs.port) + (
        'offers = ["store", "query", "retrieve"]\n'
    )
    with SyslogCollector() as there:
        node = start_node(peers=peers, more=audit_table(there.port))
        series = a_series(6, header=WHOSE)
        uid, study = series[0].SeriesInstanceUID, series[0].StudyInstanceUID
        send_series(node.address, objects=series, **FROM_PACS)
        with pytest.raises(ConnectionError):
            send_series(node.address, "DICOMNODE", series, calling_ae="STRANGER")
        node.wait(lambda: "pacs has it" in node.why(uid))
        options = ("--config", node.config_path)
        assert cli("find", "pacs", "--patient", "PID-5", *options) == 0
        assert cli("get", "pacs", "--study", study, "--out", tmp_path / "out", *options) == 0
        out = next((tmp_path / "out").iterdir())
        assert cli("send", "pacs", out, *options) == 0
        node.wait(lambda: any(m.event == "Export" for m in told(there.messages)))
        file = node.folder / "audit" / "trail.log"
        node.stop()
        until(lambda: there.goodbyes)

        found = told(there.messages)
        kinds = [(m.event, m.action, m.who[0], m.count) for m in found if m.study]
        begin, transferred = "Begin Transferring DICOM Instances", "DICOM Instances Transferred"
        assert (begin, "E", "TESTPACS") in [k[:3] for k in kinds]
        assert (transferred, "C", "TESTPACS", 6) in kinds
        assert (begin, "E", "DICOMNODE", 1) in kinds
        assert (transferred, "R", "DICOMNODE", 1) in kinds
        assert {(m.study, m.patient) for m in found if m.study} == {(study, "PID-5")}
        assert all(m.outcome == "0" for m in found if m.study)
        starts = [m.kind for m in found if m.event == "Application Activity"]
        assert starts == ["Application Start", "Application Stop"]
        (alert,) = [m for m in found if m.event == "Security Alert"]
        assert alert.who == ["DICOMNODE", "STRANGER"]
        asked = [m.query for m in found if m.event == "Query"]
        assert any(b"PID-5" in query for query in asked), "find"
        assert any(uid.encode() in query for query in asked), "the node asked for proof"
        (export,) = [m for m in found if m.event == "Export"]
        assert export.who[-1] == (tmp_path / "out").as_uri()
        assert export.who[0].partition("@")[0]
        assert file.read_bytes().splitlines() == there.messages
        assert file.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_node_had_stored_is_told_by_the_next(build, pacs, free_port, tmp_path):
    """Nobody had been told: the collector was away, and the node was killed with -9."""
    port, collecting = free_port(), free_port()
    config = build.write_node(
        tmp_path / "node",
        port=port,
        routes="",
        peers=build.peer_table("pacs", "TESTPACS", pacs.port),
        more=audit_table(collecting, file=""),
    )
    series = a_series(4, header=WHOSE)
    node = served(config, port, tmp_path)
    assert set(send_series(("127.0.0.1", port), objects=series, **FROM_PACS)) == {0}
    node.kill()
    node.wait(20)

    with SyslogCollector(port=collecting) as there:
        again = served(config, port, tmp_path)
        until(lambda: sum("Transferred" in m.event for m in told(there.messages)) >= 1)
        again.send_signal(signal.SIGTERM)
        assert again.wait(30) == 0
        found = told(there.messages)

    assert [m.count for m in found if m.event == "DICOM Instances Transferred"] == [4]
    begun = [m.patient for m in found if m.event.startswith("Begin")]
    assert begun in (["PID-5"], ["PID-5"] * 2), "twice if the kill came in the middle"
    assert [m.kind for m in found if m.event == "Application Activity"] == [
        "Application Start",
        "Application Start",
        "Application Stop",
    ]
    assert len(set(there.messages)) == len(there.messages)
    assert "audit trail: 127.0.0.1" in (tmp_path / "node.log").read_text()


def served(config: Path, port: int, folder: Path) -> subprocess.Popen:
    with (folder / "node.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node.cli.main", "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    peer = Peer(name="node", ae_title="DICOMNODE", host="127.0.0.1", port=port)

    def answers() -> bool:
        assert process.poll() is None, (folder / "node.log").read_text()
        return echo(peer=peer, calling_ae="TESTPACS").succeeded

    until(answers)
    return process


def test_a_store_does_not_wait_for_an_audit_trail_that_is_stuck(start_node, build, pacs, tmp_path):
    """The collector accepts and says nothing, and the file cannot be made."""
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "in-the-way").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = start_node(
            routes="",
            peers=build.peer_table("pacs", "TESTPACS", pacs.port),
            more=audit_table(silent.getsockname()[1], file="in-the-way/trail.log"),
        )
        series = a_series(6, header=WHOSE)
        assert set(send_series(node.address, objects=series, **FROM_PACS)) == {0}
        spool = node.folder / "var" / "audit"
        node.wait(lambda: backlog(spool, "syslog") is not None)
        node.wait(lambda: backlog(spool, "syslog").waiting == 3)  # start, begin, transferred
        assert backlog(spool, "file").waiting == 3
        node.stop()
        assert backlog(spool, "file").waiting == 4


# --- doctor, status, warnings


def config_of(folder: Path, text: str):
    return read(f'[node]\ndata_dir = "var"\n{text}', base=folder)


def test_doctor_says_whether_file_and_collector_work(tmp_path):
    assert list(audit(config_of(tmp_path, ""))) == []
    with SyslogCollector() as there:
        (tmp_path / "there.log").touch(mode=0o600)
        good = list(audit(config_of(tmp_path, audit_table(there.port, file="there.log"))))
        new = next(audit(config_of(tmp_path, audit_table(file="new/audit.log"))))
    away = list(audit(config_of(tmp_path, audit_table(there.port, file=""))))

    assert [f.state for f in (*good, new)] == [State.OK, State.OK, State.OK]
    assert f"127.0.0.1:{there.port} answers (TLSv1." in good[1].text
    assert [f.state for f in away] == [State.FAILED]
    assert "Connection refused" in away[0].text


def test_doctor_finds_what_others_may_read(tmp_path):
    (tmp_path / "audit.log").touch()
    (tmp_path / "audit.log").chmod(0o644)
    shutil.copy(CERTIFICATES / "node.key", tmp_path / "node.key")
    (tmp_path / "node.key").chmod(0o640)
    text = (
        audit_table(1, file="audit.log")
        + f'\ncertificate = "{CERTIFICATES / "node.pem"}"\nkey = "node.key"'
    )

    file, key = audit(config_of(tmp_path, text))

    assert file.state is State.WARNING
    assert "others may read" in file.text
    assert key.state is State.FAILED
    assert f"others may read {tmp_path / 'node.key'}, a key (chmod 600)" in key.text


def test_a_node_on_the_network_without_an_audit_trail_is_warned_of(tmp_path):
    def told_of(host: str, more: str = "") -> bool:
        config = read(f'[node]\nhost = "{host}"\n{more}', base=tmp_path)
        return any("audit trail" in one for one in unsafe(config))

    assert told_of("0.0.0.0")
    assert not told_of("127.0.0.1")
    assert not told_of("0.0.0.0", '[audit]\nfile = "a.log"')


def test_status_says_when_the_trail_lags_stands_still_or_has_a_gap(tmp_path):
    config = config_of(tmp_path, audit_table(6514, file=""))
    (tmp_path / "var").mkdir()
    catalog = Catalog(tmp_path / "var" / "catalog.db")
    catalog.commit(NodeStarted(at=1000.0, version="1"))
    assert list(troubles(config, catalog, 2000.0)) == []  # it has not begun
    origin = Origin(host="h", process=1, version="1")
    spool = AuditSpool(tmp_path / "var" / "audit", ["syslog"], limit_bytes=4000, segment_bytes=500)
    for number in range(1, 4):
        spool.append(
            [line("<a/>", at=1000.0, well=True, number=number, origin=origin)], Seen(1, 1000.0)
        )

    assert list(troubles(config, catalog, 1000.0 + LAG_S)) == []
    (lags,) = troubles(config, catalog, 1001.0 + LAG_S)
    assert "LAGS: 3 messages wait for the collector 127.0.0.1:6514" in lags
    assert "1970-01-01T00:16:40" in lags
    spool.advance("syslog", 4)
    assert list(troubles(config, catalog, 2000.0)) == []
    catalog.commit(NodeStarted(at=1100.0, version="1"))
    (stands,) = troubles(config, catalog, 1101.0 + LAG_S)
    assert "STANDS STILL: what happened since 1970-01-01T00:18:20" in stands
    for _ in range(60):
        spool.append([line("<a/>", at=1100.0, well=True, number=1, origin=origin)], Seen(2, 1100.0))
    gap = list(troubles(config, catalog, 1100.0))
    assert any("HAS A GAP" in one and "were lost" in one for one in gap)
    assert not any("HAS A GAP" in one for one in troubles(config, catalog, 1100.0 + 8 * 86400))
    spool.close()
    catalog.close()
