"""Every stage is the same sentence: read due work, judge, act, commit; then sleep until due."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from dicom_node.domain.errors import NodeError, is_lost
from dicom_node.node.bell import MAX_WAIT_S, Listener
from dicom_node.node.clock import Clock

_log = logging.getLogger("dicom_node")
AFTER_ERROR_S = 2.0

T = TypeVar("T")

RunDue = Callable[[float], float | None]
"""run_due(now) -> when there is something to do next, None if nothing is known."""


def run(
    name: str, run_due: RunDue, listener: Listener, clock: Clock, stop: threading.Event
) -> None:
    """Run a stage until `stop` is set; an error of one turn is logged, and the next turn comes.

    Raises what only a fresh process outlives.
    """
    with contextlib.closing(listener):
        while not stop.is_set():
            now = clock.now()
            later: float | None = now + AFTER_ERROR_S
            due = attempt(name, partial(run_due, now), later)
            wait = MAX_WAIT_S if due is None else due - clock.now()
            if not stop.is_set() and wait > 0:
                listener.wait(wait)


def attempt(name: str, work: Callable[[], T], otherwise: T) -> T:
    """What the work returns; its errors are logged, and outlived.

    Raises what only a fresh process outlives.
    """
    try:
        return work()
    except NodeError as error:
        _log.error("%s: %s", name, error)
        if is_lost(error):
            raise
    except Exception:  # noqa: BLE001  # a stage outlives its errors
        _log.exception("%s: an error of the node itself", name)
    return otherwise
