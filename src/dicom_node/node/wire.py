"""What the node and its receiving processes say to one another: values as JSON, over a socket.

Both ends are the same program, started from the same files. What a peer sent is in strings and
numbers only: no name that is received chooses what is made of it.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import cast

from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Reference,
    Refusal,
    Rejection,
    StoreAnswer,
    StoreRequest,
)
from dicom_node.domain.security import Certificate, Identity
from dicom_node.iod.checks import Problem
from dicom_node.iod.received import Received
from dicom_node.spool.store import Stored

READY = b"ready"
"""What a receiving process says, without being asked, when it can serve."""

_LENGTH = struct.Struct(">I")
_READ_BYTES = 64 * 1024
_TUPLES: dict[str, Callable[..., object]] = {
    kind.__name__: kind for kind in (Reference, FailedReference)
}
_RECORDS = {
    kind.__name__: kind
    for kind in (
        AssociationRequest,
        Certificate,
        CommitmentReport,
        CommitmentRequest,
        Identity,
        Problem,
        Received,
        Refusal,
        Rejection,
        StoreAnswer,
        StoreRequest,
        Stored,
    )
}


class Gone(ConnectionError):
    """The other end is gone."""


class Channel:
    """Messages in both directions, in turn; each end is used by one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._read = bytearray()

    def ask(self, name: str, *arguments: object) -> object:
        """A question, and what is answered. Raises Gone."""
        self.send((name, *arguments))
        return self.receive()

    def send(self, message: object) -> None:
        """Raises Gone."""
        data = json.dumps(packed(message), ensure_ascii=False, separators=(",", ":")).encode()
        try:
            self._socket.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise Gone(f"cannot be told: {error.strerror}") from error

    def receive(self) -> object:
        """The next message. Raises Gone."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return unpacked(json.loads(self._exactly(length)))

    def close(self) -> None:
        """Say nothing any more, and hear nothing."""
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        while len(self._read) < count:
            try:
                data = self._socket.recv(max(_READ_BYTES, count - len(self._read)))
            except OSError as error:
                raise Gone(f"cannot be heard: {error.strerror}") from error
            if not data:
                raise Gone("it has ended")
            self._read += data
        found = bytes(self._read[:count])
        del self._read[:count]
        return found


def packed(value: object) -> object:
    """A value as what JSON has: `unpacked` gives it again, equal and of the same type.

    Strings, numbers and None are themselves; all else is {name of its type: what it holds}.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Mapping):
        return {"dict": {key: packed(item) for key, item in value.items()}}
    if is_dataclass(value):
        return {type(value).__name__: [packed(getattr(value, f.name)) for f in fields(value)]}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [packed(item) for item in value]}
    raise TypeError(f"{type(value).__name__} does not go over the wire")


def unpacked(value: object) -> object:
    """What was packed."""
    if not isinstance(value, dict):
        return value
    ((name, held),) = value.items()
    if name == "dict":
        return {key: unpacked(item) for key, item in held.items()}
    if name == "bytes":
        return bytes.fromhex(held)
    items = [unpacked(item) for item in held]
    if name == "list":
        return items
    if name == "tuple":
        return tuple(items)
    if name in _TUPLES:
        return _TUPLES[name](*items)
    kind = cast("type[object]", _RECORDS[name])
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # all of them are dataclasses
    return kind(**dict(zip(names, items, strict=True)))
