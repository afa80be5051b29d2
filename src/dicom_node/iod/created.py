"""What stands in the objects that the node makes, learned by making some (PS3.2, IOD contents).

A handful of small results is encoded as real ones are, each differing from the first in one thing:
what the site decides, what the source and the tool say, what is replaced. So the tables of the
Conformance Statement show where each value comes from, and cannot say what the encoders do not do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from highdicom._standard_utils import (
    get_iod_module_map,
    get_module_attribute_map,
    get_sop_class_iod_map,
)
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_node.iod.sample import object_of, samples
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.iod.transcode import PATIENT_AND_STUDY

COPIED, CONFIGURED, AUTO, FIXED = "COPIED", "CONFIG", "AUTO", "FIXED"
ALWAYS, EMPTY, SOMETIMES = "ALWAYS", "VNAP", "ANAP"  # as PS3.2 calls the presence of a value
_CODE = frozenset({"CodeValue", "CodingSchemeDesignator", "CodeMeaning"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute of an object. path: keywords, from the top level down to its own.

    kind: 1, 1C, 2, 2C or 3 as the module says, "" where it says nothing. presence: ALWAYS, VNAP
    (it may be empty) or ANAP (it may be absent). sources: COPIED, CONFIG, AUTO (computed, or taken
    from source or tool); FIXED alone, and then `value` is the value.
    """

    path: tuple[str, ...]
    tag: int
    kind: str
    presence: str
    sources: tuple[str, ...]
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module of the IOD that has an attribute in the object; usage: M, C or U."""

    name: str
    usage: str
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """An attribute, as it stands in one object."""

    tag: int
    value: str
    empty: bool


_Path = tuple[str, ...]


def modules_of(sop_class_uid: str, settings: SegSettings) -> tuple[Module, ...]:
    """The modules and attributes of the objects of that SOP Class that the node makes.

    sop_class_uid: Segmentation, Secondary Capture Image or Key Object Selection Document Storage.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects = [
            _attributes([object_of(sop_class_uid, sample, Path(folder, str(number)))])
            for number, sample in enumerate(samples(settings))
        ]
    modules = _modules(sop_class_uid)
    found: dict[str, list[Attribute]] = {name: [] for name in modules}
    found[""] = []
    for path in sorted({path for seen in objects for path in seen}, key=_order(objects)):
        home = next((name for name, (_, kinds) in modules.items() if path[:1] in kinds), "")
        kinds = modules[home][1] if home else {}
        found[home].append(_attribute(path, objects, kinds.get(path, "")))
    return tuple(
        Module(name=_title(name), usage=modules[name][0] if name else "", attributes=tuple(some))
        for name, some in found.items()
        if some
    )


def _attributes(items: Sequence[Dataset], above: _Path = ()) -> dict[_Path, _Seen]:
    """Every attribute by its path, those of several items of a sequence as one; so is a code."""
    found: dict[_Path, _Seen] = {}
    keywords = dict.fromkeys(element.keyword for item in items for element in item)
    for keyword in keywords:
        if not keyword or (keyword in _CODE and _is_code(items)):
            continue
        elements = [item[keyword] for item in items if keyword in item]
        path = (*above, keyword)
        inner = [one for e in elements if e.VR == "SQ" for one in e.value]
        values = _codes(inner) if inner else [_text(e) for e in elements if not e.is_empty]
        found[path] = _Seen(
            tag=int(elements[0].tag),
            value="; ".join(dict.fromkeys(values)),
            empty=any(element.is_empty for element in elements),
        )
        found |= _attributes(inner, path)
    return found


def _is_code(items: Sequence[Dataset]) -> bool:
    return all(set(item.dir()) >= _CODE for item in items)


def _codes(items: Sequence[Dataset]) -> list[str]:
    if not _is_code(items):
        return []
    return [f'({i.CodeValue}, {i.CodingSchemeDesignator}, "{i.CodeMeaning}")' for i in items]


def _text(element: DataElement) -> str:
    if isinstance(element.value, bytes):
        return element.value.hex()
    if isinstance(element.value, MultiValue):
        return "\\".join(str(one) for one in element.value)
    return str(element.value)


def _order(objects: Sequence[Mapping[_Path, _Seen]]) -> Callable[[_Path], list[int]]:
    """Sort by tags, an attribute of an item behind that of the sequence."""
    tags = {path: seen.tag for known in objects for path, seen in known.items()}
    return lambda path: [tags[path[: depth + 1]] for depth in range(len(path))]


def _attribute(path: _Path, objects: Sequence[Mapping[_Path, _Seen]], kind: str) -> Attribute:
    seen = [known.get(path) for known in objects]
    there = [one for one in seen if one is not None]
    usual, elsewhere, *others = seen
    copied = path[0] in PATIENT_AND_STUDY
    values = {one.value for one in (usual, *others) if one is not None}
    sources = [COPIED] if copied else [AUTO] if len(values) > 1 else []
    if not copied and usual != elsewhere:
        sources.append(CONFIGURED)
    presence = ALWAYS
    if len(there) < len(seen) or (copied and kind not in ("1", "2")):
        presence = SOMETIMES
    elif any(one.empty for one in there) or (copied and kind == "2"):
        presence = EMPTY
    return Attribute(
        path=path,
        tag=there[0].tag,
        kind=kind,
        presence=presence,
        sources=tuple(sources) or (FIXED,),
        value="" if sources else there[0].value,
    )


@lru_cache
def _modules(sop_class_uid: str) -> Mapping[str, tuple[str, Mapping[_Path, str]]]:
    """Name -> usage, and the type of each attribute by its path."""
    attributes = get_module_attribute_map()
    return {
        str(module["key"]): (
            str(module["usage"]),
            {(*a["path"], a["keyword"]): str(a["type"]) for a in attributes[module["key"]]},
        )
        for module in get_iod_module_map()[get_sop_class_iod_map()[sop_class_uid]]
    }


def _title(name: str) -> str:
    """As people write it: "sop-common" is "SOP Common"."""
    words = name.replace("multi-frame", "Multi_frame").split("-")
    return " ".join(
        word.upper() if word in _UPPER else word[:1].upper() + word[1:] for word in words
    ).replace("_", "-")


_UPPER = frozenset({"sop", "sc", "sr", "icc", "voi", "lut"})
