"""What a node and the stock server of pynetdicom answer to hostile peers: docs/hostile.md.

    PYTHONPATH=tests python scripts/hostile_table.py --out docs/hostile.md

Every row of tests/faults/hostile.py and hostile_tls.py, at its full size: against one node for all
of them, another for those by TLS, and against a storescp that is started anew after each row that
did it harm. What that answered is kept in a file, and not asked again. Ends with 1 if the node
fails in a row.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults.besieged import (
    BACK_S,
    Node,
    Outcome,
    Server,
    Siege,
    Stock,
    TlsNode,
    TlsStock,
    unharmed,
)
from faults.hostile import ROWS, Row
from faults.hostile_tls import TLS, TLS_ROWS

BEGINS, ENDS = "<!-- measured -->", "<!-- measured: end -->"
ECHO_S = 2.0
PATIENCE_S = 40.0
"""For the stock server: its own timeouts are 30 s. The node has time for its longest limit."""


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="the document that gets the tables")
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument(
        "--stock", type=Path, default=Path("build/hostile-stock.json"), help="what storescp said"
    )
    chosen = parser.parse_args()
    rows = [row for row in (*ROWS, *TLS_ROWS) if chosen.only in row.name]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as both:
        node = both.submit(lambda: dict(against_a_node(Path(folder), rows)))
        other = both.submit(lambda: against_stock(Path(folder), rows, chosen.stock))
        ours, stock = node.result(), other.result()
    failed = [why for row, seen in ours.items() if (why := failure(row, seen))]
    text = "\n".join(tables(ours, stock))
    print(text, *failed, sep="\n")
    if chosen.out and not failed:
        before, _, rest = chosen.out.read_text("utf-8").partition(BEGINS)
        after = rest.partition(ENDS)[2]
        chosen.out.write_text(f"{before}{BEGINS}\n\n{text}\n\n{ENDS}{after}", "utf-8")
    return 1 if failed else 0


def against_a_node(folder: Path, rows: Sequence[Row]) -> Iterator[tuple[Row, Outcome]]:
    """One process for all of a port."""
    for name, made, chosen in (
        ("node", Node, [row for row in rows if row.part != TLS]),
        ("secure", TlsNode, [row for row in rows if row.part == TLS]),
    ):
        if not chosen:
            continue
        node = made(folder / name)
        try:
            node.start()
            siege = Siege(node, long=True, echo_s=ECHO_S, back_s=BACK_S, patience_s=90.0)
            for row in chosen:
                yield row, told(node.served, row, siege.outcome(row))
        finally:
            node.end()


def against_stock(folder: Path, rows: Sequence[Row], known: Path) -> dict[str, str]:
    """A process for as many as it stands unharmed. Row -> what the table says of it."""
    cells: dict[str, str] = json.loads(known.read_text("utf-8")) if known.exists() else {}
    known.parent.mkdir(parents=True, exist_ok=True)
    left = [row for row in rows if row.name not in cells]
    while left:
        secure = left[0].part == TLS
        kind: type[Server] = TlsStock if secure else Stock
        server = kind(folder / f"stock-{len(left)}")
        try:
            server.start()
            siege = Siege(server, long=True, echo_s=ECHO_S, back_s=BACK_S, patience_s=PATIENCE_S)
            harmed = False
            while left and not harmed and (left[0].part == TLS) == secure:
                row = left.pop(0)
                seen = told(server.served, row, siege.outcome(row))
                harmed = bool(seen.harm())
                cells[row.name] = cell(seen)
                known.write_text(json.dumps(cells, indent=1), "utf-8")
        finally:
            server.end()
    return cells


def told(who: str, row: Row, seen: Outcome) -> Outcome:
    """A line while it works."""
    print(
        f"{who} | {row.name} | {cell(seen)} | {seen.slowest_s:.2f} s", file=sys.stderr, flush=True
    )
    return seen


def failure(row: Row, seen: Outcome) -> str:
    """Why the node did not stand it, or nothing."""
    try:
        unharmed(row, seen)
    except AssertionError as error:
        return f"FAILED {error}".splitlines()[0]
    return ""


def cell(seen: Outcome) -> str:
    """The answer, and the harm."""
    answer = seen.answer.replace("silence", f"silence for {PATIENCE_S:.0f} s")
    said = [] if answer == "-" else [answer]
    return "; ".join((*said, *seen.harm())) or "-"


def tables(ours: Mapping[Row, Outcome], stock: Mapping[str, str]) -> Iterator[str]:
    """One for each part."""
    version = importlib.metadata.version("pynetdicom")
    for part in dict.fromkeys(row.part for row in ours):
        yield f"### {part}\n"
        yield f"| what the peer does | asked for | dicom-node | pynetdicom {version} |"
        yield "| --- | --- | --- | --- |"
        for row, seen in ours.items():
            if row.part == part:
                yield f"| {row.name} | {row.asks} | {cell(seen)} | {stock[row.name]} |"
        yield ""
    slowest = max(seen.slowest_s for seen in ours.values())
    yield f"The slowest C-ECHO of another peer took {slowest * 1000:.0f} ms at the node."


if __name__ == "__main__":
    sys.exit(main())
