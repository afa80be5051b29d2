"""How many descriptors a node may need at once, and may have."""

from __future__ import annotations

import resource

from dicom_node.config.load import Config
from dicom_node.decide.eviction import Crowd

_ITS_OWN = 256  # the catalog, the spool, deliveries, what it tells of itself
_EACH = 3  # an association: its connection, a file, a socket to the process that receives


def needed(config: Config) -> int:
    """With as many associations as there may be."""
    waiting = 2 * Crowd().total  # a connection, and that socket
    return _ITS_OWN + waiting + _EACH * config.receive.max_associations


def attainable() -> int | None:
    """As many as this user may have; None is without limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def provide(config: Config) -> bool:
    """Raise this process's limit if it is too low, as far as it may be; whether it is enough.

    What it starts inherits it.
    """
    wanted, most = needed(config), attainable()
    had, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = most is None or most >= wanted
    if had != resource.RLIM_INFINITY and had < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if enough else hard, hard))
    return enough
