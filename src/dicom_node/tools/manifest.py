"""The model.toml of a model: what it is, what it takes, what it gives."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dicom_node.domain.errors import ToolError
from dicom_node.domain.policy import ALLOWED, LEAST, InputPolicy, Treatment
from dicom_node.domain.tool import Applicable, Code, NotApplicable, Segment

FILE_NAME = "model.toml"

_KEYS = {
    "": {"id", "name", "version", "kind", "description", "licence", "sources"},
    "weights": {"file", "sha256"},
    "input": {"modality", "when", "window_hu"},
    "policy": {field.name for field in fields(InputPolicy)},
    "segment": {"number", "label", "category", "type", "laterality", "rgb"},
}
_IMAGES_OF = {  # PS3.4 §B.5: what else has a modality (screens, dose reports) is no image of it
    "CT": frozenset(
        {
            "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
            "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
            "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        }
    ),
}
_TABLES = {"weights", "input", "policy", "segment"}
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelManifest:
    """One model, as its folder describes it.

    folder: where it lies. weights_file: a name in that folder, None for a kind without weights.
    when: in the match language of routes, which series it is meant for; kept as it is written.
    window_hu: the range that the model sees. policy: what is done with a Series that is not quite
    what it was made for. licence: of the weights. sources: of the data.
    """

    id: str
    name: str
    version: str
    kind: str
    description: str
    folder: Path
    weights_file: str | None
    sha256: str | None
    modality: str
    when: str
    window_hu: tuple[float, float]
    policy: InputPolicy
    segments: tuple[Segment, ...]
    licence: str
    sources: tuple[str, ...]


def read_manifest(folder: Path) -> ModelManifest:
    """Read `folder`/model.toml. Raises ToolError that names the model and the mistake."""
    table = _toml(folder)
    _refuse_unknown(table, folder.name)
    try:
        return _manifest(table, folder)
    except KeyError as missing:
        raise _mistake(folder.name, f"the key {missing} is missing") from missing
    except (TypeError, ValueError) as wrong:
        raise _mistake(folder.name, f"a value has the wrong form ({wrong})") from wrong


def applicable(manifest: ModelManifest, header: Mapping[str, object]) -> Applicable | NotApplicable:
    """Whether the model can take a Series with this header (keyword -> value, first instance).

    `when` is not asked here: it is written in the match language of the routes.
    """
    wanted, modality = manifest.modality, header.get("Modality")
    if not modality:
        return NotApplicable(f"The series names no modality; {wanted} is needed.")
    if modality != wanted:
        return NotApplicable(f"The modality is {modality}; {wanted} is needed.")
    known, sop_class = _IMAGES_OF.get(wanted), header.get("SOPClassUID")
    if known and sop_class and sop_class not in known:
        return NotApplicable(f"The objects are not {wanted} images (SOP class {sop_class}).")
    if "LOCALIZER" in _values(header.get("ImageType")):
        return NotApplicable("The series is a localizer, not a stack of slices.")
    return Applicable()


def _manifest(table: Mapping[str, Any], folder: Path) -> ModelManifest:
    model_id = _text(table["id"])
    if not _ID.fullmatch(model_id) or model_id != folder.name:
        raise _mistake(folder.name, f"the id {model_id!r} is not the name of its folder")
    weights, taken = table.get("weights"), table["input"]
    low, high = (float(v) for v in taken.get("window_hu", (-1024.0, 150.0)))
    if low >= high:
        raise _mistake(folder.name, "window_hu goes from the lower to the higher value")
    return ModelManifest(
        id=model_id,
        name=_text(table["name"]),
        version=_text(table["version"]),
        kind=_text(table["kind"]),
        description=_text(table["description"]),
        folder=folder,
        weights_file=_file_name(weights["file"], folder.name) if weights else None,
        sha256=_text(weights["sha256"]).lower() if weights else None,
        modality=_text(taken["modality"]),
        when=_text(taken["when"]),
        window_hu=(low, high),
        policy=_policy(table.get("policy", {}), folder.name),
        segments=_segments(table.get("segment", []), folder.name),
        licence=_text(table["licence"]),
        sources=tuple(_text(s) for s in table.get("sources", [])),
    )


def _policy(table: object, model: str) -> InputPolicy:
    """[policy] of model.toml; what it does not say is as InputPolicy has it."""
    if not isinstance(table, dict):
        raise _mistake(model, "policy is not a table")
    given: dict[str, Any] = {}
    for key, value in table.items():
        path = f"policy.{key} = {value!r}"
        if key in ALLOWED:
            given[key] = _treatment(value, key, path, model)
        elif key in LEAST:
            given[key] = _limit(value, key, path, model)
        else:
            given[key] = _words(value, path, model)
    return InputPolicy(**given)


def _treatment(value: object, key: str, path: str, model: str) -> Treatment:
    names = {str(treatment): treatment for treatment in ALLOWED[key]}
    if not isinstance(value, str) or value not in names:
        allowed = ", ".join(f'"{name}"' for name in names)
        raise _mistake(model, f"{path}: allowed are {allowed}")
    return names[value]


def _limit(value: object, key: str, path: str, model: str) -> int | float:
    whole = isinstance(getattr(InputPolicy(), key), int)
    numeric = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not numeric or not isinstance(value, (int, float)) or not LEAST[key] <= value < math.inf:
        words = "a whole number" if whole else "a number"
        raise _mistake(model, f"{path}: {words} from {LEAST[key]} upwards is needed")
    return value if whole else float(value)


def _words(value: object, path: str, model: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise _mistake(model, f"{path}: a list of texts is needed")
    return tuple(text.strip().upper() for text in value)


def _segments(tables: Iterable[Mapping[str, Any]], model: str) -> tuple[Segment, ...]:
    segments = tuple(
        Segment(
            number=int(t["number"]),
            label=_text(t["label"]),
            category=_code(t["category"]),
            type=_code(t["type"]),
            laterality=_code(t["laterality"]) if "laterality" in t else None,
            rgb=_rgb(t["rgb"]),
        )
        for t in tables
    )
    if [s.number for s in segments] != list(range(1, len(segments) + 1)) or not segments:
        raise _mistake(model, "the segments are not numbered 1, 2, ... in order")
    return segments


def _toml(folder: Path) -> dict[str, Any]:
    path = folder / FILE_NAME
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as unreadable:
        raise _mistake(folder.name, f"{FILE_NAME} cannot be read") from unreadable
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        raise _mistake(folder.name, f"{FILE_NAME} is not TOML ({wrong})") from wrong


def _refuse_unknown(table: Mapping[str, Any], model: str) -> None:
    found = {("", key) for key in table if key not in _TABLES}
    for name in _TABLES & set(table):
        parts = table[name] if isinstance(table[name], list) else [table[name]]
        if any(not isinstance(part, dict) for part in parts):
            raise _mistake(model, f"{name} is not a table")
        found |= {(name, key) for part in parts for key in part}
    unknown = sorted((t, k) for t, k in found if k not in _KEYS[t])
    if unknown:
        named = ", ".join(f"{t}.{k}".lstrip(".") for t, k in unknown)
        allowed = ", ".join(
            sorted(_KEYS[unknown[0][0]] | (_TABLES if not unknown[0][0] else set()))
        )
        raise _mistake(model, f"unknown key {named}; allowed are {allowed}")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is not a text")
    return value


def _file_name(value: object, model: str) -> str:
    name = _text(value)
    if Path(name).name != name or not name.endswith(".safetensors"):
        raise _mistake(model, "the weights are a .safetensors file beside model.toml")
    return name


def _code(value: object) -> Code:
    if not isinstance(value, list) or len(value) != 3:
        raise TypeError(f"{value!r} is not [value, scheme, meaning]")
    return Code(value=_text(value[0]), scheme=_text(value[1]), meaning=_text(value[2]))


def _rgb(value: object) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3:
        raise TypeError(f"{value!r} is not [red, green, blue]")
    red, green, blue = (int(v) for v in value)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise ValueError(f"{value!r} is not within 0..255")
    return red, green, blue


def _values(value: object) -> tuple[str, ...]:
    """The values of an attribute, however it was kept."""
    if isinstance(value, str):
        return tuple(value.split("\\"))
    return tuple(str(v) for v in value) if isinstance(value, Sequence) else ()


def _mistake(model: str, what: str) -> ToolError:
    return ToolError(f"Model {model}: {what}.")
