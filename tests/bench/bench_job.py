"""The whole job, timed: first C-STORE to the SEG in the PACS, and the memory it takes.

    python tests/bench/bench_job.py [--slices 93 250] [--rounds 3] [--json FILE]

The node runs as a user runs it (`dicom-node serve`, a performer process of its own), the series is
the chest phantom (512 x 512), sender and PACS are on the same machine. The quiet time is shown and
not counted: *job* is *total* without it, *last* what is left of *job* after the last instance came.
A first job is not counted: the model is loaded for it. Memory is the sum of the resident sets of
the node's processes, sampled ten times a second; pages that processes share count in each of them.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom.dsutils import encode

from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.volume import Volume
from dicom_node.testing.pacs import LocalPacs
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import Header, ct_series
from processes import resident, tree
from sending import Instance, Proposal, Sender

MODELS = Path(__file__).resolve().parents[2] / "models"
CONFIG = """
[node]
port = {port}
data_dir = "var"
models_dir = "{models}"

[receive]
min_free_gib = 0.2

[engine]
{engine}

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
PARTS = (
    *("received", "quiet", "wait", "decode", "infer", "encode", "delivered"),
    *("total", "job", "last"),
)


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


@dataclass(frozen=True, kw_only=True)
class Job:
    """One series, sent and answered. seconds: by part. result: the file in the PACS."""

    seconds: dict[str, float]
    result: Path


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that runs as a user runs it, and the PACS that it answers to."""

    folder: Path
    port: int
    pid: int
    pacs: LocalPacs

    def job(self, series: Sequence[Dataset], *, pace_s: float = 0.0) -> Job:
        """Send a series, wait for its SEG, read the times from the node's events."""
        held = set(self.pacs.instances())
        sender = Sender(self.port, list(enumerate(map(_instance, series))), _proposal(series),
                        pace_s=pace_s)  # fmt: skip
        began = time.time()
        sender.run()
        sender.release()
        if sender.failures or not self.pacs.wait_for(len(held) + 1, 600):
            said = (self.folder / "node.log").read_text("utf-8", "replace").splitlines()[-20:]
            raise SystemExit("\n".join(("the job did not end; the node says:", *said)))
        ended = time.time()
        (result,) = set(self.pacs.instances()) - held
        events = self._events(series[0].SeriesInstanceUID)
        return Job(seconds=times(events, began, ended), result=result)

    def _events(self, series_uid: str) -> list[e.Event]:
        catalog = Catalog(self.folder / "var" / "catalog.db")
        try:
            return [event for _, event in catalog.views.events_of(series_uid)]
        finally:
            catalog.close()


def times(events: Sequence[e.Event], began: float, ended: float) -> dict[str, float]:
    """Where the time of a job went."""
    arrived = [x.at for x in events if isinstance(x, e.InstanceArrived)]
    scheduled = next(x.at for x in events if isinstance(x, e.StepScheduled))
    done = next(x for x in events if isinstance(x, e.StepCompleted))
    return times_of(arrived=arrived[-1], scheduled=scheduled, done=done, span=(began, ended))


def times_of(
    *, arrived: float, scheduled: float, done: e.StepCompleted, span: tuple[float, float]
) -> dict[str, float]:
    """arrived: the last instance. span: from the first C-STORE to the SEG in the PACS.

    job: all but `quiet`; last: what of it comes after the last instance.
    """
    began, ended = span
    quiet = scheduled - arrived
    return {
        "received": arrived - began,
        "quiet": quiet,
        "wait": done.at - scheduled - sum(done.seconds.values()),
        **done.seconds,
        "delivered": ended - done.at,
        "total": ended - began,
        "job": ended - began - quiet,
        "last": ended - arrived - quiet,
    }


def _proposal(series: Sequence[Dataset]) -> Proposal:
    (kind,) = {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in series}
    return Proposal(calling_ae="TESTPACS", called_ae="DICOMNODE",
                    sop_class_uid=kind[0], transfer_syntax_uid=kind[1])  # fmt: skip


def _instance(dataset: Dataset) -> Instance:
    syntax = dataset.file_meta.TransferSyntaxUID
    data = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
    return Instance(sop_instance_uid=dataset.SOPInstanceUID, data_set=data)


@contextmanager
def running_node(folder: Path, *, engine: str = "", models: Path = MODELS) -> Iterator[Node]:
    """A node with nothing in it, and a PACS. engine: lines of the section `engine`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with LocalPacs(folder / "pacs", ae_title="TESTPACS") as pacs:
        path = folder / "ae_config.toml"
        path.write_text(CONFIG.format(port=port, pacs=pacs.port, engine=engine, models=models))
        with (folder / "node.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dicom_node.cli.main", "serve", "--config", str(path)],
                stdout=log,
                stderr=log,
            )
        try:
            wait_for_port(port)
            yield Node(folder=folder, port=port, pid=process.pid, pacs=pacs)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def renamed(series: Sequence[Dataset], number: int) -> list[Dataset]:
    """The same images as another series of another study."""
    copies = []
    for dataset in series:
        copy = Dataset(dataset)
        copy.file_meta = FileMetaDataset(dataset.file_meta)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(copy, keyword, derived_uid("bench", str(number), dataset[keyword].value))
        copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
        copies.append(copy)
    return copies


def phantom_series(slices: int, size: int = 512, kept: Path | None = None) -> list[Dataset]:
    """The chest phantom, apex to base, in so many slices.

    kept: a folder; what was drawn once is found there again, for drawing takes minutes.
    """
    apart_mm, pixel_mm = 279 / slices, 384 / size
    header = Header(series=f"bench {slices}")
    file = None if kept is None else kept / f"phantom-{slices}-{size}.npz"
    if file is not None and file.exists():
        with np.load(file) as found:
            volume = Volume(voxels_zyx=found["voxels"], affine_lps_mm=found["affine"])
    else:
        volume, _ = chest_phantom(slices, size, (apart_mm, pixel_mm, pixel_mm))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, voxels=volume.voxels_zyx, affine=volume.affine_lps_mm)
    return ct_series(volume, header=header)


def bench(slices: int, rounds: int, folder: Path, kept: Path | None) -> dict:
    series = phantom_series(slices, kept=kept)
    with running_node(folder) as node:
        memory = Memory(node.pid)
        try:
            node.job(renamed(series, 0))  # not counted: the model is loaded for it
            jobs = [node.job(renamed(series, n + 1)).seconds for n in range(rounds)]
        finally:
            peak = memory.stop()
    median = {part: statistics.median(job[part] for job in jobs) for part in PARTS}
    return {"slices": slices, "rounds": rounds, "median_s": median,
            "jobs_s": [job["job"] for job in jobs],
            "last_s": [job["last"] for job in jobs], "peak_mib": peak / 2**20}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[93, 250])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kept", type=Path, help="a folder for phantoms, to draw each once")
    options = parser.parse_args()
    rows = []
    for slices in options.slices:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(bench(slices, options.rounds, Path(folder), options.kept))
    print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, "
          f"{datetime.now(UTC):%Y-%m-%d}, median of {options.rounds} jobs, seconds")  # fmt: skip
    print("| slices | " + " | ".join(PARTS) + " | last, all jobs | peak MiB |")
    print("|--:|" + "--:|" * (len(PARTS) + 2))
    for row in rows:
        cells = [f"{row['median_s'][part]:.2f}" for part in PARTS]
        jobs = ", ".join(f"{job:.2f}" for job in row["last_s"])
        print(f"| {row['slices']} | {' | '.join(cells)} | {jobs} | {row['peak_mib']:.0f} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
