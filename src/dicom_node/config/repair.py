"""A file with mistakes, made valid just so far that the checks across keys still run on it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

_TABLES = ("peer", "route")


def repaired(document: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """The document without what was refused: defaults stand in, or names that nobody uses."""
    whole = copy.deepcopy(document)
    for detail in error.errors(include_url=False):
        _repair(whole, detail["loc"])
    return whole


def _repair(whole: dict[str, Any], location: Sequence[int | str]) -> None:
    first = location[0]
    rest = location[1:]
    section = whole.get(str(first))
    if first in _TABLES and rest and isinstance(section, list) and isinstance(rest[0], int):
        index = rest[0]
        stand_in = _stand_in(str(first), index)
        if len(rest) == 1 or not isinstance(section[index], dict):
            section[index] = stand_in
            return
        _replace(section[index], str(rest[1]), stand_in)
    elif rest and isinstance(section, dict):
        section.pop(str(rest[0]), None)
    else:
        whole.pop(str(first), None)


def _replace(table: dict[str, Any], key: str, stand_in: dict[str, Any]) -> None:
    if key in stand_in:
        table[key] = stand_in[key]
    else:
        table.pop(key, None)


def _stand_in(table: str, index: int) -> dict[str, Any]:
    """The keys without a default."""
    name = f"unreadable-{index}"
    if table == "route":
        return {"name": name, "tool": name}
    return {
        "name": name,
        "ae_title": f"UNREADABLE-{index}"[:16],
        "host": name,
        "port": 65535 - index,
    }
