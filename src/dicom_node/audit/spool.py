"""The spool of audit messages: durable before anybody gets them, in a bounded number of segments.

A segment is a file of lines: "+" and a message, or "=" and a mark that ends a batch. A mark says up
to which event of the catalog everything is told, and so makes it one fact with the messages; what
stands behind the last sound mark was never written. Messages are numbered through; a segment is
called by the number of its first. Who gets them has a cursor file, with the number that is next.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from dicom_node.audit.segment import (
    MARK_BYTES,
    NOTHING,
    Seen,
    mark_of,
    messages_in,
    name_of,
    seeming,
    segments,
    whole_of,
)
from dicom_node.domain.errors import AuditError

SEGMENT_BYTES = 256 * 1024
_CURSOR, _DAMAGED = ".cursor", ".damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far somebody got. next: number of the message that is next.

    lost: messages that went before he got them, for want of room or by damage; lost_at: when the
    last of them. untold: those of them that no message has told of yet.
    """

    next: int = 1
    lost: int = 0
    lost_at: float = 0.0
    untold: int = 0


class AuditSpool:
    """One writer; readers on other threads. Only one process has it open."""

    def __init__(
        self,
        folder: Path,
        readers: Iterable[str],
        *,
        limit_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """readers: names of those who get the messages. Raises AuditError."""
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._file = -1
        self._size = 0
        self.seen: Seen | None = None
        self.next_number = 1
        with _telling("opened"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            damaged = self._resume()
            first = self._firsts()[0] if self._firsts() else 1
            self._cursors = {name: self._read_cursor(name, first) for name in readers}
            self._put_aside(damaged)

    @property
    def readers(self) -> tuple[str, ...]:
        """Who gets the messages."""
        return tuple(self._cursors)

    def close(self) -> None:
        """Nothing is written any more."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    # --- writing

    def append(self, messages: Sequence[bytes], seen: Seen) -> None:
        """Write the messages, numbered from next_number on, and how far the events are told.

        Durable on return. What does not fit goes, the oldest first. Raises AuditError: nothing was
        written.
        """
        if any(b"\n" in message for message in messages):
            raise AuditError("an audit message is one line")
        with self._lock, _telling("written"):
            if self._file < 0 or self._size >= self._segment_bytes:
                self._begin_segment()
            lines = b"".join(b"+" + message + b"\n" for message in messages)
            self._write(lines + mark_of(seen, lines))
            self.next_number += len(messages)
            self.seen = seen
            with contextlib.suppress(OSError):  # it is written: room is made the next time
                self._make_room()

    def _begin_segment(self) -> None:
        """Go on in a new file, or in the same again if it holds nothing but marks."""
        path = self._path(self.next_number)
        part = path.with_suffix(".part")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o600)
        try:
            mark = mark_of(self.seen or NOTHING, b"")
            _put(descriptor, mark)
            part.replace(path)
            sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            raise
        self.close()
        self._file, self._size = descriptor, len(mark)

    def _write(self, data: bytes) -> None:
        try:
            _put(self._file, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _make_room(self) -> None:
        """Remove what everybody has, and then, while there is too much, the oldest."""
        firsts = self._firsts()
        sizes = {first: self._path(first).stat().st_size for first in firsts}
        wanted = min((c.next for c in self._cursors.values()), default=self.next_number)
        for first, following in pairwise(firsts):
            if following > wanted:
                if sum(sizes.values()) <= self._limit_bytes:
                    return
                self._lose_before(following)
            self._path(first).unlink()
            del sizes[first]

    def _lose_before(self, number: int) -> None:
        """First it is known, then it is done."""
        for name, cursor in self._cursors.items():
            if cursor.next < number:
                at = self.seen.at if self.seen is not None else 0.0
                self._lost(name, replace(cursor, next=number), number - cursor.next, at)

    def _lost(self, name: str, cursor: Cursor, gone: int, at: float) -> None:
        lost, untold = cursor.lost + gone, cursor.untold + gone
        self._set(name, replace(cursor, lost=lost, lost_at=at, untold=untold))

    def _resume(self) -> list[int]:
        """Go on behind the last sound mark; what stands behind it was never written.

        Returns the segments, newest first, of which not even the mark is sound that they began
        with: the numbers go on behind what seem to be their messages, in a new one.
        """
        damaged = []
        for first in reversed(self._firsts()):
            path = self._path(first)
            data = path.read_bytes()
            whole = whole_of(data)
            if whole.seen is None:
                if len(data) > MARK_BYTES:
                    damaged.append(first)
                    self.next_number = max(self.next_number, first + seeming(data))
                else:
                    path.unlink()  # it was just begun
                continue
            self.seen = whole.seen if whole.seen != NOTHING else None
            if damaged:
                break
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            os.ftruncate(self._file, whole.size)
            os.fsync(self._file)
            self._size = whole.size
            self.next_number = first + whole.messages
            break
        return damaged

    def _put_aside(self, damaged: list[int]) -> None:
        """First it is known, then it is done."""
        if not damaged:
            return
        first, at = damaged[-1], self._path(damaged[0]).stat().st_mtime
        for name, cursor in self._cursors.items():
            gone = self.next_number - max(cursor.next, first)
            if gone > 0:
                behind = self.next_number if cursor.next >= first else cursor.next
                self._lost(name, replace(cursor, next=behind), gone, at)
        for first in damaged:
            self._path(first).rename(self._path(first).with_suffix(_DAMAGED))
        sync_folder(self._folder)

    # --- reading

    def read(self, number: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        """Messages with their numbers, from a number on or from the oldest that is there.

        As many as stand in one segment and fit, one at least; none, if there are none yet. Raises
        AuditError.
        """
        with self._lock, _telling("read"):
            firsts = [first for first in self._firsts() if first < self.next_number]
            while firsts and number < self.next_number:
                first = max((f for f in firsts if f <= number), default=firsts[0])
                found = messages_in(self._path(first).read_bytes(), first)
                taken = list(_fitting((m for m in found if m[0] >= number), limit_bytes))
                if taken:
                    return taken
                later = [f for f in firsts if f > first]
                if not later:
                    break
                number = later[0]  # a damaged segment ends early
        return []

    def cursor(self, name: str) -> Cursor:
        """How far a reader got."""
        with self._lock:
            return self._cursors[name]

    def advance(self, name: str, number: int) -> None:
        """A reader has all before that number, for good. Raises AuditError."""
        with self._lock, _telling("written"):
            cursor = self._cursors[name]
            if number > cursor.next:
                self._set(name, replace(cursor, next=number))

    def told(self, name: str, untold: int) -> None:
        """A message tells of so many that were lost. Raises AuditError."""
        with self._lock, _telling("written"):
            cursor = self._cursors[name]
            self._set(name, replace(cursor, untold=max(cursor.untold - untold, 0)))

    # --- files

    def _firsts(self) -> list[int]:
        return segments(self._folder)

    def _path(self, first: int) -> Path:
        return self._folder / name_of(first)

    def _read_cursor(self, name: str, first: int) -> Cursor:
        """Who is new, or whose cursor cannot be read, gets all that is there."""
        cursor = read_cursor(self._folder, name)
        if cursor is None or cursor.next > self.next_number:
            return Cursor(next=first)
        return cursor

    def _set(self, name: str, cursor: Cursor) -> None:
        path = self._folder / f"{name}{_CURSOR}"
        part = path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _put(descriptor, json.dumps(asdict(cursor)).encode())
        finally:
            os.close(descriptor)
        part.replace(path)
        sync_folder(self._folder)
        self._cursors[name] = cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What a spool looks like from outside. oldest: the first message that the reader lacks.

    lost, lost_at: as of Cursor.
    """

    waiting: int
    lost: int
    lost_at: float
    oldest: bytes
    seen: Seen | None


def backlog(folder: Path, reader: str) -> Backlog | None:
    """How far a reader is behind, also while the node runs; None where there is no spool.

    Raises AuditError.
    """
    with _telling("read"):
        try:
            firsts = segments(folder)
            if not firsts:
                return None
            last = whole_of((folder / name_of(firsts[-1])).read_bytes())
            end = firsts[-1] + last.messages
            cursor = read_cursor(folder, reader) or Cursor(next=firsts[0])
            start = max((f for f in firsts if f <= cursor.next), default=firsts[0])
            found = messages_in((folder / name_of(start)).read_bytes(), start)
        except FileNotFoundError:
            return None  # it was removed meanwhile, or never there
    return Backlog(
        waiting=max(end - cursor.next, 0),
        lost=cursor.lost,
        lost_at=cursor.lost_at,
        oldest=next((message for number, message in found if number >= cursor.next), b""),
        seen=last.seen,
    )


def read_cursor(folder: Path, name: str) -> Cursor | None:
    """How far a reader got, None where that is not known."""
    try:
        body = json.loads((folder / f"{name}{_CURSOR}").read_bytes())
        return Cursor(
            next=int(body["next"]),
            lost=int(body["lost"]),
            lost_at=float(body["lost_at"]),
            untold=int(body["untold"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _fitting(found: Iterable[tuple[int, bytes]], limit_bytes: int) -> Iterator[tuple[int, bytes]]:
    size = 0
    for number, message in found:
        size += len(message)
        if size > limit_bytes and size > len(message):
            return
        yield number, message


def _put(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fdatasync(descriptor)


def sync_folder(folder: Path) -> None:
    """Return when the names in the folder are durable; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Errors of the disk are those of the audit trail."""
    try:
        yield
    except OSError as error:
        raise AuditError(
            f"the spool of the audit trail cannot be {what}: {error.strerror or error}"
        ) from error
