"""Mistakes in the operator's words: the path, the value that stands there, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dicom_node.config.kinds import SECRET, Section
from dicom_node.config.schema import File

_KINDS: dict[object, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path of a folder",
}


def of_validation(error: ValidationError, document: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that the schema refuses."""
    details = error.errors(include_url=False)
    inner = {detail["loc"][:-1] for detail in details}
    told = [d for d in details if d["type"] != "too_short" or d["loc"] not in inner]
    return [_sentence(detail, document) for detail in told]


def keys_of(section: type[Section]) -> dict[str, FieldInfo]:
    """The keys as the operator writes them."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_of(annotation: object) -> type[Section] | None:
    """The class of a section or of a list of sections, None for a plain key."""
    for found in (annotation, *get_args(annotation)):
        if isinstance(found, type) and issubclass(found, Section):
            return found
    return None


def allowed(field: FieldInfo) -> str:
    """What may stand there: 'whole number from 1 to 65535', '"refuse" or "accept"', ..."""
    return (_called(field.metadata) or _kind(field.annotation)) + _limits(field.metadata)


def did_you_mean(given: str, possible: Iterable[str]) -> str:
    """A hint for what looks like a slip, else nothing."""
    names = sorted(possible)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if not close:
        by_lower = {name.lower(): name for name in names}
        close = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=0.6)
        close = [by_lower[name] for name in close]
    return f" (did you mean '{close[0]}'?)" if close else ""


def shown(value: object) -> str:
    """A value as it stands in the file, cut where it is long."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    if isinstance(value, dict):
        text = "a table"
    return text if len(text) <= 60 else text[:57] + "..."


def path_of(location: Sequence[int | str], document: Mapping[str, Any]) -> str:
    """`peer[1].port (of 'pacs')`: counted from 0, with the name where there is one."""
    path, owner = "", ""
    at: Any = document
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
        at = _child(at, part)
        if isinstance(part, int) and isinstance(_child(at, "name"), str):
            owner = f" (of {shown(at['name'])})"
    return path + owner


def _child(value: Any, part: int | str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _sentence(detail: ErrorDetails, document: Mapping[str, Any]) -> str:
    location = detail["loc"]
    path = path_of(location, document)
    section, field = _place(location)
    if detail["type"] == "extra_forbidden":
        last, keys = str(location[-1]), keys_of(section)
        hint = did_you_mean(last, keys)
        return f"{path}: there is no such key{hint}; there are: {', '.join(keys)}"
    if detail["type"] == "missing":
        return f"{path} is missing: {_wanted(field)}"
    value = detail["input"]
    is_secret = field is not None and SECRET in field.metadata
    given = "not right" if is_secret else shown(value)  # what stands there may be the secret
    if detail["type"] == "value_error":
        return f"{path} is {given}: {detail['ctx']['error']}"
    hint = ""
    if detail["type"] == "literal_error" and isinstance(value, str):
        hint = did_you_mean(value, _literals(field.annotation if field else None))
    in_list = isinstance(location[-1], int)
    return f"{path} is {given}: {_wanted(field, in_list=in_list)}{hint}"


def _wanted(field: FieldInfo | None, *, in_list: bool = False) -> str:
    if field is None:
        return "a table is wanted"
    section = section_of(field.annotation)
    if section is None:
        what = _element(field.annotation) if in_list else allowed(field)
        return f"{what} is wanted"
    table = in_list or section is field.annotation
    return "a table is wanted" if table else "a list of tables is wanted"


def _place(location: Sequence[int | str]) -> tuple[type[Section], FieldInfo | None]:
    """The section that a location leads into, and the last key on the way that is known."""
    section: type[Section] = File
    field: FieldInfo | None = None
    for key in (part for part in location if isinstance(part, str)):
        found = keys_of(section).get(key)
        if found is None:
            break
        field = found
        section = section_of(found.annotation) or section
    return section, field


def _literals(annotation: object) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(a) for a in get_args(annotation)]
    return [text for a in get_args(annotation) for text in _literals(a)]


def _kind(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'"{a}"' for a in arguments)
    if origin in (tuple, frozenset):
        inner = ", ".join(f'"{a}"' for a in _literals(annotation))
        return f"list of {inner or _kind(arguments[0])}"
    if origin is Annotated:
        return _called(annotation.__metadata__) or _kind(arguments[0])  # type: ignore[attr-defined]
    if annotation in _KINDS:
        return _KINDS[annotation]
    return next((_kind(a) for a in arguments if a is not type(None)), "text")


def _called(metadata: Iterable[object]) -> str:
    """What a value of a kind of our own is called."""
    return next((one for one in metadata if isinstance(one, str)), "")


def _element(annotation: object) -> str:
    """What may stand in a list."""
    return " or ".join(f'"{a}"' for a in _literals(annotation)) or _kind(get_args(annotation)[0])


def _limits(metadata: Sequence[object]) -> str:
    lower, upper = "", ""
    for limit in metadata:
        match limit:
            case annotated_types.Ge(ge):
                lower = f" from {ge:g}"
            case annotated_types.Gt(gt):
                lower = f" above {gt:g},"
            case annotated_types.Le(le):
                upper = f" up to {le}" if "from" not in lower else f" to {le}"
            case annotated_types.MaxLen(length):
                upper = f" of at most {length} characters"
            case annotated_types.MinLen(1):
                lower = ", not empty"
            case _:
                pass
    return (upper + lower) if lower == ", not empty" else (lower + upper)
