"""This node on a folder of files, as `dicom-node process` does it, with a watch at each step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dicom_node.iod.image import Reading
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node import offline
from dicom_node.node.applicability import judges
from dicom_node.node.decode import Decoders
from dicom_node.tools import guard, lung_tool, lungs
from dicom_node.tools.manifest import read_manifest
from dicom_node.tools.predictor import Predictor
from dicom_node.tools.registry import build_tool

LUNG_UNET = Path(__file__).parents[2] / "models" / "lung-unet"
Steps = Mapping[str, Sequence[tuple[object, str]]]
INNER: Steps = {
    "clean-up": [(lungs, "cleaned")],
    "measure": [(lungs, "measured"), (lungs, "remarks"), (lung_tool, "canonical")],
    "guard": [(guard, "doubts")],
    "network": [(Predictor, "found")],
}
"""Functions that belong to a step. Some slices are prepared while the network works on others: the
two are not told apart. What is left of the tool's time is *prepare*."""
PRECISIONS = {"fp32", "bf16", "fp16", "int8"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """seconds: by step. result: the file. found: notes and doubts of the result."""

    seconds: dict[str, float]
    result: Path
    found: tuple[str, ...]


class Offline:
    """The node's own functions in this process. model: a folder with model.toml."""

    def __init__(self, device: str, out: Path, *, model: Path = LUNG_UNET, threads: int = 0):
        manifest = read_manifest(model)
        self._out, self._threads = out, threads
        self._judge = judges({manifest.id: manifest})[manifest.id]
        began = time.perf_counter()
        self._tool = build_tool(manifest, device=device, threads=threads, runtime="auto")
        self.load_s = time.perf_counter() - began

    @property
    def precision(self) -> str:
        """Of the network's arithmetic."""
        (known,) = PRECISIONS & set(self._tool.version_id().rpartition(".")[2].split("-"))
        return known

    def run(self, folder: Path) -> Made:
        """The one series of a folder, from its files to the file of its SEG."""
        inner: Counter[str] = Counter()
        began = time.perf_counter()
        with watched(INNER, inner), Decoders() as decoders:
            found, _ = offline.find_series(folder)
            read = time.perf_counter()
            (answer,) = offline.answers(
                found, lambda: self._tool, self._judge, SegSettings(),
                reading=Reading(threads=self._threads or 2, decode=decoders),
                progress=lambda _done, _total: None,
            )  # fmt: skip
        if answer.outcome is None:
            raise SystemExit(f"the series has no result: {answer.reason}")
        saved = time.perf_counter()
        (produced,) = answer.outcome.produced
        result = self._out / f"{produced.sop_instance_uid}.dcm"
        result.write_bytes(produced.data)
        ended = time.perf_counter()
        known = answer.outcome.seconds
        seconds = {
            "read": read - began,
            "decode": known["decode"],
            "prepare": known["infer"] - sum(inner.values()),
            **{step: inner[step] for step in INNER},
            "encode": known["encode"],
            "save": ended - saved,
        }
        seconds["other"] = ended - began - sum(seconds.values())
        said = (*answer.outcome.notes, *answer.outcome.doubts)
        return Made(seconds=seconds, result=result, found=tuple(dict.fromkeys(said)))


@contextmanager
def watched(steps: Steps, seconds: Counter[str]) -> Iterator[None]:
    """Adds up, in `seconds`, what is spent in the functions of each step."""

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*values, **named)
            finally:
                seconds[step] += time.perf_counter() - began

        return call

    with ExitStack() as stack:
        for step, functions in steps.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, timed(step, getattr(owner, name))))
        yield
