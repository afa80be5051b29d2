"""The node's end of an association that another process receives: what that one asks is answered.

All that is decided or recorded is so here, in one process: the receiving ones hold nothing that a
crash of theirs could lose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from dicom_node.dimse.answers import asked
from dicom_node.dimse.contract import AssociationRequest, Rejection
from dicom_node.dimse.house import Connection, House
from dicom_node.node.quotas import Flight
from dicom_node.node.receive import StorageReceiver
from dicom_node.node.wire import Channel, Gone

LOST = "lost"
"""How an association ended whose receiving process died."""


class Desk:
    """Answers for one connection, in a thread of its own."""

    def __init__(
        self, channel: Channel, connection: Connection, house: House, receiver: StorageReceiver
    ) -> None:
        self._channel = channel
        self._connection = connection
        self._house = house
        self._receiver = receiver
        self._number: int | None = None  # while it is open
        gate, committer = house.gate, house.committer
        self._questions: Mapping[str, Callable[..., Any]] = {
            "let_in": lambda: gate.admit(connection),
            "see_out": lambda: gate.see_out(connection),
            "admit": self._admit,
            "ended": self._ended,
            "idle_s": receiver.idle_s,
            "identifies": receiver.identifies,
            "unsecured": receiver.unsecured,
            "is_metered": lambda number: receiver.flight(number) is not None,
            "began": lambda number: self._flight(number).began(),
            "came": lambda number, count: self._flight(number).came(count),
            "landed": lambda number: self._flight(number).ended(),
            "echoed": receiver.echoed,
            "refused": receiver.refused,
            "rejected": receiver.rejected,
            "broke": receiver.broke,
            "may_begin": receiver.may_begin,
            "refuse": receiver.refuse,
            "record": receiver.record_of_another,
            **({"asked": committer.asked, "reported": committer.reported} if committer else {}),
        }

    def run(self) -> None:
        """Answer until the other end is gone."""
        try:
            while True:
                name, *arguments = cast("tuple[Any, ...]", self._channel.receive())
                self._channel.send(asked(partial(self._questions[name], *arguments)))
        except Gone:
            pass
        finally:
            number = self._number
            if number is not None:
                asked(lambda: self._ended(number, LOST))
            self._house.gate.leave(self._connection)
            self._channel.close()

    def _admit(self, request: AssociationRequest) -> int | Rejection:
        verdict = self._receiver.admit(request)
        if isinstance(verdict, int):
            self._number = verdict
        return verdict

    def _flight(self, number: int) -> Flight:
        """Asked for by who knows that there is one."""
        flight = self._receiver.flight(number)
        if flight is None:
            raise LookupError("nothing of this association is counted")
        return flight

    def _ended(self, number: int, how: str) -> None:
        self._number = None
        self._receiver.ended(number, how)
