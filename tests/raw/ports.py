"""TCP ports for servers that are started later, or more than once."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no outgoing connection is given.

    The system may give a port of its own choice to any connection, so that a server that was there
    cannot come back to it.
    """
    below = int(_OUTGOING.read_text("ascii").split()[0])
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(12_000, below) if below > 13_000 else 0
        try:
            with socket.create_server(("127.0.0.1", port)) as probe:
                return int(probe.getsockname()[1])
        except OSError:
            continue
