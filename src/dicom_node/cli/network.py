"""The commands that talk to a peer: `echo`, `find`, `move`, `get`, `send`."""

from __future__ import annotations

from dicom_node.cli.query import echo, find
from dicom_node.cli.retrieve import get, move
from dicom_node.cli.send import send

__all__ = ["echo", "find", "get", "move", "send"]
