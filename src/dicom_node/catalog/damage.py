"""What is known of damage to the catalog's file: found once, by any process, told to all."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from dicom_node.domain.errors import CatalogDamaged, CatalogError

REBUILD = "with the node stopped, run: dicom-node catalog rebuild"

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OF_THE_MOMENT = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR,
    }
)  # fmt: skip
_UNREADABLE = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_DATA,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
    }
)  # fmt: skip
_FOR_WANT_OF_ROOM = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_ROOM_BYTES = 64 * 1024  # what SQLite needs beside the file, to so much as read it


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is wrong, not the question or the moment."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE  # the low byte is the primary code


def is_unreadable(error: sqlite3.Error) -> bool:
    """Whether what the file holds cannot be read, now or later: damage, and bytes that the disk
    does not give. Not so a lock, a missing right, or want of room."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code in _UNREADABLE or code & 0xFF not in _OF_THE_MOMENT


def is_full(path: Path, error: sqlite3.Error) -> bool:
    """Whether there is no room on the disk of the catalog; SQLite calls it an I/O error where it
    cannot make the file that it shares with other readers."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code & 0xFF == sqlite3.SQLITE_FULL:
        return code is not None
    if code & 0xFF not in _FOR_WANT_OF_ROOM:
        return False
    try:
        state = os.statvfs(path.parent)
    except OSError:
        return False
    return state.f_bavail * state.f_frsize < _ROOM_BYTES


def mark_of(path: Path) -> Path:
    """The file beside the catalog that says it was found damaged."""
    return path.with_name(f"{path.name}.damage")


def damaged(path: Path, detail: str) -> CatalogDamaged:
    """The sentence for the operator."""
    return CatalogDamaged(f"the catalog {path.name} is damaged ({detail}): {REBUILD}")


class Damage:
    """The memory of one catalog file: whoever meets damage writes it down beside the file.

    From then on nobody writes to the catalog any more: what follows damage makes it worse, and what
    is committed to it may not be found again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = mark_of(path)

    def error(self, doing: str, error: sqlite3.Error) -> CatalogError:
        """What to raise for an error of SQLite; damage is remembered."""
        if not is_damage(error):
            full = is_full(self._path, error)
            return CatalogError(f"{doing}: {'the disk is full' if full else error}", full=full)
        with contextlib.suppress(OSError):
            self._mark.touch(mode=0o600)
            self._mark.write_text(f"{error}\n", encoding="utf-8")
        return damaged(self._path, str(error))

    def check(self) -> None:
        """Raise CatalogDamaged if any process has met damage."""
        if self._mark.exists():
            raise damaged(self._path, found_damage(self._path))


def found_damage(path: Path) -> str:
    """What was met, "" if nothing was."""
    try:
        return mark_of(path).read_text("utf-8", "replace").strip() or "it was found damaged"
    except FileNotFoundError:
        return ""
    except OSError:
        return "it was found damaged"
