"""The events of one catalog folded again: into the tables of another, or to compare the two."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dicom_node.catalog import codec
from dicom_node.catalog.damage import Damage, is_unreadable
from dicom_node.catalog.fold import fold
from dicom_node.catalog.integrity import opened
from dicom_node.catalog.schema import connect
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogError

Progress = Callable[[int, int], None]
"""progress(done, total), in events."""

_BATCH = 2000  # events in one transaction
_LEAP_MAX = 1 << 20  # events stepped over at once, where some cannot be read
_CONTENT = (
    *(sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError),
    *(KeyError, TypeError, ValueError, OverflowError),
)
"""What an event raises that is not what it was; other errors are those of the disk."""

_NOT_HISTORY = {"step": frozenset({"lease_until"})}
"""Columns that change without an event."""


class Unfoldable(CatalogError):
    """The events themselves cannot be read to the last, or be folded."""


def refold(old: Path, new: Path, progress: Progress) -> bool:
    """Copy every event of `old` into a new catalog at `new`, and fold it there.

    False if some event cannot be read or be folded: what is at `new` is then of no use. Events are
    numbered without a gap from the first to the last; a gap is a loss. Raises CatalogError for what
    says nothing of the events: no room for the new catalog, the old one is locked.
    """
    try:
        with opened(old) as source, connected(new) as target:
            with _reading(old):
                last = _last(source)
            with closing(_events(source, old)) as rows:
                _fold_all(rows, target, progress, last, keep=True)
    except Unfoldable:
        return False
    except sqlite3.Error as error:
        doing = "the new catalog cannot be made, and the old one is as it was"
        raise Damage(new).error(doing, error) from error
    return True


def differences(path: Path, scratch: Path, progress: Progress) -> dict[str, int]:
    """Table -> how many rows of it are not what the events make of them; one moment of a catalog
    that may be in use.

    scratch: where the tables are made anew, for the time of the comparison. Raises Unfoldable,
    and CatalogError where it is not the events that stand in the way.
    """
    try:
        connect(scratch).close()
        with opened(path) as db:
            db.execute("ATTACH ? AS again", (f"{scratch.absolute().as_uri()}?mode=ro",))
            db.execute("BEGIN")  # reads from here on see one state of the catalog
            with connected(scratch) as target:
                target.execute("PRAGMA synchronous = OFF")  # it need not survive anything
                with _reading(path):
                    last = _last(db)
                with closing(_events(db, path)) as rows:
                    _fold_all(rows, target, progress, last, keep=False)
            found = {table: _different(db, table) for table in _tables(db)}
            db.execute("COMMIT")
        return {table: count for table, count in found.items() if count}
    except sqlite3.Error as error:
        raise Damage(path).error("the catalog cannot be compared with its events", error) from error
    finally:
        remove(scratch)


def remove(path: Path) -> None:
    """Delete a catalog that was made to be deleted."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def salvage(old: Path) -> Iterator[e.Event]:
    """The events of a damaged catalog that can still be read, in order; none if nothing can."""
    try:
        with opened(old) as db:
            for row in _readable(db):
                try:
                    yield codec.from_json(row["kind"], row["body"])
                except (KeyError, TypeError, ValueError):
                    continue  # the page was readable, and its content is not
    except sqlite3.Error:
        return


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A catalog that only we know of; what is in its log is in the file afterwards."""
    db = connect(path)
    try:
        yield db
    finally:
        db.close()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What cannot be read of the events is told from what cannot be written, or not just now."""
    try:
        yield
    except sqlite3.Error as error:
        if is_unreadable(error):
            raise Unfoldable(f"the events cannot be read: {error}") from error
        raise Damage(path).error("the catalog cannot be read", error) from error


def _events(source: sqlite3.Connection, path: Path) -> Generator[sqlite3.Row, None, None]:
    with _reading(path):
        yield from source.execute("SELECT * FROM event ORDER BY number")


def _fold_all(
    rows: Iterable[sqlite3.Row],
    target: sqlite3.Connection,
    progress: Progress,
    total: int,
    *,
    keep: bool,
) -> None:
    """Fold the events; keep: write them, too. Raises Unfoldable, and sqlite3.Error of `target`."""
    expected: int | None = None
    done = 0
    target.execute("BEGIN")
    for row in rows:
        number = int(row["number"])
        if expected is not None and number != expected:
            raise Unfoldable(f"the events of the catalog have a gap at number {expected}")
        expected = number + 1
        _fold_one(row, target, keep=keep)
        done += 1
        if done % _BATCH == 0:
            target.execute("COMMIT")
            progress(done, max(total, done))
            target.execute("BEGIN")
    target.execute("COMMIT")
    progress(done, done)
    if expected is not None and expected != total + 1:
        raise Unfoldable("the events of the catalog end too early")


def _fold_one(row: sqlite3.Row, target: sqlite3.Connection, *, keep: bool) -> None:
    number = int(row["number"])
    try:
        if keep:
            target.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", tuple(row))
        fold(target, codec.from_json(row["kind"], row["body"]), number)
    except (*_CONTENT, CatalogError) as error:
        raise Unfoldable(f"event {number} cannot be read, or be folded: {error}") from error


def _last(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(max(number), 0) FROM event").fetchone()[0])


def _readable(db: sqlite3.Connection) -> Iterator[sqlite3.Row]:
    """Every row of `event` that can be had, leaping over what cannot."""
    last, leap, highest = 0, 1, _last_readable(db)
    while last < highest:
        try:
            for row in db.execute("SELECT * FROM event WHERE number > ? ORDER BY number", (last,)):
                last, leap = int(row["number"]), 1
                yield row
            return
        except sqlite3.Error:
            last += leap  # a page holds many events: ever longer leaps find its end soon
            leap = min(leap * 2, _LEAP_MAX)


def _last_readable(db: sqlite3.Connection) -> int:
    """The highest number, or one that is above it in any catalog that a node can have filled."""
    try:
        return _last(db)
    except sqlite3.Error:
        return 1 << 28


def _tables(db: sqlite3.Connection) -> list[str]:
    rows = db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")
    return sorted(row["name"] for row in rows if row["name"] not in ("event", "sqlite_stat1"))


def _different(db: sqlite3.Connection, table: str) -> int:
    """Rows that only one of the two has; a changed row counts once."""
    skipped = _NOT_HISTORY.get(table, frozenset())
    names = [row["name"] for row in db.execute(f"PRAGMA main.table_info({table})")]
    columns = ", ".join(name for name in names if name not in skipped)
    sides = [f"SELECT {columns} FROM {side}.{table}" for side in ("main", "again")]  # noqa: S608
    counts = [
        int(db.execute(f"SELECT count(*) FROM ({one} EXCEPT {other})").fetchone()[0])  # noqa: S608
        for one, other in (sides, reversed(sides))
    ]
    return max(counts)
