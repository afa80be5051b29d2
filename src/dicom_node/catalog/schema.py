"""Opening the catalog: pragmas, numbered migrations, and triggers made from the state tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from dicom_node.catalog.damage import Damage
from dicom_node.domain.errors import CatalogError
from dicom_node.domain.states import (
    DELIVERY_TRANSITIONS,
    SERIES_TRANSITIONS,
    STEP_TRANSITIONS,
)

BUSY_S = 30.0


def connect(path: Path) -> sqlite3.Connection:
    """Open (and make or migrate) the catalog at `path`, durable at each commit.

    WAL with synchronous FULL: a committed transaction survives a power cut. Raises CatalogError for
    a file that is no catalog, or is damaged.
    """
    try:
        path.touch(mode=0o600, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        _migrate(connection)
    except sqlite3.Error as error:
        raise Damage(path).error(f"the catalog {path.name} cannot be opened", error) from error
    except OSError as error:
        raise CatalogError(f"the catalog {path.name} cannot be opened: {error}") from error
    return connection


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the catalog is as this version of the node makes it: False for an older one, which
    the next start brings up to date. Raises CatalogError for a newer one."""
    done, newest = _version(connection), _scripts()[-1][0]
    if done > newest:
        raise CatalogError("the catalog was written by a newer version of the node")
    return done == newest


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _scripts() -> list[tuple[int, Traversable]]:
    """The migrations by number."""
    return sorted(
        (
            (int(entry.name.removesuffix(".sql")), entry)
            for entry in resources.files("dicom_node.catalog").joinpath("migrations").iterdir()
            if entry.name.endswith(".sql")
        ),
        key=lambda script: script[0],
    )


def _migrate(connection: sqlite3.Connection) -> None:
    done = _version(connection)
    is_current(connection)
    for number, script in _scripts():
        if number <= done:
            continue
        text = script.read_text(encoding="utf-8")
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{text}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.OperationalError:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if _version(connection) < number:
                raise  # else another process has migrated meanwhile
    connection.executescript("\n".join(_triggers()))


def _triggers() -> Iterable[str]:
    """One trigger a table: any transition that domain.states does not hold is refused."""
    machines: tuple[tuple[str, Mapping[Any, frozenset[Any]]], ...] = (
        ("series", SERIES_TRANSITIONS),
        ("step", STEP_TRANSITIONS),
        ("delivery", DELIVERY_TRANSITIONS),
    )
    for table, transitions in machines:
        allowed = " OR ".join(
            f"(OLD.state = '{old}' AND NEW.state IN ({_quoted(new)}))"
            for old, new in transitions.items()
            if new
        )
        yield (
            f"CREATE TEMP TRIGGER {table}_transition BEFORE UPDATE OF state ON main.{table} "
            f"WHEN OLD.state <> NEW.state AND NOT ({allowed}) BEGIN "
            f"SELECT RAISE(ABORT, '{table}: illegal transition'); END;"
        )


def _quoted(states: frozenset[str]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))
