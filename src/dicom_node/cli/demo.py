"""`demo`: the whole way of one CT series, over DIMSE, with a picture at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicom_node.cli.common import (
    config_option,
    console,
    json_option,
    print_json,
    progress_console,
)
from dicom_node.cli.demo_folder import MARK, empty
from dicom_node.cli.demo_pacs import ConfiguredPacs, DemoPacs, test_pacs
from dicom_node.cli.demo_series import DemoSeries, given_series, phantom_series
from dicom_node.config.load import Config, load
from dicom_node.decide.geometry import Fault
from dicom_node.decide.supersede import DELIVERED
from dicom_node.domain import events as e
from dicom_node.domain.errors import NodeError
from dicom_node.domain.states import SeriesState
from dicom_node.iod.image import Reading, read_volume
from dicom_node.iod.picture import contact_sheet
from dicom_node.iod.seg_read import read_segmentation
from dicom_node.node import log
from dicom_node.node.clock import SystemClock
from dicom_node.node.decode import Decoders
from dicom_node.node.produce import judge
from dicom_node.node.serve import RunningNode, start
from dicom_node.node.why import stories
from dicom_node.tools.registry import load_models

WAIT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the demo has to show."""

    seg: Path
    picture: Path
    volumes_ml: dict[str, float]
    dice: dict[str, float]
    seconds: dict[str, float]
    story: str


@click.command()
@click.option("--input", "folder", type=click.Path(exists=True, path_type=Path, file_okay=False),
              help="A folder with a CT series. Default: a computed chest phantom.")  # fmt: skip
@click.option("--out", default="out/demo", show_default=True, help="Where everything goes.",
              type=click.Path(path_type=Path, file_okay=False))  # fmt: skip
@click.option("--pacs", "pacs_name", help="A configured peer as PACS. Default: a built-in one.")
@click.option("--tool", "tool_id", default="lung-unet", show_default=True, help="Id of a model.")
@config_option
@json_option
def demo(
    folder: Path | None,
    out: Path,
    pacs_name: str | None,
    tool_id: str,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """Show the whole job: PACS to node, model, segmentation back in the PACS, picture.

    A chest CT goes into a PACS, the PACS sends it to the node by C-MOVE, the node's model finds
    the lungs, the SEG comes back into the PACS and is read from there.
    """
    base = load(config_path)
    empty(out)
    with ExitStack() as stack, _Steps(quiet=as_json) as steps:
        log_file = stack.enter_context((out / "node.log").open("a", encoding="utf-8"))
        stack.enter_context(log.configured(to=log_file))
        with steps.step("a CT series"):
            series = given_series(folder) if folder else phantom_series(out / "phantom")
        with steps.step("a PACS and a node"):
            pacs: DemoPacs = (
                ConfiguredPacs(base, pacs_name)
                if pacs_name
                else stack.enter_context(test_pacs(out / "pacs"))
            )
            path = _write_config(base, pacs, tool_id, out)
            node = start(load(path), log_to=log_file)
            stack.callback(node.stop)
            pacs.knows(node.config.node.ae_title, node.port)
        shown = _run(node, pacs, series, out, steps)
    if as_json:
        print_json({**_plain(shown), "series": series.title})
    else:
        _print(shown, series, out)
    return 0


def _run(node: RunningNode, pacs: DemoPacs, series: DemoSeries, out: Path, steps: _Steps) -> Shown:
    with steps.step(f"C-STORE {len(series.paths)} images into {pacs.name}") as seconds:
        pacs.store(series.paths)
    steps.seconds["into the PACS"] = seconds()
    moved_at = SystemClock().now()
    with steps.step(f"C-MOVE {pacs.name} -> {node.config.node.ae_title}"):
        pacs.move(series.study_uid, series.series_uid, node.config.node.ae_title)
    with steps.step("the model, and the SEG back"):
        seg_uid = _wait_for_result(node, series)
    with steps.step(f"C-GET the SEG from {pacs.name}"):
        seg = pacs.get(series.study_uid, seg_uid, out / "seg.dcm")
    with steps.step("a picture"):
        return _shown(node, series, seg, out, steps, moved_at)


def _wait_for_result(node: RunningNode, series: DemoSeries) -> str:
    """The SOP Instance UID of the result, once the PACS has it. NodeError with the story if not."""
    deadline = time.monotonic() + WAIT_S
    views = node.catalog.views
    while time.monotonic() < deadline:
        for result in views.results(series.series_uid):
            states = {d.state for d in views.deliveries(result.sop_instance_uid)}
            if states and states <= DELIVERED:
                return result.sop_instance_uid
            if states & {"PARKED", "DEAD"}:
                break
        if _is_over(node, series):
            break
        _pause()
    told = [story.verdict for story in stories(node.catalog, series.series_uid)]
    raise NodeError(f"no segmentation came: {'; '.join(told) or 'the node received nothing'}")


def _is_over(node: RunningNode, series: DemoSeries) -> bool:
    """Nothing more will come by itself."""
    views = node.catalog.views
    known = views.series(series.series_uid)
    if known is None or known.state is SeriesState.RECEIVING:
        return False
    steps = views.steps(series.series_uid)
    fates = [d.state for r in views.results(series.series_uid)
             for d in views.deliveries(r.sop_instance_uid)]  # fmt: skip
    bad_steps = all(s.state in ("CANCELED", "QUARANTINED") for s in steps)
    return bad_steps or any(f in ("PARKED", "DEAD") for f in fates)


def _shown(
    node: RunningNode,
    series: DemoSeries,
    seg: Path,
    out: Path,
    steps: _Steps,
    moved_at: float,
) -> Shown:
    """Everything from the object that came back from the PACS, nothing from the node's memory."""
    views = node.catalog.views
    used = {uid for step in views.steps(series.series_uid) for uid in step.instance_uids}
    manifest = load_models(node.config.models_dir)[views.steps(series.series_uid)[0].tool_id]
    given = [source for source in series.sources if source.uid in used]
    with Decoders() as decode:
        ordered = judge(given, manifest.policy, decode).sources  # as the model's gate let it pass
        volume = read_volume(
            [source.path for source in ordered],
            tolerate=frozenset(Fault),
            reading=Reading(decode=decode),
        )
    labels = read_segmentation(seg, [source.uid for source in ordered])
    ml = volume.ml_of(labels)
    volumes = {s.label: round(ml.get(s.number, 0.0), 1) for s in manifest.segments}
    dice = {
        s.label: _dice(labels == s.number, series.truth(ordered) == s.number)
        for s in manifest.segments
        if series.has_truth
    }
    picture = out / "lungs.png"
    picture.write_bytes(contact_sheet(volume, labels, manifest.segments, caption=series.title))
    return Shown(
        seg=seg,
        picture=picture,
        volumes_ml=volumes,
        dice=dice,
        seconds={**steps.seconds, **_times(node, series, moved_at)},
        story=stories(node.catalog, series.series_uid)[0].verdict,
    )


def _dice(a: Any, b: Any) -> float:
    total = float(a.sum() + b.sum())
    return round(2 * float((a & b).sum()) / total, 4) if total else 1.0


def _times(node: RunningNode, series: DemoSeries, moved_at: float) -> dict[str, float]:
    """How long each part took, from the node's own events."""
    events = [event for _, event in node.catalog.views.events_of(series.series_uid)]
    arrived = [x.at for x in events if isinstance(x, e.InstanceArrived)]
    judged = [x.at for x in events if isinstance(x, e.StepScheduled)]
    done = [x for x in events if isinstance(x, e.StepCompleted)]
    sent = [x.at for x in events if isinstance(x, e.DeliveryEnded)]
    parts = done[-1].seconds
    return {
        "received": arrived[-1] - moved_at,
        "judged complete (waiting)": judged[-1] - arrived[-1],
        "waiting for the model": done[-1].at - judged[-1] - sum(parts.values()),
        **parts,
        "delivered": sent[-1] - done[-1].at,
        "first image to SEG in PACS": sent[-1] - moved_at,
        "the same without waiting": sent[-1] - moved_at - (judged[-1] - arrived[-1]),
    }


def _write_config(base: Config, pacs: DemoPacs, tool_id: str, out: Path) -> Path:
    """The node's configuration, left behind for the reader."""
    path = out / "ae_config.toml"
    path.write_text(
        f"""{MARK}
[node]
ae_title = "{base.node.ae_title}"
host = "{pacs.listen_host}"
port = {pacs.listen_port(base)}
data_dir = "var"
models_dir = "{base.models_dir}"

[receive]
min_free_gib = 0.2

[engine]
device = "{base.engine.device}"
threads = {base.engine.threads}

{pacs.peer_table()}
[[route]]
name = "demo"
when = 'Modality == "CT"'
tool = "{tool_id}"
results = ["seg"]
to = ["@sender"]
""",
        encoding="utf-8",
    )
    return path


def _print(shown: Shown, series: DemoSeries, out: Path) -> None:
    to = console()
    table = Table(title=series.title, title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for name, value in shown.seconds.items():
        table.add_row(name, f"{value:.2f}")
    to.print(table)
    for label, ml in shown.volumes_ml.items():
        dice = f", Dice {shown.dice[label]:.3f} against the truth" if shown.dice else ""
        to.print(f"{label}: {ml:.0f} mL{dice}", markup=False)
    to.print(f"the node says: {shown.story}", markup=False)
    to.print(f"SEG:     {shown.seg}", markup=False)
    to.print(f"picture: {shown.picture}", markup=False)
    to.print(f"node:    {out / 'ae_config.toml'}, {out / 'node.log'}", markup=False)
    config = out / "ae_config.toml"
    to.print(f"story:   dicom-node why {series.series_uid} --config {config}", markup=False)
    to.print("For research use; not for diagnosis.", style="yellow")


def _plain(shown: Shown) -> dict[str, Any]:
    return {
        "seg": str(shown.seg),
        "picture": str(shown.picture),
        "volumes_ml": shown.volumes_ml,
        "dice": shown.dice,
        "seconds": {name: round(value, 3) for name, value in shown.seconds.items()},
        "story": shown.story,
    }


def _pause() -> None:
    time.sleep(0.05)  # noqa: TID251  # a command waits for the node to get on


class _Steps:
    """Says what is being done, on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        to = progress_console()
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=to, disable=quiet or not to.is_terminal,
        )  # fmt: skip
        self._say: Callable[[str], None] = (
            (lambda _text: None) if quiet or to.is_terminal else to.print
        )
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[], float]]:
        """One step; gives a function that tells how long it took."""
        task = self._bar.add_task(text, total=1)
        self._say(f"- {text}")
        began = time.perf_counter()
        ended: list[float] = []
        yield lambda: (ended[0] if ended else time.perf_counter()) - began
        ended.append(time.perf_counter())
        self._bar.update(task, completed=1)
