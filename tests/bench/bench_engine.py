"""The network through every way there is to run it here: time for a slice, and what it moves.

    make bench-engine                                    all rows
    make bench-engine ARGS="--rounds 5 --json FILE"

The same slices go through all: of the real chest series where DICOM_NODE_REAL_DATA names their
folder, else of the phantom. A row is the median of some rounds; *all cores* is one slice after the
other with the threads of all cores, *side by side* one slice for each core with one thread each,
*CPU* the time of one thread, which a busy machine hardly changes.
Masks are those after the clean-up, of every slice of every series, held against torch in float32.
OpenVINO has its rows where the extra of that name is installed; in eight bits it takes the reach of
the layers from the weights. ONNX Runtime has rows where `onnx`, `onnxscript` and `onnxruntime` are
installed, which the project does not need; its eight bits are calibrated with other bodies than are
timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from dicom_node.domain.tool import ToolContext
from dicom_node.domain.volume import Volume, canonical
from dicom_node.iod.image import read_volume
from dicom_node.testing.phantom import chest_phantom
from dicom_node.tools import lungs
from dicom_node.tools.body import body_box
from dicom_node.tools.engine import Engine, Placed
from dicom_node.tools.manifest import read_manifest
from dicom_node.tools.openvino_network import model_of, the_library
from dicom_node.tools.predictor import LungSegmenter, Predictor
from dicom_node.tools.slices import neighbours
from dicom_node.tools.unet import REACH, SIDE, UNet, cut, fused, network_from, normalised

MODEL = Path(__file__).parents[2] / "models" / "lung-unet"
FP32 = Engine(device="cpu", precision="fp32")
SERIES = ("lung1-001", "lungdx-a0001", "cmb-crc-01068", "lidc-0001-part")
LIMIT = 0.002  # of Dice, against float32
CHANNELS_IN = UNet().stem.conv1.in_channels
WINDOW = read_manifest(MODEL).window_hu
Run = Callable[[Tensor], Tensor]
"""(B, 3, SIDE, SIDE) in HU -> logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run the network. make(threads) -> a function for inputs of any batch."""

    name: str
    make: Callable[[int], Run]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """ms: for a slice, by what is done at a time. dice: the lowest of all series and sides."""

    name: str
    ms: dict[str, float]
    dice: float | None
    changed: float | None


def the_network(weights: Path | None) -> tuple[UNet, list[float]]:
    """And the reach of its layers, or nothing."""
    state = load((weights or MODEL / "weights.safetensors").read_bytes())
    reach = state.get(REACH, torch.zeros(0)).tolist()
    return network_from(state).eval(), reach


def volumes() -> dict[str, Volume]:
    """In canonical axes."""
    folder = Path(os.environ.get("DICOM_NODE_REAL_DATA", "")) / "test"
    if not os.environ.get("DICOM_NODE_REAL_DATA") or not folder.is_dir():
        return {"phantom": chest_phantom(slices=93, spacing_mm=(3.0, 0.75, 0.75))[0]}
    found = {}
    for name in SERIES:
        files = sorted(p for p in (folder / name).rglob("*") if p.is_file())
        if files:
            found[name] = canonical(read_volume(files))[0]
    return found


def inputs_of(volume: Volume, at: Sequence[int]) -> Tensor:
    """What the network is shown of some slices, in HU."""
    heights = [n * volume.spacing_zyx_mm[0] for n in range(len(volume.voxels_zyx))]
    triples = [neighbours(heights)[n] for n in at]
    spacing = volume.spacing_zyx_mm[1], volume.spacing_zyx_mm[2]
    shown = []
    for triple in triples:
        planes = np.stack([volume.voxels_zyx[i] for i in triple]).astype(np.float32)
        box = body_box(volume.voxels_zyx[[triple[1]]], spacing)
        shown.append(cut(torch.from_numpy(planes)[None], box, WINDOW[0])[0])
    return torch.stack(shown)


# --- ways


def eager(network: UNet, how: str, *, channels_last: bool) -> Way:
    """how: fp32, autocast (to bf16), bf16 (weights converted once)."""

    def make(threads: int) -> Run:
        torch.set_num_threads(threads)
        copy = network_from(network.state_dict()).eval()
        ready = fused(copy).to(torch.bfloat16 if how == "bf16" else torch.float32)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        ready.to(memory_format=layout)

        @torch.inference_mode()
        def run(hu: Tensor) -> Tensor:
            kind = torch.bfloat16 if how == "bf16" else torch.float32
            x = normalised(hu, WINDOW).to(kind, memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
                return ready(x).float()

        return run

    layout = "channels last" if channels_last else "channels first"
    return Way(name=f"torch {how}, {layout}", make=make)


def compiled(network: UNet) -> Way:
    def make(threads: int) -> Run:
        torch.set_num_threads(threads)
        ready = fused(network_from(network.state_dict()).eval()).to(torch.bfloat16)
        ready.to(memory_format=torch.channels_last)
        quick = torch.compile(ready, dynamic=False, options={"freezing": True})

        @torch.inference_mode()
        def run(hu: Tensor) -> Tensor:
            x = normalised(hu, WINDOW).to(torch.bfloat16, memory_format=torch.channels_last)
            return quick(x).float()

        return run

    return Way(name="torch.compile bf16 (needs a C++ compiler)", make=make)


class Onnx:
    """The network as files for ONNX Runtime. calibration: `normalised`."""

    def __init__(self, network: UNet, calibration: Tensor, folder: Path) -> None:
        import onnx  # noqa: PLC0415  (need not be installed)
        from onnxruntime.quantization import (  # noqa: PLC0415
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        self.plain, self.int8 = folder / "network.onnx", folder / "network.int8.onnx"
        ready = fused(network_from(network.state_dict()).eval())
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.onnx.export(
            ready,
            (torch.zeros(2, CHANNELS_IN, SIDE, SIDE),),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
        program.save(str(self.plain))
        onnx.checker.check_model(str(self.plain))
        name = onnx.load(str(self.plain)).graph.input[0].name

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self.left = [{name: one[None].numpy()} for one in calibration]

            def get_next(self) -> dict[str, np.ndarray] | None:
                return self.left.pop() if self.left else None

        quantize_static(
            str(self.plain),
            str(self.int8),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    def ways(self) -> Iterator[Way]:
        for name, path in (("fp32", self.plain), ("int8", self.int8)):
            yield Way(name=f"ONNX Runtime {name}", make=lambda threads, p=path: ort(p, threads))


def ort(path: Path, threads: int) -> Run:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(hu: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: normalised(hu, WINDOW).numpy()})[0])

    return run


def openvino(network: UNet, hint: str, reach: Sequence[float]) -> Way:
    def make(threads: int) -> Run:
        ready: dict[int, tuple[Any, list[Any]]] = {}

        def compiled_for(batch: int) -> Any:
            ready_made = fused(network_from(network.state_dict()).eval())
            settings = {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": os.cpu_count() if threads == 1 else threads,
                "NUM_STREAMS": os.cpu_count() if threads == 1 else 1,  # a thread each
            }
            model = model_of(ready_made, batch, WINDOW, reach)
            return the_library().Core().compile_model(model, "CPU", settings)

        def run(hu: Tensor) -> Tensor:
            if len(hu) not in ready:
                ready[len(hu)] = (compiled_for(len(hu)), [])
            model, free = ready[len(hu)]
            request = free.pop() if free else model.create_infer_request()
            (found,) = request.infer({0: hu.contiguous().numpy()}).values()
            free.append(request)
            return torch.from_numpy(found)

        return run

    name = {"f32": "fp32"}.get(hint, hint)
    return Way(name=f"OpenVINO {'int8 and bf16' if reach else name}", make=make)


# --- figures


def cpu_ms(way: Way, x: Tensor) -> float:
    """CPU time of one thread for a slice: what a busy machine hardly changes."""
    run = way.make(1)
    run(x[:1])
    began = time.process_time()
    for one in x.split(1):
        run(one)
    return 1000 * (time.process_time() - began) / len(x)


def timed(run: Callable[[], object], slices: int, rounds: int) -> float:
    """Median ms for a slice."""
    run()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - began) / slices)
    return statistics.median(taken)


def times(way: Way, x: Tensor, rounds: int, batches: Sequence[int]) -> dict[str, float]:
    cores = os.cpu_count() or 1
    found = {"CPU": cpu_ms(way, x)}
    run = way.make(cores)
    for batch in batches:
        parts = [p for p in x.split(batch) if len(p) == batch]

        def one_by_one(parts: list[Tensor] = parts) -> None:
            for part in parts:
                run(part)

        what = "all cores" if batch == 1 else f"batches of {batch}"
        found[what] = timed(one_by_one, batch * len(parts), rounds)
    run = way.make(1)
    with ThreadPoolExecutor(cores) as pool:
        parts = list(x.split(1))
        found["side by side"] = timed(lambda: list(pool.map(run, parts)), len(parts), rounds)
    return found


class Through(Placed):
    """The usual way of a slice, with another runtime in the middle of it."""

    def __init__(self, network: nn.Module, engine: Engine, run: Run) -> None:
        super().__init__(network, engine, WINDOW)
        self._other = run

    @torch.inference_mode()
    def logits(self, hu: Tensor) -> Tensor:
        return self._other(hu)


def masks(network: UNet, run: Run, series: dict[str, Volume]) -> dict[str, np.ndarray]:
    predictor = Predictor(
        network_from(network.state_dict()),
        replace(FP32, threads=os.cpu_count() or 1),
        WINDOW,
        lambda n, e, _: Through(n, e, run),
    )
    segmenter = LungSegmenter(predictor)
    return {
        name: lungs.cleaned(segmenter(volume, ToolContext()).labels_zyx, volume)
        for name, volume in series.items()
    }


def against(found: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> tuple[float, float]:
    """Lowest Dice of a side of a series; voxels that differ, as a share of those of lung."""
    dice, changed, lung = [1.0], 0, 0
    for name, labels in true.items():
        changed += int(np.count_nonzero(found[name] != labels))
        lung += int(np.count_nonzero(labels))
        for side in (lungs.RIGHT, lungs.LEFT):
            a, b = found[name] == side, labels == side
            if b.any():
                dice.append(2 * np.count_nonzero(a & b) / (a.sum() + b.sum()))
    return float(min(dice)), changed / max(lung, 1)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--slices", type=int, default=32, help="that are timed")
    ask.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8])
    ask.add_argument("--weights", type=Path, help="others than those of the project")
    ask.add_argument("--only", default="", help="ways whose name has this in it")
    ask.add_argument("--no-masks", action="store_true")
    ask.add_argument("--no-times", action="store_true")
    ask.add_argument("--cpu-only", action="store_true", help="CPU time only: on a busy machine")
    ask.add_argument("--json", type=Path)
    args = ask.parse_args()
    (network, reach), series = the_network(args.weights), volumes()
    first = next(iter(series.values()))
    at = np.linspace(0, len(first.voxels_zyx) - 1, args.slices).round().astype(int)
    x = inputs_of(first, at.tolist())
    ways = [
        eager(network, "fp32", channels_last=False),
        eager(network, "fp32", channels_last=True),
        eager(network, "autocast", channels_last=False),
        eager(network, "autocast", channels_last=True),
        eager(network, "bf16", channels_last=False),
        eager(network, "bf16", channels_last=True),
        compiled(network),
    ]
    if find_spec("openvino"):
        ways += [openvino(network, hint, ()) for hint in ("f32", "bf16")]
        ways += [openvino(network, "bf16", reach)] if reach else []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
            phantom, _ = chest_phantom(slices=40, spacing_mm=(7.0, 1.4, 1.4))
            shown = calibration(inputs_of(phantom, range(0, 40, 2)))
            ways += Onnx(network, normalised(shown, WINDOW), Path(folder)).ways()
        true = {}
        if not args.no_masks:
            true = masks(network, ways[0].make(os.cpu_count() or 1), series)
        for way in [w for w in ways if args.only in w.name]:
            try:
                ms = {}
                if args.cpu_only:
                    ms = {"CPU": cpu_ms(way, x)}
                elif not args.no_times:
                    ms = times(way, x, args.rounds, args.batches)
                dice = changed = None
                if not args.no_masks:
                    run = way.make(os.cpu_count() or 1)
                    dice, changed = against(masks(network, run, series), true)
            except Exception as error:  # noqa: BLE001  # one that cannot run is a row, too
                print(f"{way.name}: {type(error).__name__}: {str(error)[:200]}")
                continue
            rows.append(Row(name=way.name, ms=ms, dice=dice, changed=changed))
            print(rows[-1], flush=True)
    report(rows, series)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def calibration(phantom: Tensor) -> Tensor:
    """Inputs from bodies that are not among those that are timed and compared."""
    folder = Path(os.environ.get("DICOM_NODE_REAL_DATA", "")) / "train"
    found = []
    for path in sorted(folder.glob("*/hu.npy"))[:40] if folder.is_dir() else []:
        meta = json.loads((path.parent / "meta.json").read_text())
        hu = np.load(path)
        affine = np.diag([*meta["spacing_zyx"], 1.0])
        volume = Volume(voxels_zyx=hu, affine_lps_mm=affine)
        at = sorted({len(hu) // 4, len(hu) // 2, 3 * len(hu) // 4})
        found.append(inputs_of(volume, at))
    return torch.cat(found) if found else phantom


def report(rows: Sequence[Row], series: dict[str, Volume]) -> None:
    slices = ", ".join(f"{name} ({len(v.voxels_zyx)})" for name, v in series.items())
    print(f"\n{os.cpu_count()} cores, {platform.processor() or platform.machine()}, "
          f"{datetime.now(UTC):%Y-%m-%d}; ms for a slice; {slices}")  # fmt: skip
    heads = list(rows[0].ms) if rows else []
    print("| " + " | ".join(("way", *heads, "Dice", "changed")) + " |")
    print("|---|" + "--:|" * (len(heads) + 2))
    for row in rows:
        cells = [f"{row.ms[head]:.1f}" for head in heads]
        if row.dice is not None and row.changed is not None:
            bad = " (!)" if 1 - row.dice > LIMIT else ""
            cells += [f"{row.dice:.5f}{bad}", f"{100 * row.changed:.3f} %"]
        print("| " + " | ".join((row.name, *cells)) + " |")


if __name__ == "__main__":
    main()
