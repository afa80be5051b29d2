"""Every key of a configuration with the value that it has, for documents; no paths, no secrets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dicom_node.config.kinds import SECRET, Section
from dicom_node.config.load import Config
from dicom_node.config.mistakes import keys_of, section_of
from dicom_node.config.schema import File, Peer
from dicom_node.domain import records

NOT_CONFIGURED = "not configured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A key, its value as text, and what it is about; section: as it is called in the file."""

    section: str
    key: str
    value: str
    meaning: str


def settings(config: Config) -> tuple[Setting, ...]:
    """The keys of all sections that stand once in the file, in its order."""
    found: list[Setting] = []
    for name, field in keys_of(File).items():
        section = section_of(field.annotation)
        if section is not None and id(section) == id(field.annotation):  # not one of many
            found += _of(name, section, getattr(config, name))
    return tuple(found)


def settings_of(peer: records.Peer) -> tuple[Setting, ...]:
    """The keys of one peer."""
    return tuple(_of("peer", Peer, peer))


def _of(name: str, section: type[Section], values: object) -> Iterable[Setting]:
    for key, field in keys_of(section).items():
        value = getattr(values, key)
        if isinstance(value, Path):
            continue
        secret = SECRET in field.metadata
        text = "configured" if secret and value else shown(value)
        yield Setting(section=name, key=key, value=text, meaning=field.description or "")


def shown(value: object) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | frozenset):
        return ", ".join(sorted(map(str, value))) or NOT_CONFIGURED
    return NOT_CONFIGURED if value is None or value == "" else str(value)
