"""What is known of damage to the catalog's file: found once, by any process, told to all."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from dicom_node.domain.errors import CatalogDamaged, CatalogError

REBUILD = "with the node stopped, run: dicom-node catalog rebuild"

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is wrong, not the question or the moment."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE  # the low byte is the primary code


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
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            return CatalogError(f"{doing}: {error}", full=full)
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
