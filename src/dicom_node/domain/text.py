"""Text from outside, made fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """Control characters escaped: what a peer sends cannot forge a line or drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
