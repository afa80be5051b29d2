"""One series through this node and through a published notebook's way, in turn, in the same run.

    make bench-inference
    make bench-inference ARGS="--slices 93 --rounds 5 --json result.json"
    python tests/bench/bench_inference.py --from result.json other.json --docs docs/benchmarks.md

Series: the chest phantom in so many slices (512 x 512, --slices), and real ones (--real) where
DICOM_NODE_REAL_DATA names their folder. The node works offline, from files to the file of a SEG,
and over DIMSE: a running node, a sender that costs next to nothing, a PACS stand-in. The notebook's
way is in baseline.py; every slice costs it the same, so it does a share of the slices in each round
(--share in all). Each way has processes of its own, which tell their peak memory. CPU always, and
CUDA where there is one. The pixels of every SEG of the node are compared: offline and over DIMSE,
whatever was worked ahead, they have to be the same.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pydicom
import torch
from pydicom.dataset import Dataset
from safetensors.torch import load

from baseline import SIDE, LargeUNet, Notebook, made_weights
from bench_job import Memory, Node, phantom_series, renamed, running_node
from dicom_node.testing.pacs import LocalPacs
from dicom_node.tools.unet import network_from
from floor import floor_of, gflop
from inference_report import report
from node_offline import LUNG_UNET, Offline

REAL = ("cmb-crc-01068", "lung1-001")
START, END = "<!-- bench-inference: begin -->", "<!-- bench-inference: end -->"


class Side:
    """An object in a process of its own: its methods are called by name."""

    def __init__(self, make: Callable[[], object]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make))
        self._process.start()
        other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()

    def call(self, name: str, *values: object, **named: object) -> Any:
        self._pipe.send((name, values, named))
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise SystemExit("a process of the benchmark died; see above") from None


def _serve(pipe: Any, make: Callable[[], object]) -> None:
    it = make()
    while True:
        try:
            name, values, named = pipe.recv()
        except EOFError:
            return
        pipe.send(_peaks() if name == "peaks" else getattr(it, name)(*values, **named))


def _peaks() -> dict[str, float]:
    """Of this process, MiB."""
    # not getrusage: that begins with what the parent had when this process was started
    status = Path("/proc/self/status").read_text().split()
    here = int(status[status.index("VmHWM:") + 1]) / 1024
    there = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else 0.0
    return {"memory": here, "device": there}


@dataclass(frozen=True, kw_only=True)
class Series:
    """name: for people."""

    name: str
    datasets: Sequence[Dataset]

    def written(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True)
        paths = []
        for n, dataset in enumerate(self.datasets):
            paths.append(folder / f"{n:04d}.dcm")
            pydicom.dcmwrite(paths[-1], dataset, enforce_file_format=True)
        return paths


def series_of(options: argparse.Namespace) -> Iterator[Series]:
    """One after the other: they take memory."""
    for slices in options.slices:
        yield Series(
            name="chest phantom", datasets=phantom_series(slices, options.size, options.kept)
        )
    data = os.environ.get("DICOM_NODE_REAL_DATA")
    for name in options.real if data else ():
        paths = sorted((Path(str(data)) / "test" / name).glob("*.dcm"))
        found = [pydicom.dcmread(path) for path in paths]
        images = [d for d in found if d.get("Modality") == "CT"]
        yield Series(name=name, datasets=sorted(images, key=lambda d: d.ImagePositionPatient[2]))


def measured(series: Series, device: str, options: argparse.Namespace, scratch: Path) -> dict:
    """Both ways on one series, on one device."""
    files = series.written(scratch / "series")
    weights = made_weights(scratch, wf=options.wf, depth=options.depth)
    found: dict[str, Any] = {
        "series": series.name,
        "slices": len(files),
        "device": device,
        "bytes": sum(file.stat().st_size for file in files),
        "rounds": options.rounds,
    }
    out = scratch / "out"
    out.mkdir()
    with LocalPacs(scratch / "pacs", ae_title="TESTPACS") as pacs:
        notebook = partial(
            Notebook, weights=weights, out=out, pacs=("127.0.0.1", pacs.port, "TESTPACS"),
            device=device, wf=options.wf, depth=options.depth,
        )  # fmt: skip
        node = partial(Offline, device, out, model=options.model)
        with Side(node) as ours, Side(notebook) as theirs:
            found |= alternating(ours, theirs, files, options)
    offline = Path(found.pop("result"))
    found["result_bytes"] = offline.stat().st_size
    pixels = pydicom.dcmread(offline).PixelData
    found["over_dimse"] = over_dimse(series, device, options, scratch, pixels)
    found["floor"] = floors(device, options, files, scratch)
    return found


def alternating(ours: Side, theirs: Side, files: list[Path], options: argparse.Namespace) -> dict:
    """Rounds of the node offline, and of the notebook's way with the network loaded once and
    for each slice."""
    share = min(options.share, len(files))
    chosen = [files[n * len(files) // share] for n in range(share)]
    ours.call("run", files[0].parent)  # not counted
    theirs.call("run", chosen[:1], -1, load_each=False)
    node, once, each = [], [], []
    for n in range(options.rounds):
        made = ours.call("run", files[0].parent)
        node.append(made.seconds)
        mine = chosen[n :: options.rounds]
        for number, part, load_each, rows in (
            (2 * n, mine, False, once),
            (2 * n + 1, mine[: options.each], True, each),
        ):
            seconds = theirs.call("run", part, number, load_each=load_each)
            rows.append({"slices": len(part), "seconds": seconds})
    return {
        "result": made.result,
        "found": made.found,
        "node": node,
        "node_peaks": ours.call("peaks"),
        "notebook_once": once,
        "notebook_each": each,
        "notebook_peaks": theirs.call("peaks"),
    }


def over_dimse(
    series: Series, device: str, options: argparse.Namespace, scratch: Path, pixels: bytes
) -> list[dict]:
    """The same series sent to a running node, at each pace."""
    rows = []
    for number, (pace_ms, ahead) in enumerate(ways(options)):
        engine = f'device = "{device}"' + ("" if ahead else "\nahead_mib = 0")
        folder, models = scratch / f"node{number}", options.model.resolve().parent
        with running_node(folder, engine=engine, models=models) as node:
            memory = Memory(node.pid)
            try:
                node.job(renamed(series.datasets, 0))  # not counted: the model is loaded for it
                jobs = [
                    one_job(node, renamed(series.datasets, 1 + n), pace_ms, pixels)
                    for n in range(options.rounds)
                ]
            finally:
                peak = memory.stop()
        rows.append(
            {
                "pace_ms": pace_ms,
                "ahead": ahead,
                "jobs": [seconds for seconds, _ in jobs],
                "equal": all(equal for _, equal in jobs),
                "peak_mib": peak / 2**20,
            }
        )
    return rows


def ways(options: argparse.Namespace) -> list[tuple[float, bool]]:
    """Pace, and whether anything is worked ahead."""
    return [(0.0, False), *((pace, True) for pace in options.paces)]


def one_job(
    node: Node, series: list[Dataset], pace_ms: float, pixels: bytes
) -> tuple[dict[str, float], bool]:
    job = node.job(series, pace_s=pace_ms / 1000)
    return job.seconds, pydicom.dcmread(job.result).PixelData == pixels


def floors(
    device: str, options: argparse.Namespace, files: list[Path], scratch: Path
) -> dict[str, Any]:
    """The machine's peaks, and what the networks cost at them."""
    node = network_from(load((options.model / "weights.safetensors").read_bytes())).eval()
    inputs = node.stem.conv1.in_channels
    tiny = {"channels": 32, "side": 16} if options.size < 512 else {}
    precision = Offline(device, scratch, model=options.model).precision
    notebook = LargeUNet(wf=options.wf, depth=options.depth).eval()
    return {
        **floor_of(device, files, scratch, **tiny).as_dict(),
        "node_gflop": gflop(node, (1, inputs, SIDE, SIDE)),
        "notebook_gflop": gflop(notebook, (1, 1, SIDE, SIDE)),
        "precision": precision,
    }


def machine() -> dict[str, Any]:
    """What all numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": len(os.sched_getaffinity(0)),
        "processor": names[0] if names else "unknown",
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "",
        "torch": torch.__version__,
        "openvino": version("openvino") if find_spec("openvino") else "",
    }


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("--slices", type=int, nargs="*", default=[93, 512])
    ask.add_argument("--real", nargs="*", default=list(REAL), help="names of real series")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--share", type=int, default=93, help="slices of the notebook's way, in all")
    ask.add_argument("--each", type=int, default=4, help="of them with a network anew, per round")
    ask.add_argument("--paces", type=float, nargs="+", default=[0.0, 30.0], help="ms an image")
    ask.add_argument("--json", type=Path, help="write the measurements there")
    ask.add_argument("--from", type=Path, nargs="+", dest="earlier", help="measure nothing")
    ask.add_argument("--docs", type=Path, help="write the report into this document")
    ask.add_argument("--kept", type=Path, help="a folder for phantoms, to draw each once")
    ask.add_argument("--model", type=Path, default=LUNG_UNET, help="folder of model lung-unet")
    ask.add_argument("--size", type=int, default=512, help="rows and columns of the phantom")
    ask.add_argument("--wf", type=int, default=6, help="log2 of the notebook's first channels")
    ask.add_argument("--depth", type=int, default=5, help="levels of the notebook's network")
    options = ask.parse_args()
    if options.earlier:
        runs = [json.loads(path.read_text()) for path in options.earlier]
        given = {"machine": runs[0]["machine"], "rows": [r for run in runs for r in run["rows"]]}
    else:
        rows = []
        for series in series_of(options):
            for device in ("cpu", *(["cuda:0"] if torch.cuda.is_available() else [])):
                with tempfile.TemporaryDirectory() as scratch:
                    rows.append(measured(series, device, options, Path(scratch)))
        given = {"machine": machine(), "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(given, indent=1, default=str))
    text = report(given)
    print(text)
    if options.docs:
        before, _, rest = options.docs.read_text("utf-8").partition(START)
        after = rest.partition(END)[2]
        options.docs.write_text(f"{before}{START}\n{text}\n{END}{after}", "utf-8")
    return 0 if all(way["equal"] for row in given["rows"] for way in row["over_dimse"]) else 1


if __name__ == "__main__":
    sys.exit(main())
