"""Mutated conversations by the thousand: python -m fuzz.run --seed 1 --count 100000.

A failure prints its seed and its number; --case NUMBER runs that one alone, and shows its bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from fuzz.drive import Failure, Front
from fuzz.mutate import case

LOOK_EVERY, TELL_EVERY = 500, 5000
FAILURES_MAX = 20  # then it is enough to begin with
HANG_S = 30
Guard = Callable[[], contextlib.AbstractContextManager[None]]


def main() -> int:
    """Run, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0, help="the number of the first case")
    parser.add_argument("--case", type=int, help="this one alone")
    chosen = parser.parse_args()
    if chosen.case is not None:
        sys.stdout.write(f"{case(chosen.seed, chosen.case)}\n")
        numbers: Iterable[int] = (chosen.case,)
    else:
        numbers = range(chosen.start, chosen.start + chosen.count)
    tally: Counter[str] = Counter()
    began_at = time.monotonic()
    failures = 0
    for failure in failing(chosen.seed, numbers, tally, limited):
        failures += 1
        sys.stdout.write(f"FAILED {failure}\n")
        sys.stdout.flush()
    told = ", ".join(f"{count} {what}" for what, count in tally.most_common(12))
    sys.stdout.write(
        f"seed {chosen.seed}: {tally.total()} cases in {time.monotonic() - began_at:.0f} s, "
        f"{failures} failures; ended: {told}\n"
    )
    return 1 if failures else 0


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """A case that hangs fails."""

    def too_long(_signal: int, _frame: FrameType | None) -> None:
        raise Failure(f"no end of it in {HANG_S} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)


def failing(
    seed: int, numbers: Iterable[int], tally: Counter[str], guard: Guard = contextlib.nullcontext
) -> Iterator[str]:
    """Run the cases; what failed, with how to see it again. tally: how the others ended."""
    found = 0
    with Front() as front:
        front.run(case(seed, 0))
        front.look()
        for number in numbers:
            try:
                with guard():
                    heard = front.run(case(seed, number))
                tally[ending(heard.kinds, heard.statuses)] += 1
                if number % LOOK_EVERY == 0:
                    front.look()
                if number % TELL_EVERY == 0:
                    sys.stderr.write(f"case {number}\n")
            except Failure as failure:
                tally["failed"] += 1
                found += 1
                yield f"seed {seed}, case {number}: {failure}"
                if found == FAILURES_MAX:
                    return
        front.look()


def ending(kinds: list[int], statuses: list[int]) -> str:
    """Of one conversation, in a word."""
    if statuses:
        return f"0x{statuses[-1]:04X}"
    words = {2: "accepted", 3: "rejected", 6: "released", 7: "aborted"}
    return words.get(kinds[-1], "answered") if kinds else "closed"


if __name__ == "__main__":
    sys.exit(main())
