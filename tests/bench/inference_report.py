"""What bench_inference.py measured, as tables; and which goals are met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

GOAL_SLICES = 93
GOALS = {"cpu": 2.0, "cuda": 0.5}
"""Seconds from the last image to the SEG in the PACS."""
TIMES_FASTER = 50.0
TIMES_FLOOR = 3.0
STEPS = {
    "read": "read headers, hash",
    "load": "make and load the network",
    "decode": "decode to a volume, gate",
    "prepare": "slices to the network's grid and back (here: with the network)",
    "network": "network",
    "clean-up": "clean-up in three dimensions (the notebook: of one slice)",
    "measure": "axes, volumes",
    "guard": "guard",
    "encode": "encode the SEG",
    "save": "write the SEG",
    "write": "JPEG and Secondary Captures",
    "send": "send the Secondary Captures",
    "other": "other",
}

Row = Mapping[str, Any]


def report(given: Row) -> str:
    """Markdown."""
    about = given["machine"]
    gpu = about["gpu"] or "no GPU"
    lines = [
        f"{about['date']}; {about['cores']} cores ({about['processor']}), {gpu}, "
        f"torch {about['torch']}"
        + (f", OpenVINO {about['openvino']}." if about["openvino"] else "."),
    ]
    for row in given["rows"]:
        lines += ["", *_title(row), "", *_offline(row), "", *_over_dimse(row), "", *_floor(row)]
    lines += ["", "### Ratios and goals", ""]
    for row in given["rows"]:
        lines += [f"- {line}" for line in (*_ratios(row), *goals(row))]
    return "\n".join(lines)


def _title(row: Row) -> list[str]:
    mib = row["bytes"] / 2**20
    return [
        f"### {row['series']}, {row['slices']} slices ({mib:.0f} MiB), on {row['device']}",
        "",
        f"Offline, from files to files; seconds, median of {row['rounds']} rounds, in turn.",
    ]


def totals(rounds: Iterable[Mapping[str, float]]) -> list[float]:
    """Of each round."""
    return [sum(one.values()) for one in rounds]


def notebook_job(row: Row, how: str) -> dict[str, float]:
    """Seconds by step of a whole job of the notebook's way, from the slices that it did.

    how: "once" or "each", which says how often the network is made.
    """
    rounds = row[f"notebook_{how}"]
    done = sum(part["slices"] for part in rounds)
    steps = {step for part in rounds for step in part["seconds"]}
    job = {}
    if how == "each":  # what an association costs is shared by more of them there
        rounds = [part | {"seconds": part["seconds"] | {"send": 0.0}} for part in rounds]
    for step in steps:
        seconds = [part["seconds"].get(step, 0.0) for part in rounds]
        if step == "load" and how == "once":
            job[step] = median(seconds)
        else:
            job[step] = sum(seconds) / done * row["slices"]
    return job | ({"send": notebook_job(row, "once")["send"]} if how == "each" else {})


def node_job(row: Row) -> dict[str, float]:
    """Seconds by step, each the median of the rounds."""
    return {step: median(one[step] for one in row["node"]) for step in row["node"][0]}


def _offline(row: Row) -> list[str]:
    node, once, each = node_job(row), notebook_job(row, "once"), notebook_job(row, "each")
    floor = floor_s(row)
    done = [sum(part["slices"] for part in row[f"notebook_{how}"]) for how in ("once", "each")]
    lines = [
        f"| step | dicom-node | floor | notebook's way ({done[0]} slices done) "
        f"| its network made for each slice ({done[1]} done) |",
        "|---|--:|--:|--:|--:|",
    ]
    for step, name in STEPS.items():
        if any(step in way for way in (node, once)):
            cells = [_s(way.get(step)) for way in (node, floor, once, each)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    all_node = totals(row["node"])
    sums = [median(all_node), sum(floor.values()), sum(once.values()), sum(each.values())]
    lines.append(f"| **all** | {' | '.join(f'**{_s(value)}**' for value in sums)} |")
    peaks = [row["node_peaks"]["memory"], row["notebook_peaks"]["memory"]]
    lines.append(f"| peak memory, MiB | {peaks[0]:.0f} | | {peaks[1]:.0f} | |")
    if row["node_peaks"]["device"]:
        peaks = [row["node_peaks"]["device"], row["notebook_peaks"]["device"]]
        lines.append(f"| of the device, MiB | {peaks[0]:.0f} | | {peaks[1]:.0f} | |")
    return [*lines, "", f"All rounds of dicom-node: {_rounds(all_node)}."]


PARTS = ("received", "quiet", "wait", "decode", "infer", "encode", "delivered", "last", "job")


def _over_dimse(row: Row) -> list[str]:
    lines = [
        "Over DIMSE, to a PACS on the same machine; *last* is from the last image's arrival to the "
        "SEG in the PACS, *job* from the first C-STORE, both without *quiet*.",
        "",
        f"| sent | {' | '.join(PARTS)} | last, all rounds | peak MiB |",
        "|---|" + "--:|" * (len(PARTS) + 2),
    ]
    for way in row["over_dimse"]:
        cells = [_s(median(job.get(part, 0.0) for job in way["jobs"])) for part in PARTS]
        rounds = _rounds([job["last"] for job in way["jobs"]])
        lines.append(f"| {_way(way)} | {' | '.join(cells)} | {rounds} | {way['peak_mib']:.0f} |")
    if not all(way["equal"] for way in row["over_dimse"]):
        lines += ["", "**The masks differ from those made offline.**"]
    return lines


def _way(way: Row) -> str:
    pace = f"an image each {way['pace_ms']:.0f} ms" if way["pace_ms"] else "as fast as it goes"
    return pace if way["ahead"] else f"{pace}, nothing worked ahead"


def floor_s(row: Row) -> dict[str, float]:
    """What the machine needs at its measured peaks, by step."""
    floor = row["floor"]
    return {
        "read": row["bytes"] / floor["read_gb_s"] / 1e9,
        "network": row["slices"] * floor["node_gflop"] / floor["gflops"][floor["precision"]],
        "save": row["result_bytes"] / floor["write_gb_s"] / 1e9,
    }


def _floor(row: Row) -> list[str]:
    floor = row["floor"]
    peaks = ", ".join(f"{value:.0f} {name}" for name, value in floor["gflops"].items())
    network = node_job(row)["network"]
    once = notebook_job(row, "once")["network"]
    theirs = row["slices"] * floor["notebook_gflop"] / floor["gflops"]["fp32"]
    return [
        f"Floor: peak GFLOP/s {peaks}; a slice is {floor['node_gflop']:.2f} GFLOP here, "
        f"{floor['notebook_gflop']:.1f} in the notebook's network. In {floor['precision']} the "
        f"network takes {network / floor_s(row)['network']:.1f} times its floor, the notebook's "
        f"in fp32 {once / theirs:.1f} times. Files are read at {floor['read_gb_s']:.1f} GB/s from "
        f"the page cache, and written at {floor['write_gb_s']:.1f} GB/s.",
    ]


def _fastest(row: Row) -> Row:
    """The jobs with work ahead that were sent as fast as it goes."""
    return min((w for w in row["over_dimse"] if w["ahead"]), key=lambda way: way["pace_ms"])


def ratios(row: Row) -> dict[str, float]:
    """How many times faster than the notebook's way: offline, and the whole job over DIMSE."""
    offline = median(totals(row["node"]))
    job = median(one["job"] for one in _fastest(row)["jobs"])
    found = {}
    for how in ("once", "each"):
        theirs = notebook_job(row, how)
        found[f"offline {how}"] = (sum(theirs.values()) - theirs["send"]) / offline
        found[f"job {how}"] = sum(theirs.values()) / job
    return found


def _ratios(row: Row) -> list[str]:
    of = ratios(row)
    where = _where(row)
    return [
        f"{where}: files to files {of['offline once']:.1f} times as fast as the notebook's way, "
        f"{of['offline each']:.1f} times with its network made for each slice; first C-STORE to "
        f"SEG in the PACS, without the quiet time, {of['job once']:.1f} and {of['job each']:.1f} "
        "times (the notebook's receiving not counted).",
    ]


def _where(row: Row) -> str:
    return f"{row['series']}, {row['slices']} slices, {row['device']}"


def goals(row: Row) -> list[str]:
    """The goals for a series of this length, met or not."""
    if row["slices"] != GOAL_SLICES:
        return []
    cuda = row["device"] != "cpu"
    limit = GOALS["cuda" if cuda else "cpu"]
    said = []
    for way in row["over_dimse"]:
        if way["ahead"]:
            last = median(job["last"] for job in way["jobs"])
            said.append(
                f"Goal, last image to SEG in the PACS under {limit:g} s ({_way(way)}): "
                f"{last:.2f} s, {_met(last < limit)}."
            )
    of = ratios(row)
    for how, name in (("once", "loaded once"), ("each", "made for each slice, as published")):
        times = of[f"job {how}"]
        said.append(
            f"Goal, whole job {TIMES_FASTER:g} times as fast as the notebook's way (its network "
            f"{name}): {times:.1f} times, {_met(times >= TIMES_FASTER)}."
        )
    if cuda:
        over = median(totals(row["node"])) / sum(floor_s(row).values())
        said.append(
            f"Goal, within {TIMES_FLOOR:g} times of the floor: {over:.1f} times, "
            f"{_met(over <= TIMES_FLOOR)}."
        )
    return said


def _met(so: bool) -> str:
    return "**met**" if so else "**not met**"


def _s(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _rounds(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
