"""`dicom-node serve` as a process of its own: started, stopped, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.cli.common import console
from dicom_node.dimse.scu import echo
from dicom_node.domain.records import Peer
from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are in /proc")

FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
COMMAND = (sys.executable, "-m", "dicom_node.cli.main")


def wait_until(so: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, f"it did not happen in time: {what}"
        threading.Event().wait(0.05)


def children(pid: int) -> list[int]:
    """The living children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process, other than a zombie that waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Served:
    """A node as a process."""

    def __init__(self, config: Path, port: int, log: Path, out: Path | None = None) -> None:
        self.config, self.port, self.log = config, port, log
        self.address = ("127.0.0.1", port)
        with log.open("ab") as errors, (out or log.with_suffix(".out")).open("wb") as table:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=table,
                stderr=errors,
            )
        self.performers: list[int] = []

    def echoes(self) -> bool:
        peer = Peer(name="node", ae_title="DICOMNODE", host="127.0.0.1", port=self.port)
        return echo(peer=peer, calling_ae="TESTPACS").succeeded

    def ready(self) -> Served:
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            self.performers = children(self.process.pid)
            return bool(self.performers) and self.echoes()

        wait_until(answers, "the node answers C-ECHO")
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def printed(self) -> str:
        return self.log.with_suffix(".out").read_text()

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return ask(*words, "--config", self.config)

    def tells(self, uid: str) -> str:
        """The verdict of `why`."""
        done = self.ask("why", uid, "--json")
        return str(json.loads(done.stdout)[0]["verdict"]) if done.returncode == 0 else ""


def ask(*words: object) -> subprocess.CompletedProcess[str]:
    """A command of the node, to its end."""
    command = [*COMMAND, *(str(w) for w in words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def serve(tmp_path, build, free_port, pacs):
    """serve(more=) starts a node, or the same one again; all of them are dead at the end."""
    port = free_port()
    peers = build.peer_table("pacs", "TESTPACS", pacs.port)
    started: list[Served] = []

    def begin(more: str = "", out: Path | None = None) -> Served:
        config = build.write_node(tmp_path / "node", peers=peers, more=more, port=port)
        started.append(Served(config, port, tmp_path / "node.log", out))
        return started[-1]

    yield begin
    for served in started:
        if served.process.poll() is None:
            served.kill()
        for pid in served.performers:
            wait_until(lambda pid=pid: not alive(pid), "a performer goes with its node")


def test_it_says_what_it_is_answers_and_ends_when_told(serve, pacs, tmp_path):
    node = serve().ready()
    wait_until(node.printed, "the table")
    table = node.printed()
    assert max(len(line) for line in table.splitlines()) <= 80
    for word in ("DICOMNODE", str(node.port), "TESTPACS", "lungs", "lung-threshold", "device"):
        assert word in table, word
    assert str(pacs.port) in table
    second = ask("serve", "--config", node.config)
    assert second.returncode == 2
    assert "another node uses the data folder" in second.stderr
    assert "Traceback" not in second.stderr
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(20) == 0
    assert not any(alive(pid) for pid in node.performers)
    assert "Traceback" not in node.log.read_text()
    assert "ended:" not in node.log.read_text(), "no performer died"
    assert "the node was stopped in order" in node.log.read_text()


def test_where_its_table_cannot_be_written_it_runs_and_ends_all_the_same(serve):
    node = serve(out=Path("/dev/full")).ready()
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(20) == 0
    assert "Traceback" not in node.log.read_text()


def test_what_it_prints_is_as_it_is_written(capsys: pytest.CaptureFixture[str]):
    console().print("configure [audit], add [[route]], v[/r]x")
    assert capsys.readouterr().out == "configure [audit], add [[route]], v[/r]x\n"


def test_a_port_that_is_taken_is_said_in_one_sentence(build, pacs, tmp_path):
    config = build.write_node(tmp_path / "node", port=pacs.port)
    done = ask("serve", "--config", config)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{pacs.port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_acknowledged_before_a_kill_is_segmented_after_it(serve, pacs, tmp_path):
    node = serve().ready()
    series = a_series(6, header=Header(seed=1))
    uid = series[0].SeriesInstanceUID
    assert set(send_series(node.address, objects=series, abort_after=6, **FROM_PACS)) == {0}
    node.kill()
    assert "the node was stopped in order" not in node.log.read_text()
    assert not pacs.instances()
    again = serve().ready()
    for pid in node.performers:
        wait_until(lambda pid=pid: not alive(pid), "a performer goes with its node", 20)
    assert pacs.wait_for(1, 90), again.log.read_text()
    (seg,) = pacs.datasets()
    referenced = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {r.ReferencedSOPInstanceUID for r in referenced} == {d.SOPInstanceUID for d in series}
    wait_until(lambda: "pacs has it" in again.tells(uid), "the answer of the PACS is recorded")
    assert list(pacs.stored_counts.values()) == [1]
    assert "6 instances" in again.ask("why", uid).stdout


def test_a_performer_that_hangs_goes_with_a_killed_node_and_its_step_is_done_again(
    serve, pacs, tmp_path
):
    node = serve().ready()
    series = a_series(6, header=Header(seed=2))
    uid = series[0].SeriesInstanceUID
    send_series(node.address, objects=series, abort_after=6, **FROM_PACS)
    kept = sorted(p for p in (tmp_path / "node/var/spool").rglob("*") if p.is_file())[0]
    aside = tmp_path / "aside"
    kept.rename(aside)
    os.mkfifo(kept)  # who reads it waits for ever
    wait_until(lambda: "in progress" in node.tells(uid), "the step hangs", 30)
    node.kill()
    kept.unlink()
    aside.rename(kept)
    serve().ready()
    assert pacs.wait_for(1, 90)
    for pid in node.performers:
        wait_until(lambda pid=pid: not alive(pid), "a performer goes with its node", 30)
    assert list(pacs.stored_counts.values()) == [1]
