"""A story made short: what happened over and over again is told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One sentence of a story; `at` in UTC seconds. kind: of its event, "" if it is of several.

    thread, group: lines of one group that follow one another in their thread are told as one if
    there are more than `few` of them. detail: left out of the short story; fleeting_s: also left
    out if another group follows in the thread within so many seconds.
    """

    at: float
    text: str
    kind: str = ""
    thread: str = ""
    group: str = ""
    few: int = 1
    detail: bool = False
    fleeting_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Run:
    group: str
    lines: list[Line] = field(default_factory=list)


def digest(lines: Sequence[Line]) -> list[Line]:
    """The story without details, and with repetitions told as one."""
    runs: list[_Run] = []
    current: dict[str, _Run] = {}
    for line in lines:
        if line.detail:
            continue
        run = current.get(line.thread) if line.thread else None
        if run is None or not line.group or run.group != line.group:
            if run is not None and line.at - run.lines[0].at < run.lines[0].fleeting_s:
                runs.remove(run)
            run = _Run(line.group)
            runs.append(run)
            if line.thread:
                current[line.thread] = run
        run.lines.append(line)
    told = [line for run in runs for line in _told(run.lines)]
    return sorted(told, key=lambda line: line.at)


def _told(lines: Sequence[Line]) -> Sequence[Line]:
    first, last = lines[0], lines[-1]
    if len(lines) <= last.few:
        return lines
    span = f"{len(lines)} times from {_clock(first.at)} to {_clock(last.at)}, last"
    return [replace(last, text=f"{span}: {last.text}")]


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
