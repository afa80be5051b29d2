"""A segment of the audit spool: a file of lines, "+" and a message, or "=" and a mark that ends a
batch. The first line is a mark."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".audit"
MARK_BYTES = 64  # no mark is longer


class Seen(NamedTuple):
    """The last event that is told: its number, and its time, which tells one catalog from
    another."""

    number: int
    at: float


NOTHING = Seen(0, 0.0)
"""Of a spool that is new: no event has that number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What is sound in a segment: so many bytes, so many messages, the last mark."""

    size: int
    messages: int
    seen: Seen | None


def name_of(first: int) -> str:
    """What a segment is called, by the number of its first message."""
    return f"{first:016d}{SUFFIX}"


def segments(folder: Path) -> list[int]:
    """The numbers of their first messages, in order."""
    found = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return sorted(int(name) for name in found if name.isdecimal())


def mark_of(seen: Seen, lines: bytes) -> bytes:
    """A line that says up to where the events are told; sound with these lines before it."""
    text = f"{seen.number} {seen.at!r}"
    return f"={text} {zlib.crc32(text.encode(), zlib.crc32(lines)):08x}\n".encode()


def _batches(data: bytes) -> Iterator[tuple[list[bytes], Seen, int]]:
    """The messages of each batch, its mark, and where it ends; up to what is not sound."""
    start = at = 0
    messages: list[bytes] = []
    while (end := data.find(b"\n", at)) >= 0:
        if data[at : at + 1] == b"+":
            messages.append(data[at + 1 : end])
        else:
            seen = _seen(data[at:end], data[start:at])
            if seen is None:
                return
            yield messages, seen, end + 1
            messages, start = [], end + 1
        at = end + 1


def _seen(mark: bytes, lines: bytes) -> Seen | None:
    """What a mark says, if it is one for these lines."""
    try:
        number, at, _ = mark.decode("ascii").removeprefix("=").split(" ")
        seen = Seen(int(number), float(at))
    except ValueError:
        return None
    return seen if mark_of(seen, lines) == mark + b"\n" else None


def seeming(data: bytes) -> int:
    """How many messages there are to be seen in a damaged segment; one at least."""
    return max(sum(line.startswith(b"+") for line in data.split(b"\n")), 1)


def whole_of(data: bytes) -> Whole:
    """What is sound in a segment."""
    whole = Whole(size=0, messages=0, seen=None)
    for messages, seen, end in _batches(data):
        whole = Whole(size=end, messages=whole.messages + len(messages), seen=seen)
    return whole


def messages_in(data: bytes, first: int) -> Iterator[tuple[int, bytes]]:
    """The sound messages of a segment, with their numbers."""
    return enumerate((m for messages, _, _ in _batches(data) for m in messages), first)
