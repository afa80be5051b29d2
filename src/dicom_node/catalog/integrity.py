"""Is the catalog's file sound? Looked at without changing anything, and for a limited time.

SQLite finds a damaged page only when it reads it, and takes a write-ahead log with a damaged header
for an empty one: what was committed last is then gone without a word. So both are looked at before
the node speaks.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from dicom_node.catalog.damage import Damage, found_damage, is_damage

NO_LIMIT_S = float("inf")
WAIT_S = 30.0  # for who has locked the catalog

_OPCODES = 20_000  # of SQLite's machine between two looks at the clock
_MOST = 20  # problems that are told
_WAL_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, salts, checksums
_FRAME_HEADER = struct.Struct(">6I")  # page, pages after a commit, salts, checksums
_WAL_MAGIC = frozenset({0x377F0682, 0x377F0683})
_WAL_VERSION = 3_007_000
_CHECKED_BYTES = 64 * 1024 * 1024  # of a write-ahead log: checksums are slow here


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """problems: one sentence each. whole: everything was looked at before the time was up."""

    problems: tuple[str, ...]
    whole: bool


def wal_of(path: Path) -> Path:
    """The write-ahead log of a catalog."""
    return path.with_name(f"{path.name}-wal")


def is_absent(path: Path) -> bool:
    """Whether there is no catalog: no file, or one without a byte."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def examine(path: Path, *, seconds: float = NO_LIMIT_S, indexes: bool = True) -> Examination:
    """Every page, every row, and (indexes) every index, of a catalog that may be in use.

    Nothing is written. A catalog in which damage was met before is not sound, unless all of it is.
    Raises CatalogError where it cannot be looked at.
    """
    deadline = perf_counter() + seconds
    problem = wal_problem(wal_of(path))
    if problem:
        return Examination(problems=(problem,), whole=True)
    with opened(path) as db:
        try:
            found, whole = _pragma(db, "quick_check", deadline)
            if whole and not found and indexes:
                found, whole = _pragma(db, "integrity_check", deadline)
        except sqlite3.Error as error:
            raise Damage(path).error("the catalog cannot be read", error) from error
    met = found_damage(path)
    if met and not found and not (whole and indexes):
        found = (met,)
    return Examination(problems=found, whole=whole)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file for reading only: neither it nor its log is changed, not even when it is closed."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=WAIT_S
    )
    db.row_factory = sqlite3.Row
    try:
        yield db
    finally:
        db.close()


def _pragma(db: sqlite3.Connection, name: str, deadline: float) -> tuple[tuple[str, ...], bool]:
    """What the check found, and whether it came to its end."""
    late: Callable[[], bool] = lambda: perf_counter() > deadline  # noqa: E731
    db.set_progress_handler(late, _OPCODES)
    try:
        rows = db.execute(f"PRAGMA {name}({_MOST})").fetchall()
    except sqlite3.Error as error:
        if is_damage(error):
            return (str(error),), True
        if late():
            return (), False
        raise
    finally:
        db.set_progress_handler(None, 0)
    said = [str(row[0]).strip().splitlines()[-1] for row in rows]
    return tuple(line for line in said if line != "ok"), True


def wal_problem(wal: Path) -> str:
    """Why a write-ahead log cannot be trusted, "" if it can.

    A log that ends in an unfinished transaction is as it should be after a power cut. One in which
    a later transaction follows what cannot be read is not: each is synced before the next begins.
    """
    try:
        with wal.open("rb") as file:
            data = file.read(_CHECKED_BYTES)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"its write-ahead log cannot be read: {error.strerror}"
    if len(data) <= _WAL_HEADER.size:
        return ""  # made, and nothing written yet
    magic, version, page_bytes, _, *salts, sum_0, sum_1 = _WAL_HEADER.unpack_from(data)
    order = ">" if magic & 1 else "<"
    running = _checksum(order, memoryview(data)[:24], (0, 0))
    if magic not in _WAL_MAGIC or version != _WAL_VERSION or running != (sum_0, sum_1):
        return "the header of its write-ahead log is damaged"
    return _frames_problem(memoryview(data), page_bytes, salts, order, running)


def _frames_problem(
    data: memoryview,
    page_bytes: int,
    salts: list[int],
    order: str,
    running: tuple[int, int],
) -> str:
    size = _FRAME_HEADER.size + page_bytes
    bad_since_commit = 0
    readable = True
    for start in range(_WAL_HEADER.size, len(data) - size + 1, size):
        frame = data[start : start + size]
        _, commit, salt_0, salt_1, sum_0, sum_1 = _FRAME_HEADER.unpack_from(frame)
        if [salt_0, salt_1] != salts:
            break  # of an earlier round of the log
        if readable:
            running = _checksum(order, frame[:8], running)
            running = _checksum(order, frame[_FRAME_HEADER.size :], running)
            readable = running == (sum_0, sum_1)
        if not readable:
            if bad_since_commit:
                return "its write-ahead log is damaged in the middle"
            bad_since_commit = int(commit > 0)
    return ""


def _checksum(order: str, words: memoryview, running: tuple[int, int]) -> tuple[int, int]:
    """SQLite's own, over pairs of 32-bit words."""
    s0, s1 = running
    for a, b in struct.iter_unpack(f"{order}II", words):
        s0 = (s0 + a + s1) & 0xFFFFFFFF
        s1 = (s1 + b + s0) & 0xFFFFFFFF
    return s0, s1


def _closed_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.closed")


def _look_of(path: Path) -> dict[str, int]:
    state = path.stat()
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}


def note_closed(path: Path) -> None:
    """Write down how the file looks after an orderly end."""
    with contextlib.suppress(OSError):
        if not is_absent(wal_of(path)):
            return  # somebody else has it open
        _closed_of(path).write_text(json.dumps(_look_of(path)), "utf-8")


def take_closed(path: Path) -> bool:
    """Whether the file looks as it did at the last orderly end. Asked once: the note is taken."""
    note = _closed_of(path)
    try:
        said = json.loads(note.read_text("utf-8"))
        note.unlink()
        return bool(said == _look_of(path)) and is_absent(wal_of(path))
    except (OSError, ValueError):
        return False
