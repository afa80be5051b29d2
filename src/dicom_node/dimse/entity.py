"""pynetdicom's AE as requestor, without the faults of its version 3.0.4 that cost us time."""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import AssociationSocket

from dicom_node.dimse.tls import ClientSocket

_LOOK_S = 0.2  # how often who waits looks whether anything can come


class Entity(AE):  # type: ignore[misc]  # pynetdicom is untyped
    """An AE whose associations lose no response, and leave no socket open.

    And nobody waits on an association that has ended, or for data in TLS where there are none.
    """

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> AssociationSocket:
        """Called for each association before its thread starts."""
        lose_no_response(assoc)
        assoc.dimse.msg_queue = _Coming(assoc)
        assoc.dul.to_user_queue = _Coming(assoc)
        created = _Socket(assoc, address=address)
        created.tls_args = tls_args
        return created


def lose_no_response(association: Any) -> None:
    """Mend an association of pynetdicom's; its thread must not run yet, or be who calls."""
    association._reactor_checkpoint = _Checkpoint(association)  # noqa: SLF001  # no other seam


class _Checkpoint:
    """Where an association's thread waits while a request of ours is under way.

    That thread says that it is paused before it waits here, and takes it back some time after it
    has gone on; a sender that clears the checkpoint in between believes it paused, and the thread
    may then take the response that the sender waits for, and drop it. Here going on and taking it
    back are one step.
    """

    def __init__(self, association: Any) -> None:
        self._association = association
        self._open = True
        self._changed = threading.Condition()

    def set(self) -> None:
        """Let the thread go on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Stop the thread here, when it comes next; who calls waits until `_is_paused`."""
        with self._changed:
            self._open = False

    def wait(self) -> None:
        """Called by the association's thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._open)
            self._association._is_paused = False  # noqa: SLF001


class _Coming(queue.Queue[Any]):
    """What has come over an association, for whoever waits for it.

    When a connection closes, one item says so. The association's thread may take that, and end,
    just before a sender begins to wait, which would then wait for as long as it is allowed to.
    """

    def __init__(self, association: Any) -> None:
        super().__init__()
        self._association = association

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As queue.Queue.get(); raises queue.Empty also where nothing can come any more."""
        ends_at = None if timeout is None else time.monotonic() + timeout
        while block and not self._ended():
            rest_s = _LOOK_S if ends_at is None else ends_at - time.monotonic()
            if rest_s <= 0:
                break
            with suppress(queue.Empty):
                return super().get(timeout=min(rest_s, _LOOK_S))
        return super().get(block=False)

    def _ended(self) -> bool:
        return self._association._kill or not self._association.dul.is_alive()  # noqa: SLF001


class _Socket(AssociationSocket):  # type: ignore[misc]
    """Closes also what cannot be shut down; pynetdicom leaves that to the collector.

    And it waits for no data where TLS has only talked to itself: pynetdicom would hang in recv().
    """

    @property
    def ready(self) -> bool:
        """Whether there are data to be read."""
        held = self.socket
        return bool(super().ready) and (not isinstance(held, ClientSocket) or held.has_come())

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
