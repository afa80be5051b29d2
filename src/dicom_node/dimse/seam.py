"""The versions of pynetdicom that the front was tested with, and what to do about others."""

from __future__ import annotations

import pynetdicom

FIRST, BEFORE = (3, 0, 4), (3, 1)
"""Tested with versions from FIRST on, and below BEFORE."""


def doubt(version: str = pynetdicom.__version__) -> str:
    """What to tell the operator of another version; "" for one that was tested."""
    parts = version.split(".")
    known = all(part.isdecimal() for part in parts)
    if known and FIRST <= tuple(map(int, parts)) < BEFORE:
        return ""
    return (
        f"this node was tested with pynetdicom {_dotted(FIRST)} and later, below "
        f"{_dotted(BEFORE)}, not with {version}: should peers have trouble with it, set "
        'receive.front = "stock", or install a tested version'
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
