"""Which process has the other end of a connection, as the kernel tells."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path


def holds(pid: int, connection: socket.socket) -> bool:
    """Whether that process has the other end of a connection."""
    ours, theirs = connection.getsockname()[1], connection.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        words = line.split()
        local, remote = (int(words[n].split(":")[1], 16) for n in (1, 2))
        if (local, remote) == (theirs, ours):
            return f"socket:[{words[9]}]" in open_files(pid)
    return False


def has_ended(pid: int) -> bool:
    """Whether nothing of a process is left, but that nobody has asked how it ended.

    The first of its threads may have ended long before the last, which closes what they had open.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except OSError:
        return True


def open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # the process is gone
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed meanwhile
                found.add(str(entry.readlink()))
    return found
