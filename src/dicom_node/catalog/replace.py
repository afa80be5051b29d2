"""A new catalog in the place of an old one, at any moment either the one or the other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dicom_node.catalog.damage import mark_of
from dicom_node.domain.errors import CatalogError

INTERRUPTED = "a rebuild of the catalog was interrupted: finish it with dicom-node catalog rebuild"

_SUFFIXES = ("", "-wal", "-shm")


def draft_of(path: Path) -> Path:
    """Where a new catalog is made; of no use until it is finished."""
    return path.with_name(f"{path.name}.rebuilding")


def pending_of(path: Path) -> Path:
    """Where a finished one waits to be put in place; it says that the old one is given up."""
    return path.with_name(f"{path.name}.rebuilt")


def discard_draft(path: Path) -> None:
    """Delete what an interrupted rebuild has left."""
    for suffix in _SUFFIXES:
        _with(draft_of(path), suffix).unlink(missing_ok=True)


def finish_draft(path: Path) -> None:
    """Declare the draft finished: it is closed, and its log is in it. Raises CatalogError."""
    try:
        draft_of(path).rename(pending_of(path))
        _sync(path.parent)
        discard_draft(path)  # the log of who has looked at it, which is empty
    except OSError as error:
        raise CatalogError(f"the new catalog cannot be kept: {error.strerror}") from error


def put_in_place(path: Path, label: str) -> Path | None:
    """Make the finished one the catalog. Returns under which name the old one is kept, if any.

    Whenever it is interrupted, it can be done again. Raises CatalogError.
    """
    aside = path.with_name(f"{path.name}.damaged-{label}")
    try:
        for suffix in _SUFFIXES:
            _keep(_with(path, suffix), _with(aside, suffix))
        _sync(path.parent)
        for suffix in _SUFFIXES[1:]:  # a log would be taken for that of the new one
            _with(path, suffix).unlink(missing_ok=True)
        _sync(path.parent)
        pending_of(path).replace(path)
        mark_of(path).unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise CatalogError(f"the new catalog cannot be put in place: {error.strerror}") from error
    return aside if aside.exists() else None


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _keep(old: Path, aside: Path) -> None:
    if not old.exists() or aside.exists():
        return
    try:
        aside.hardlink_to(old)
    except OSError:  # not every file system has a second name for a file
        shutil.copy2(old, aside)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
