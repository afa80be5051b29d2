"""How fast, and at what cost, receivers take CT slices: ours, stock pynetdicom, DCMTK, Orthanc.

    make bench-receive
    make bench-receive ARGS="--rounds 5 --json result.json"
    python tests/bench/bench_receive.py --from result.json --docs docs/benchmarks.md

One sender for all: a process of its own, PDUs encoded before the clock starts, each instance waits
for its response. Receivers take turns in every round, with the largest PDUs and with the 16 KiB
that many senders send. CPU is user + system time of the receiver's process tree from /proc, read
before the associations are released. A round counts only if every data set is found afterwards,
byte for byte, in what the receiver wrote. Beside that: growth of memory, C-ECHO, idle associations,
many in turn, the CPU from header to catalog, and a whole node while a model runs.

The last line is the ratios. Absolute numbers depend on the machine, ratios less so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import receive_probes as probes
from dicom_node.spool.filesystem import names_follow_files
from receive_report import LARGE, report
from receivers import NAMES, here

START, END = "<!-- bench-receive: begin -->", "<!-- bench-receive: end -->"
SMALL = 16384
ALSO_SMALL = ("node", "pynetdicom", "storescp", "orthanc")
PARTS = ("receive", "memory", "echo", "idle", "many", "header", "live")


def flush_ms(where: Path) -> float:
    """What one sync costs here, with nothing to write but 4 KiB: it bounds whoever syncs."""
    waits_s = []
    with tempfile.NamedTemporaryFile(dir=where) as file:
        for _ in range(50):
            began_at = time.perf_counter()
            os.pwrite(file.fileno(), bytes(4096), 0)
            os.fdatasync(file.fileno())
            waits_s.append(time.perf_counter() - began_at)
    return statistics.median(waits_s) * 1000


def machine(where: Path) -> dict[str, Any]:
    """What all numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    by_name = names_follow_files(where)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": len(os.sched_getaffinity(0)),
        "processor": names[0] if names else "unknown",
        "load": os.getloadavg()[0],
        "sync_ms": flush_ms(where),
        "file_system": f"the file system {'lets' if by_name else 'does not let'} a name follow "
        "its file",
    }


def rounds_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every receiver in turn, another one first in each round."""
    kinds = [kind for kind in options.only if kind in here()]
    rounds = []
    for number in range(options.rounds):
        turn = number % len(kinds)
        for kind in kinds[turn:] + kinds[:turn]:
            for pdu in (LARGE, SMALL) if kind in ALSO_SMALL else (LARGE,):
                rounds += [
                    probes.throughput(
                        kind, options.dir, associations=n, pdu=pdu, instances=options.instances
                    )
                    for n in (1, 4)
                ]
    return rounds


def probed(options: argparse.Namespace) -> dict[str, Any]:
    """The parts that were asked for."""
    where, count = options.dir, options.echoes
    echoing = [k for k in ("node", *ALSO_SMALL[1:]) if k in here() and k in (*options.only, "node")]
    parts: dict[str, Callable[[], Any]] = {
        "memory": lambda: probes.memory(where, options.large_gib, options.associations),
        "echo": lambda: {
            kind: probes.echo(kind, where, count=count, instances=options.instances)
            for kind in echoing
        },
        "idle": lambda: probes.idle(where, associations=options.idle, seconds=options.idle_s),
        "many": lambda: probes.many(where, count=options.many),
        "header": lambda: probes.header(where, count=options.headers),
        "live": lambda: probes.live(
            instances=options.instances, slices=options.slices, count=count
        ),
    }
    return {name: part() for name, part in parts.items() if name in options.parts}


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--instances", type=int, default=512)
    ask.add_argument("--only", nargs="+", choices=sorted(NAMES), default=list(NAMES))
    ask.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    ask.add_argument("--large-gib", type=float, nargs="*", default=[1.0, 2.1])
    ask.add_argument("--associations", type=int, default=32, help="whose memory is looked at")
    ask.add_argument("--echoes", type=int, default=200)
    ask.add_argument("--idle", type=int, default=100, help="associations that say nothing")
    ask.add_argument("--idle-s", type=float, default=10.0)
    ask.add_argument("--many", type=int, default=1000, help="associations in turn")
    ask.add_argument("--headers", type=int, default=93, help="instances, from header to catalog")
    ask.add_argument("--slices", type=int, default=500, help="that the model works on meanwhile")
    ask.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    ask.add_argument("--json", type=Path, help="write the measurements there")
    ask.add_argument("--from", type=Path, nargs="+", dest="earlier", help="measure nothing")
    ask.add_argument("--docs", type=Path, help="write the report into this document")
    return ask.parse_args(arguments)


def given_by(options: argparse.Namespace) -> dict[str, Any]:
    """The measurements, or those of earlier runs: all their rounds, the last of each other part."""
    if not options.earlier:
        about = machine(options.dir)
        rounds = rounds_of(options) if "receive" in options.parts else []
        return {"machine": about, "rounds": rounds, "probes": probed(options)}
    runs = [json.loads(path.read_text()) for path in options.earlier]
    return {
        "machine": runs[0]["machine"],
        "rounds": [one for run in runs for one in run["rounds"]],
        "probes": {name: part for run in runs for name, part in run["probes"].items()},
    }


def main() -> int:
    options = options_of()
    given = given_by(options)
    if options.json:
        options.json.write_text(json.dumps(given, indent=1) + "\n")
    text = report(given)
    if options.docs:
        before, _, rest = options.docs.read_text("utf-8").partition(START)
        after = rest.partition(END)[2]
        options.docs.write_text(f"{before}{START}\n{text}\n{END}{after}", "utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
