"""Events as JSON and back."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from dicom_node.domain import events as e

_KINDS: dict[str, type] = {kind.__name__: kind for kind in get_args(e.Event)}


_hints = functools.cache(get_type_hints)  # evaluates source text: slow
_fields = functools.cache(dataclasses.fields)


def kind_of(event: e.Event) -> str:
    """The name under which the event is stored."""
    return type(event).__name__


def to_json(event: e.Event) -> str:
    """The event's fields, compact; tuples become lists."""
    return _ENCODER.encode(event)


def from_json(kind: str, body: str) -> e.Event:
    """The event again, equal to the one that was written. KeyError for an unknown kind."""
    return typing.cast(e.Event, _rebuild(_KINDS[kind], json.loads(body)))


def _plain(value: Any) -> dict[str, Any]:
    """What JSON has no form for: a value of the domain, or a mapping that is no dict."""
    if isinstance(value, Mapping):
        return dict(value)
    kind: Any = type(value)
    return {field.name: getattr(value, field.name) for field in _fields(kind)}


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain)


def _rebuild(hint: Any, value: Any) -> Any:
    """`value` (parsed JSON) as the type that `hint` names."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = _hints(hint)
        return hint(**{name: _rebuild(hints[name], item) for name, item in value.items()})
    origin = get_origin(hint)
    if origin is tuple:
        return tuple(value)
    if origin in (types.UnionType, typing.Union):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        return None if value is None else _rebuild(inner[0], value)
    if origin is not None and isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    return value


def _frozen(item: Any) -> Any:
    return tuple(item) if isinstance(item, list) else item
