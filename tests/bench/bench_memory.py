"""What a long series takes: peak memory of a process that does what a performer does for a step.

    make bench-memory                           1,000 and 3,000 slices of 512 x 512
    make bench-memory ARGS="--slices 200"

A process of its own reads the files, runs the network, makes the SEG; its peak resident memory is
read after each part. *kept* is the same with all planes decoded before, as working ahead has them
(within `[engine] ahead_mib`). The series is the chest phantom with each plane repeated, in files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dicom_node.domain.volume import Volume
from dicom_node.iod.image import read_plane
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node import produce as produce_module
from dicom_node.node.ahead import Kept
from dicom_node.node.offline import find_series
from dicom_node.node.produce import produce
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import Header, ct_series, write_files
from dicom_node.tools.manifest import read_manifest
from dicom_node.tools.registry import build_tool

MODEL = Path(__file__).parents[2] / "models" / "lung-unet"
PLANES = 50  # of the phantom


def write_long_series(folder: Path, slices: int) -> None:
    """A part at a time: this process is not the one that is measured, but has no room either."""
    phantom, _ = chest_phantom(slices=PLANES, spacing_mm=(280 / PLANES, 0.75, 0.75))
    each = -(-slices // PLANES)
    affine = phantom.affine_lps_mm.copy()
    affine[:3, 0] /= each
    header = Header(seed=7, series="long")
    for first in range(0, slices, each):
        count = min(each, slices - first)
        voxels = np.repeat(phantom.voxels_zyx[first // each][None], count, axis=0)
        here = affine.copy()
        here[:3, 3] += first * affine[:3, 0]
        datasets = ct_series(Volume(voxels_zyx=voxels, affine_lps_mm=here), header=header)
        for n, dataset in enumerate(datasets):
            dataset.SOPInstanceUID = header.instance_uid(first + n)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        write_files(folder / f"{first:05d}", datasets)


def peak_mib() -> float:
    """Of this process, since its start."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def child(folder: Path, model: Path, *, ahead: bool) -> None:
    """Does the work, and prints one line of JSON."""
    tool = build_tool(read_manifest(model), device="cpu", runtime="auto")
    peaks = {"model": peak_mib()}
    (series,), _ = find_series(folder)
    planes = {s.sha256: read_plane(s.path) for s in series.sources} if ahead else {}
    timed = produce_module._timed

    def watched(seconds: dict[str, float], part: str):
        class Watch:
            def __enter__(self) -> None:
                self.inner = timed(seconds, part)
                self.inner.__enter__()

            def __exit__(self, *error: object) -> None:
                self.inner.__exit__(*error)
                peaks[part] = peak_mib()

        return Watch()

    produce_module._timed = watched
    began = time.perf_counter()
    kept = Kept(planes=planes, memory={}) if ahead else None
    outcome = produce(series.sources, tool, SegSettings(), kept=kept)
    lung = {m.segment: round(m.value) for r in outcome.results for m in r.measurements}
    print(json.dumps({"peaks": peaks, "seconds": time.perf_counter() - began, "ml": lung}))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--slices", type=int, nargs="*", default=[1000, 3000])
    ask.add_argument("--model", type=Path, default=MODEL)
    ask.add_argument("--child", type=Path)
    ask.add_argument("--ahead", action="store_true")
    args = ask.parse_args()
    if args.child:
        child(args.child, args.model, ahead=args.ahead)
        return
    print("| slices | kept | MiB with the model | decoded | inferred | encoded | s |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    for slices in args.slices:
        with tempfile.TemporaryDirectory() as folder:
            write_long_series(Path(folder), slices)
            for ahead in (False, True):
                command = [sys.executable, __file__, "--child", folder, "--model", args.model]
                done = subprocess.run(
                    [*map(str, command), *(["--ahead"] if ahead else [])],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise SystemExit(done.stderr)
                said = json.loads(done.stdout.splitlines()[-1])
                peaks = said["peaks"]
                cells = [f"{peaks[p]:.0f}" for p in ("model", "decode", "infer", "encode")]
                print(f"| {slices} | {'yes' if ahead else 'no'} | {' | '.join(cells)} | "
                      f"{said['seconds']:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
