"""The whole job, timed: first C-STORE to the SEG in the PACS, and the memory it takes.

    python tests/bench/bench_job.py [--slices 93 250] [--rounds 3] [--json FILE]

The node runs as a user runs it (`dicom-node serve`, a performer process of its own), the series is
the chest phantom (512 x 512), sender and PACS are on the same machine. The quiet time is shown and
not counted. Memory is the sum of the resident sets of the node's processes, sampled ten times a
second; pages that processes share count in each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain.volume import Volume
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import Header, ct_series

CONFIG = """
[node]
port = {port}
data_dir = "var"

[receive]
min_free_gib = 0.2

[[peer]]
name = "pacs"
ae_title = "TESTPACS"
host = "127.0.0.1"
port = {pacs}

[[route]]
name = "lungs"
when = 'Modality == "CT"'
tool = "lung-unet"
results = ["seg"]
to = ["@sender"]
"""
PARTS = ("received", "quiet", "wait", "decode", "infer", "encode", "delivered", "total", "job")


class Memory:
    """Samples the resident memory of a process and its children until stopped."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self.peak_bytes

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.peak_bytes = max(self.peak_bytes, sum(map(resident, tree(self._pid))))


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [pid, *(p for text in texts for child in text.split() for p in tree(int(child)))]


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def one_job(volume: Volume, seed: int, folder: Path, node_port: int, pacs: LocalPacs) -> dict:
    """Send one series, wait for its SEG, read the times from the node's events."""
    series = ct_series(volume, header=Header(seed=seed, series=f"bench {seed}"))
    wanted = len(pacs.instances()) + 1
    began = time.time()
    statuses = send_series(("127.0.0.1", node_port), "DICOMNODE", series, calling_ae="TESTPACS")
    if set(statuses) != {0} or not pacs.wait_for(wanted, 600):
        raise SystemExit("the job did not end; see node.log")
    ended = time.time()
    catalog = Catalog(folder / "var" / "catalog.db")
    time.sleep(0.5)
    events = [x for _, x in catalog.views.events_of(series[0].SeriesInstanceUID)]
    catalog.close()
    arrived = [x.at for x in events if isinstance(x, e.InstanceArrived)]
    scheduled = next(x.at for x in events if isinstance(x, e.StepScheduled))
    done = next(x for x in events if isinstance(x, e.StepCompleted))
    quiet = scheduled - arrived[-1]
    return {
        "received": arrived[-1] - began,
        "quiet": quiet,
        "wait": done.at - scheduled - sum(done.seconds.values()),
        **done.seconds,
        "delivered": ended - done.at,
        "total": ended - began,
        "job": ended - began - quiet,
    }


def bench(slices: int, rounds: int, folder: Path) -> dict:
    volume, _ = chest_phantom(slices=slices, spacing_mm=(279 / slices, 0.75, 0.75))
    port = free_port()
    with LocalPacs(folder / "pacs", ae_title="TESTPACS") as pacs:
        path = folder / "ae_config.toml"
        path.write_text(CONFIG.format(port=port, pacs=pacs.port))
        with (folder / "node.log").open("wb") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "dicom_node.cli.main", "serve", "--config", str(path)],
                stdout=log,
                stderr=log,
            )
        memory = Memory(node.pid)
        try:
            wait_for_port(port)
            time.sleep(15)  # the model is loaded when the node has been up for a while
            jobs = [one_job(volume, n, folder, port, pacs) for n in range(rounds)]
        finally:
            peak = memory.stop()
            node.send_signal(signal.SIGTERM)
            node.wait(60)
    median = {part: statistics.median(job[part] for job in jobs) for part in PARTS}
    return {"slices": slices, "rounds": rounds, "median_s": median,
            "jobs_s": [job["job"] for job in jobs], "peak_mib": peak / 2**20}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[93, 250])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for slices in options.slices:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(bench(slices, options.rounds, Path(folder)))
    print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, "
          f"{datetime.now(UTC):%Y-%m-%d}, median of {options.rounds} jobs, seconds")  # fmt: skip
    print("| slices | " + " | ".join(PARTS) + " | all jobs | peak MiB |")
    print("|--:|" + "--:|" * (len(PARTS) + 2))
    for row in rows:
        cells = [f"{row['median_s'][part]:.2f}" for part in PARTS]
        jobs = ", ".join(f"{job:.2f}" for job in row["jobs_s"])
        print(f"| {row['slices']} | {' | '.join(cells)} | {jobs} | {row['peak_mib']:.0f} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
