"""What the associations of a server share: who stands behind them, and who counts them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol

from dicom_node.dimse.contexts import Answerable
from dicom_node.dimse.contract import Committer, Limits, Receiver
from dicom_node.dimse.tls import Contexts


class Connection(Protocol):
    """What the gate needs to know of a connection."""

    @property
    def address(self) -> str:
        """Whence it comes."""

    def interrupt(self, reason: str = "") -> None:
        """End it soon, from another thread. reason: what the peer did; "": nothing."""


class Gate(Protocol):
    """Who may be in at once; see front."""

    def arrive(self, association: Connection) -> None:
        """A connection was accepted; if too many wait, one that waits is ended."""

    def admit(self, association: Connection) -> bool:
        """Count a connection as an association, unless there are too many."""

    def see_out(self, association: Connection) -> bool:
        """It is over, but for the peer's closing: count it as a connection until it leaves.

        False: it gave way meanwhile, and is to be closed at once.
        """

    def leave(self, association: Connection) -> None:
        """Stop counting it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all associations of a server share. secure: they begin with TLS; None: they do not."""

    receiver: Receiver
    limits: Limits
    contexts: Answerable
    gate: Gate
    committer: Committer | None = None
    secure: Contexts | None = None


class Elsewhere(Protocol):
    """Other processes that receive on this port."""

    def take(self, connection: socket.socket, address: tuple[str, int], house: House) -> bool:
        """Serve it there, unless nobody can: then it is to be served here. It is not closed."""
