"""What the file system of a folder promises beyond POSIX."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PROC, _SYS = Path("/proc"), Path("/sys")


def names_follow_files(folder: Path) -> bool:
    """Whether fsync of a file makes durable the name, too, that it was given before.

    So it is, as power cuts have shown, on XFS and on an ext4 with a journal: both enter a renaming
    and the file's own change by it in one transaction. Not so on an ext4 without a journal, or an
    ext2, which statfs cannot tell from it; of fast commits of ext4 nothing could be shown. False
    where it cannot be told. To find out, a file is made in the folder, and removed.
    """
    try:
        device = folder.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        kinds = {kind for mounted, kind in _mounts() if mounted == number}
        if kinds != {"ext4"}:
            return kinds == {"xfs"}
        name = (_SYS / "dev" / "block" / number).resolve(strict=True).name
        return _has_journal(name) and not _commits_fast(folder, name)
    except (OSError, ValueError, IndexError):
        return False


def _mounts() -> Iterator[tuple[str, str]]:
    """Device and type of every file system that is mounted: proc_pid_mountinfo(5)."""
    for line in (_PROC / "self" / "mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(" ")
        yield fields[2], fields[fields.index("-", 6) + 1]


def _has_journal(name: str) -> bool:
    task = (_SYS / "fs" / "ext4" / name / "journal_task").read_text("ascii")
    return task.strip().isdigit()  # the id of its process, else "<none>"


def _commits_fast(folder: Path, name: str) -> bool:
    """Whether the journal has its short form, too: then it counts each sync, as one or other."""
    told = _PROC / "fs" / "ext4" / name / "fc_info"
    if not told.exists():
        return False  # a kernel that knows nothing of it
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part") as file:  # else it is swept
        os.fsync(file.fileno())
    return any(int(line.split()[0]) for line in told.read_text("ascii").splitlines()[1:3])
