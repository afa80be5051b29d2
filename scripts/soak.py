"""Everything at once for a while: does a node stay as it was?

    PYTHONPATH=tests python scripts/soak.py --minutes 20 --docs docs/benchmarks.md

Five peers, each in its own thread: C-ECHO; two that store objects of all sizes, and break off some
of them; a PACS that sends series and gets results back; and a hostile one, with the rows of
tests/faults/hostile.py. What all processes of the node have of memory, descriptors and threads is
sampled every second, and every half a minute at rest: then nobody sends, and the node has ended
what it was at. The verdict is about the samples at rest.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from curves import Panel, svg

from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, a_series
from faults.attack import Attack, Refused
from faults.besieged import ELSEWHERE, OTHER, PEER, Node
from faults.hostile import ROWS
from raw import objects as o
from raw import wire

SAMPLE_S, REST_EVERY_S = 1.0, 30.0
REST_WITHIN_S = 60.0
TOLERANCE = 0.05  # of memory
ECHO_S = 2.0
SMALLEST, LARGEST = 1024, 16 * 2**20
BEGINS, ENDS = "<!-- soak: begin -->", "<!-- soak: end -->"
CONFIG = """
[complete]
release_s = 0.5
quiet_s = 2
give_up_s = 4

[retain]
keep_days = 0.0002

[[route]]
name = "lungs"
from = ["pacs"]
when = 'Modality == "CT"'
tool = "lung-threshold"
results = ["seg"]
to = ["@sender"]
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What all processes of the node have. rest: nobody was sending."""

    seconds: float
    rest: bool
    memory_mib: float
    descriptors: int
    threads: int
    processes: int


class Load:
    """The peers. tally: what was done, and what went wrong."""

    def __init__(self, node: Node, pacs: LocalPacs, seed: int) -> None:
        self.tally: Counter[str] = Counter()
        self.slowest_echo_s = 0.0
        self._node, self._pacs, self._seed = node, pacs, seed
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self._resting, self._busy = False, 0
        self._changed = threading.Condition()
        peers = (self._echo, self._store, self._store, self._series, self._hostile)
        self._threads = [
            threading.Thread(target=self._repeat, args=(peer(random.Random(f"{seed}:{n}")),))
            for n, peer in enumerate(peers)
        ]

    def begin(self) -> None:
        """Let them in."""
        for thread in self._threads:
            thread.start()

    def rest(self) -> None:
        """Returns when each has ended what it was at, and none begins anew."""
        with self._changed:
            self._resting = True
            self._changed.wait_for(lambda: self._busy == 0)

    def go_on(self) -> None:
        """After rest()."""
        with self._changed:
            self._resting = False
            self._changed.notify_all()

    def end(self) -> None:
        """Returns when all have gone."""
        self._over.set()
        self.go_on()
        for thread in self._threads:
            thread.join()

    def _repeat(self, peer: Iterator[float]) -> None:
        """One thing after another, with its pause, until the end."""
        pause_s = 0.0
        while not self._over.wait(pause_s):
            with self._changed:
                self._changed.wait_for(lambda: not self._resting)
                self._busy += 1
            try:
                pause_s = next(peer)
            except StopIteration:
                return
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

    def _note(self, what: str, *, wrong: bool = False) -> None:
        with self._changed:
            self.tally[f"WRONG: {what}" if wrong else what] += 1

    def _echo(self, _luck: random.Random) -> Iterator[float]:
        while True:
            began_at = time.monotonic()
            why = self._node.echo(ECHO_S)
            self.slowest_echo_s = max(self.slowest_echo_s, time.monotonic() - began_at)
            self._note(f"C-ECHO: {why}" if why else "C-ECHOs", wrong=bool(why))
            yield 0.1

    def _store(self, luck: random.Random) -> Iterator[float]:
        while True:
            attack = self._attack(ELSEWHERE)
            try:
                self._association(attack, luck)
            except (Refused, OSError) as error:
                self._note(f"association: {error}", wrong=True)
            finally:
                attack.close()
            yield luck.uniform(0.1, 0.6)

    def _association(self, attack: Attack, luck: random.Random) -> None:
        series = f"1.2.826.0.1.3680043.2.93.{self._seed}.{next(self._numbers)}"
        caller = attack.associate(OTHER)
        for number in range(luck.randint(1, 8)):
            size = round(SMALLEST * (LARGEST / SMALLEST) ** luck.random()) & ~1
            uid = f"{series}.{number}"
            elements = o.ct(uid, study=f"{series}.8", series=f"{series}.9")
            elements |= {
                0x00090010: ("LO", b"SOAK"),
                0x00091001: ("OB", luck.randbytes(64) * (size // 64)),
            }
            message = wire.message(wire.c_store(instance=uid), o.encoded(elements))
            if luck.random() < 0.05:
                attack.say(caller, message[: len(message) // 2])
                caller.send(wire.ABORT)
                self._note("aborts inside an object")
                return
            attack.say(caller, message)
            answer = attack.answer(caller)
            right = answer == "0x0000" and self._node.holds(uid, o.encoded(elements))
            self._note("objects" if right else f"object: {answer}", wrong=not right)
        caller.send(wire.RELEASE)
        caller.hear(attack.patience_s)

    def _series(self, luck: random.Random) -> Iterator[float]:
        while True:
            known = len(self._pacs.instances())
            header = Header(study=f"soak {self._seed}", series=str(next(self._numbers)))
            objects = a_series(8, size=64, spacing_mm=(5.0, 4.0, 4.0), header=header)
            address = ("127.0.0.1", self._node.port)
            try:
                answers = send_series(address, "DICOMNODE", objects, calling_ae="TESTPACS")
            except ConnectionError:
                answers = []
            self._note("series", wrong=set(answers) != {0})
            came = self._pacs.wait_for(known + 1, REST_WITHIN_S)
            self._note("results" if came else "a result did not come", wrong=not came)
            yield luck.uniform(2.0, 4.0)

    def _hostile(self, luck: random.Random) -> Iterator[float]:
        rows = [row for row in ROWS if not row.slow]
        while True:
            luck.shuffle(rows)
            for row in rows:
                attack = self._attack("127.0.0.1")
                try:
                    answer = row.attack(attack)
                finally:
                    attack.close()
                right = answer == row.ours
                self._note("attacks" if right else f"{row.name}: {answer}", wrong=not right)
                yield luck.uniform(0.0, 0.5)

    def _attack(self, source: str) -> Attack:
        return Attack(self._node.port, self._numbers, patience_s=60.0, source=source)


def processes_of(pid: int) -> Iterator[int]:
    """A process and all that come of it."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        children = ""
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            children = path.read_text()
        for child in children.split():
            yield from processes_of(int(child))


def sample(node: Node, seconds: float, *, rest: bool) -> Sample:
    """Now."""
    memory_kib, descriptors, threads, count = 0, 0, 0, 0
    for pid in processes_of(node.pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            status = Path(f"/proc/{pid}/status").read_text()
            found = dict(line.split(":", 1) for line in status.splitlines())
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            memory_kib += int(found.get("VmRSS", "0").split()[0])
            threads += int(found["Threads"])
            count += 1
    return Sample(
        seconds=round(seconds, 2),
        rest=rest,
        memory_mib=round(memory_kib / 1024, 1),
        descriptors=descriptors,
        threads=threads,
        processes=count,
    )


def at_rest(node: Node, now: Callable[[], float]) -> Sample:
    """When nothing changes any more for three seconds: what was lowest then."""
    until = time.monotonic() + REST_WITHIN_S
    seen = [sample(node, now(), rest=True)]
    while time.monotonic() < until:
        time.sleep(0.5)
        seen.append(sample(node, now(), rest=True))
        last = {(one.descriptors, one.threads, one.processes) for one in seen[-6:]}
        if len(seen) >= 6 and len(last) == 1:
            break
    return seen[-1]


def soaked(node: Node, load: Load, minutes: float) -> list[Sample]:
    """The samples of a run."""
    began_at = time.monotonic()

    def now() -> float:
        return time.monotonic() - began_at

    every_s = min(REST_EVERY_S, minutes * 5)  # a dozen times at least
    samples, rest_at = [], every_s
    load.begin()
    try:
        while now() < minutes * 60:
            time.sleep(SAMPLE_S)
            samples.append(sample(node, now(), rest=False))
            if now() >= rest_at:
                load.rest()
                samples.append(at_rest(node, now))
                rest_at = now() + every_s
                load.go_on()
    finally:
        load.end()
    return samples


def thirds(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The samples at rest of the first and of the last third of the time; the very first is left
    out: the model was not loaded then."""
    rest = [one for one in samples if one.rest][1:] or list(samples)
    third = max(len(rest) // 3, 1)
    return rest[:third], rest[-third:]


def judged(samples: Sequence[Sample], load: Load) -> list[str]:
    """What is not as it should be."""
    first, last = thirds(samples)
    grown = _median(last, "memory_mib") / _median(first, "memory_mib") - 1
    wrong = [what for what in load.tally if what.startswith("WRONG")]
    if grown > TOLERANCE:
        wrong.append(f"memory grew by {grown:.1%}")
    for name in ("descriptors", "threads", "processes"):
        before, after = (max(getattr(one, name) for one in part) for part in (first, last))
        if after > before:
            wrong.append(f"{name}: {before} and then {after}")
    return wrong


def _median(part: Sequence[Sample], name: str) -> float:
    return median(getattr(one, name) for one in part)


def report(samples: Sequence[Sample], load: Load, wrong: Sequence[str]) -> Iterator[str]:
    """Markdown."""
    first, last = thirds(samples)
    done = ", ".join(f"{n:,} {what}" for what, n in sorted(load.tally.items()))
    yield f"{samples[-1].seconds / 60:.0f} minutes: {done}. Slowest C-ECHO"
    yield f"{load.slowest_echo_s * 1000:.0f} ms. At rest, medians:"
    yield ""
    yield "| of all processes of the node | first third | last third |"
    yield "|---|--:|--:|"
    for name, what in (
        ("memory_mib", "memory (resident), MiB"),
        ("descriptors", "descriptors"),
        ("threads", "threads"),
    ):
        yield f"| {what} | {_median(first, name):.0f} | {_median(last, name):.0f} |"
    yield ""
    yield f"Verdict: {'; '.join(wrong) or 'it stayed as it was'}."


def picture(samples: Sequence[Sample]) -> str:
    """Memory, descriptors and threads over time."""
    panels = []
    for name, title in (
        ("memory_mib", "memory of all processes, MiB (dots: at rest)"),
        ("descriptors", "descriptors"),
        ("threads", "threads"),
    ):
        every = [(one.seconds / 60, getattr(one, name)) for one in samples]
        rest = [(one.seconds / 60, getattr(one, name)) for one in samples if one.rest]
        panels.append(Panel(title=title, line=every, points=rest))
    return svg(panels, samples[-1].seconds / 60)


def main() -> int:
    """Run, judge, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/soak"), help="for CSV and SVG")
    parser.add_argument("--docs", type=Path, help="the document that gets the table")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, LocalPacs(Path(folder) / "pacs") as pacs:
        peer = PEER.format(name="pacs", ae_title="TESTPACS", more="")
        node = Node(
            Path(folder) / "node", more=CONFIG + peer.replace("port = 104", f"port = {pacs.port}")
        )
        try:
            node.start()
            load = Load(node, pacs, chosen.seed)
            samples = soaked(node, load, chosen.minutes)
        finally:
            node.end()
    with (chosen.out / "soak.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
        writer.writeheader()
        writer.writerows(asdict(one) for one in samples)
    wrong = judged(samples, load)
    text = "\n".join(report(samples, load, wrong))
    drawn = picture(samples)
    (chosen.out / "soak.svg").write_text(drawn)
    print(text)
    if chosen.docs:
        written(chosen.docs, text, drawn)
    return 1 if wrong else 0


def written(document: Path, text: str, drawn: str) -> None:
    """The table into the document, and the picture beside it."""
    beside = document.with_name("soak.svg")
    beside.write_text(drawn)
    before, _, rest = document.read_text("utf-8").partition(BEGINS)
    content = f"{text}\n\n![memory, descriptors and threads over time]({beside.name})"
    document.write_text(f"{before}{BEGINS}\n{content}\n{ENDS}{rest.partition(ENDS)[2]}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
