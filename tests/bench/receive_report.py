"""What bench_receive.py measured, as tables; and which goals are met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from receivers import NAMES

LARGE = 131072
PEERS = {"storescp": "DCMTK", "orthanc": "Orthanc", "pynetdicom": "pynetdicom"}
WHY = {
    1: "the SHA-256 that names each file, its checks and the catalog's commit are in the way of "
    "each answer; DCMTK only writes",
    2: "the SHA-256 that names each file alone takes more",
    3: "each answer waits for the syncs of file, name and catalog, which no peer here does",
    4: "each answer waits for the syncs of file, name and catalog",
    6: "a whole association is four turns of Python, and who may come in is asked",
    14: "the fact is a row of five tables with their indexes, and a sync",
    15: "model and receiver share the cores",
}
"""For goals that are not met, as far as it is known."""

Given = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One line of the verdict. what: with its bound."""

    number: int
    what: str
    value: str
    met: bool


def report(given: Given) -> str:
    """Markdown; the last line is the ratios."""
    about = given["machine"]
    lines = [
        f"{about['date']}; {about['cores']} cores ({about['processor']}), load {about['load']:.1f} "
        f"at the start, one sync {about['sync_ms']:.1f} ms, {about['file_system']}.",
        "",
        *_table(given["rounds"]),
        "",
        *_probes(given.get("probes", {})),
        "",
        "| goal | | measured | |",
        "|--:|---|---|---|",
    ]
    for goal in sorted(goals(given), key=lambda goal: goal.number):
        why = f": {WHY[goal.number]}" if goal.number in WHY else ""
        met = "**met**" if goal.met else f"**not met**{why}"
        lines.append(f"| {goal.number} | {goal.what} | {goal.value} | {met} |")
    return "\n".join([*lines, "", ratios_line(given["rounds"])])


def _groups(rounds: Sequence[Given]) -> dict[tuple[int, int, str], list[Given]]:
    groups: dict[tuple[int, int, str], list[Given]] = {}
    for one in rounds:
        key = (one["pdu"], one["associations"], one["receiver"])
        groups.setdefault(key, []).append(one)
    return groups


def _table(rounds: Sequence[Given]) -> list[str]:
    lines = [
        "| receiver | PDU | assoc. | images/s (rounds) | CPU s/GB (user) | peak MB "
        "| wait ms (p99) |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    order = list(NAMES)
    for (pdu, associations, kind), group in sorted(
        _groups(rounds).items(), key=lambda g: (-g[0][0], g[0][1], order.index(g[0][2]))
    ):
        each = ", ".join(f"{one['images_per_s']:.0f}" for one in group)
        lines.append(
            f"| {NAMES[kind]} | {pdu // 1024} KiB | {associations} "
            f"| {_of(group, 'images_per_s'):.0f} ({each}) "
            f"| {_of(group, 'cpu_s_per_gb'):.2f} ({_of(group, 'user_s_per_gb'):.2f}) "
            f"| {_of(group, 'peak_mb'):.0f} "
            f"| {_of(group, 'median_wait_ms'):.2f} ({_of(group, 'p99_wait_ms'):.1f}) |"
        )
    return lines


def _of(group: Sequence[Given], name: str) -> float:
    return median(one[name] for one in group)


def _probes(probes: Given) -> list[str]:
    lines = []
    for kind, found in probes.get("echo", {}).items():
        for when, one in found.items():
            lines.append(
                f"- C-ECHO, whole association, {NAMES[kind].partition(':')[0]}, {when}: median "
                f"{one['median_ms']:.2f} ms, p99 {one['p99_ms']:.1f} ms of {one['count']}."
            )
    if "live" in probes:
        live = probes["live"]
        lines += [
            f"- A whole node, {name}: {live[name]['images_per_s']:.0f} images/s"
            + ("" if live[name].get("busy", True) else " (the model had ended before)")
            + "."
            for name in ("idle", "inferring", "with C-ECHO")
        ]
    if "header" in probes:
        one = probes["header"]
        lines.append(
            f"- From the written file to the fact, CPU an instance: {one['check_ms']:.3f} ms for "
            f"checks and header, {one['record_ms']:.3f} ms for the catalog."
        )
    return lines


def ratios(rounds: Sequence[Given], associations: int, name: str) -> dict[str, float]:
    """The node's value over each peer's, with the largest PDU; of medians."""
    groups = _groups(rounds)
    ours = groups.get((LARGE, associations, "node"))
    theirs = {peer: groups.get((LARGE, associations, peer)) for peer in PEERS}
    return {
        peer: _of(ours, name) / _of(group, name)
        for peer, group in theirs.items()
        if ours and group and _of(group, name)  # of a run of a few images it may be nothing
    }


def ratios_line(rounds: Sequence[Given]) -> str:
    """CPU and images/s of the node over those of each peer, over 1 and 4 associations."""
    said = []
    for name, words in (("cpu_s_per_gb", "CPU"), ("images_per_s", "images/s")):
        for peer, called in PEERS.items():
            found = [ratios(rounds, n, name).get(peer) for n in (1, 4)]
            if any(found):
                both = " and ".join(f"{x:.2f}" for x in found if x is not None)
                said.append(f"{words} {both} of {called}")
    return f"Ratios over 1 and 4 associations: {'; '.join(said) or 'none'}."


def goals(given: Given) -> Iterator[Goal]:
    """Those that were measured, met or not."""
    rounds, probes = given["rounds"], given.get("probes", {})
    yield from _receiving(rounds)
    if "memory" in probes:
        yield from _memory(probes["memory"])
    if "echo" in probes:
        yield from _echo(probes["echo"])
    if "idle" in probes:
        one = probes["idle"]
        yield Goal(
            number=7,
            what=f"{one['associations']} idle associations cost < 1 % of a core",
            value=f"{one['percent']:.2f} %",
            met=one["percent"] < 1,
        )
    if "many" in probes:
        yield from _many(probes["many"])
    if "header" in probes:
        yield from _header(probes["header"])
    if "live" in probes:
        yield from _live(probes["live"])


def _receiving(rounds: Sequence[Given]) -> Iterator[Goal]:
    bounds = (
        (1, "CPU", "cpu_s_per_gb", {"storescp": 0.5, "orthanc": 0.15, "pynetdicom": 0.1}, False),
        (3, "images/s", "images_per_s", {"storescp": 2.0, "pynetdicom": 8.0}, True),
        (4, "CPU", "cpu_s_per_gb", {"storescp": 0.6}, False),
        (4, "images/s", "images_per_s", {"storescp": 1.0}, True),
    )
    for number, words, name, wanted, more in bounds:
        for associations in (1, 4):
            found = ratios(rounds, associations, name)
            for peer, bound in wanted.items():
                if peer in found:
                    yield Goal(
                        number=number,
                        what=f"{words} {'>=' if more else '<='} {bound:g}x {PEERS[peer]}, "
                        f"{associations} assoc.",
                        value=f"{found[peer]:.2f}x",
                        met=found[peer] >= bound if more else found[peer] <= bound,
                    )
    for associations in (1, 4):
        group = _groups(rounds).get((LARGE, associations, "node"))
        if group:
            user = _of(group, "user_s_per_gb")
            yield Goal(
                number=2,
                what=f"user CPU <= 0.15 s/GB, {associations} assoc.",
                value=f"{user:.2f} s/GB",
                met=user <= 0.15,
            )


def _memory(found: Given) -> Iterator[Goal]:
    for one in found["grown"]:
        yield Goal(
            number=5,
            what=f"growth <= 8 MB while {one['gib']:g} GiB come",
            value=f"{one['mb']:.1f} MB",
            met=one["mb"] <= 8,
        )
    each = found["association_mb"]
    yield Goal(
        number=5,
        what="<= 0.5 MB for each further association",
        value=f"{each:.2f} MB",
        met=each <= 0.5,
    )


def _echo(found: Given) -> Iterator[Goal]:
    ours = found["node"]
    for peer, bound in (("orthanc", 1.0), ("storescp", 0.25), ("pynetdicom", 0.1)):
        if peer in found:
            times = ours["idle"]["median_ms"] / found[peer]["idle"]["median_ms"]
            yield Goal(
                number=6,
                what=f"C-ECHO idle, median <= {bound:g}x {PEERS[peer]}",
                value=f"{times:.2f}x",
                met=times <= bound,
            )
    p99 = ours["storing"]["p99_ms"]
    yield Goal(
        number=6, what="C-ECHO while storing, p99 <= 10 ms", value=f"{p99:.1f} ms", met=p99 <= 10
    )


def _many(found: Given) -> Iterator[Goal]:
    start, quarter, end = (found[when] for when in ("start", "quarter", "end"))
    for what in ("threads", "descriptors"):
        yield Goal(
            number=8,
            what=f"{what} after {found['count']} associations as before",
            value=f"{start[what]}, then {end[what]}",
            met=end[what] <= start[what],
        )
    grown = end["mb"] - quarter["mb"]
    yield Goal(
        number=8,
        what="growth <= 2 MB from a quarter of them to the last",
        value=f"{grown:.1f} MB",
        met=grown <= 2,
    )


def _header(found: Given) -> Iterator[Goal]:
    cpu_ms = found["check_ms"] + found["record_ms"]
    yield Goal(
        number=14,
        what="header to catalog <= 0.3 ms CPU an instance",
        value=f"{cpu_ms:.2f} ms",
        met=cpu_ms <= 0.3,
    )
    if found["count"] == 93:
        yield Goal(
            number=14,
            what="volume of 93 slices <= 20 ms CPU",
            value=f"{found['volume_ms']:.0f} ms",
            met=found["volume_ms"] <= 20,
        )


def _live(found: Given) -> Iterator[Goal]:
    times = found["inferring"]["images_per_s"] / found["idle"]["images_per_s"]
    yield Goal(
        number=15,
        what="images/s while a model runs >= 0.8x of idle",
        value=f"{times:.2f}x" + ("" if found["inferring"]["busy"] else " (it had ended before)"),
        met=times >= 0.8 and found["inferring"]["busy"],
    )
    p99 = found["echo"]["p99_ms"]
    yield Goal(
        number=6,
        what="C-ECHO while storing and inferring, p99 <= 10 ms",
        value=f"{p99:.1f} ms",
        met=p99 <= 10,
    )
