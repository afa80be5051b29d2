"""The calls by which the spool touches the disk, in one object that a test can make fail."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from dicom_node.spool.filesystem import names_follow_files


class Disk:
    """The operating system's disk. Every call raises OSError."""

    def open(self, path: Path) -> int:
        """Create a file (0600, FileExistsError if it is there), locked while its writer lives."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, chunks: Sequence[memoryview | bytes]) -> int:
        """Write as much as the disk takes; returns the bytes written, which may be fewer."""
        return os.writev(descriptor, chunks)

    def sync(self, descriptor: int) -> None:
        """Return when the file's bytes and length are durable."""
        os.fdatasync(descriptor)

    def names_follow_files(self, folder: Path) -> bool:
        """Whether sync_named does there what else takes sync and sync_folder."""
        return names_follow_files(folder)

    def rename(self, source: Path, target: Path) -> None:
        """Give the file its name; durable only after sync_folder, or sync_named."""
        source.rename(target)

    def sync_named(self, descriptor: int) -> None:
        """Return when the file's bytes, length and name are durable, where names follow files."""
        os.fsync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in the folder are durable."""
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Return when the names in the folder are durable; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
