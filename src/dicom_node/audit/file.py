"""The audit file: one message a line, for its owner's eyes; when it is full the next is begun."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.audit.spool import sync_folder
from dicom_node.domain.errors import AuditError


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFile:
    """A file, and those before it: PATH.1 is the one before, PATH.2 older, and so on up to `keep`.

    limit_bytes: a file that would become larger is put aside first.
    """

    path: Path
    limit_bytes: int
    keep: int

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the lines, durable on return. Raises AuditError: some of them may be written."""
        data = b"".join(line + b"\n" for line in lines)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room(len(data))
            self._write(data)
        except OSError as error:
            raise AuditError(
                f"the audit file {self.path} cannot be written: {error.strerror or error}"
            ) from error

    def _make_room(self, more: int) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if not size or size + more <= self.limit_bytes:
            return
        for number in range(self.keep - 1, 0, -1):
            if self._older(number).exists():
                self._older(number).replace(self._older(number + 1))
        if self.keep:
            self.path.replace(self._older(1))
        else:
            self.path.unlink()

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _write(self, data: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data  # a crash left half a line
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            sync_folder(self.path.parent)  # it was just made
