"""Where a command puts its audit messages, for the node to take: each is a file in a folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from dicom_node.audit.xml import LATEST
from dicom_node.domain.errors import AuditError

_MAX = 1000  # messages; the node takes them within seconds, or is not there
_MAX_BYTES = 256 * 1024
_SUFFIX = ".message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A message as XML. well: its outcome is success. path: of its file, once it is posted."""

    at: float
    well: bool
    xml: str
    path: Path | None = None


def post(box: Path, message: Posted, name: str) -> None:
    """Leave a message under a name that nobody else uses. Raises AuditError."""
    part, path = box / f"{name}.part", box / f"{name}{_SUFFIX}"
    try:
        box.mkdir(parents=True, exist_ok=True, mode=0o700)
        if len(os.listdir(box)) >= _MAX:  # noqa: PTH208  # names alone, and no more than a count
            raise AuditError(f"{box} is full: is the node running, with an audit trail?")
        body = json.dumps({"at": message.at, "well": message.well, "xml": message.xml})
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        raise AuditError(f"{box} cannot be written: {error.strerror or error}") from error


def posted(box: Path, limit: int) -> list[Posted]:
    """The oldest messages that wait there. What is no message is removed. Raises AuditError."""
    try:
        paths = sorted(box.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)[:limit]
        return [message for path in paths if (message := _read(path)) is not None]
    except OSError as error:
        raise AuditError(f"{box} cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> Posted | None:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError
        body = json.loads(path.read_text("utf-8"))
        at, well, xml = float(body["at"]), bool(body["well"]), str(body["xml"])
        if "\n" in xml or not 0 <= at <= LATEST:
            raise ValueError
        return Posted(at=at, well=well, xml=xml, path=path)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        path.unlink(missing_ok=True)
        return None


def take_away(messages: list[Posted]) -> None:
    """They are told. Raises AuditError."""
    try:
        for message in messages:
            if message.path is not None:
                message.path.unlink(missing_ok=True)
    except OSError as error:
        raise AuditError(f"the audit box cannot be written: {error.strerror or error}") from error
