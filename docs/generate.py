"""Fills the generated parts of the documents: what stands between these two comments.

<!-- generated: NAME -->
<!-- end -->

python docs/generate.py            writes them
python docs/generate.py --check    fails if one of them is stale (a test does this, too)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import get_args
from xml.etree import ElementTree as ET

from pydantic_core import PydanticUndefined

from dicom_node.audit.message import Participant, Transfer, instances_transferred
from dicom_node.audit.xml import to_xml
from dicom_node.cli.main import COMMANDS
from dicom_node.cli.sheet import sheet
from dicom_node.cli.statement_entity import fates
from dicom_node.config.load import FILE_NAME, load, shipped
from dicom_node.config.mistakes import allowed, keys_of, section_of
from dicom_node.config.schema import File
from dicom_node.decide.match import NODE_KEYWORDS
from dicom_node.dimse import conformance, contexts
from dicom_node.dimse.status import MEANINGS
from dicom_node.domain import events, policy, states
from dicom_node.iod.code_stream import CODECS
from dicom_node.iod.header import KEYWORDS
from dicom_node.node.audited import TOLD, node_itself
from dicom_node.node.statement import statement

DOCS = Path(__file__).parent
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    lines += [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def configuration() -> str:
    """Every key of ae_config.toml."""
    parts: list[str] = []
    for name, section in keys_of(File).items():
        found = section_of(section.annotation)
        if found is None:
            raise TypeError(f"{name} is no section")
        many = section.annotation is not found
        parts.append(f"## `{'[[' if many else '['}{name}{']]' if many else ']'}`\n")
        parts.append(f"{found.__doc__}\n")
        rows = [
            (f"`{key}`", allowed(field), _default(field.default), field.description or "")
            for key, field in keys_of(found).items()
        ]
        parts.append(table(("key", "allowed", "default", "meaning"), rows))
    return "\n".join(parts)


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, (tuple, frozenset)):
        return f"`[{', '.join(_toml(v) for v in sorted(value))}]`"
    return f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, int) else f'"{value}"'


def diagram(transitions: Mapping[StrEnum, frozenset[StrEnum]], first: StrEnum) -> str:
    """A state machine as a Mermaid diagram, drawn from the table that the code obeys."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR"]
    lines += [f'    state "{s.value}" as {_id(s)}' for s in transitions if _id(s) != s.value]
    lines.append(f"    [*] --> {_id(first)}")
    for state in type(first):
        for following in (s for s in type(first) if s in transitions[state]):
            lines.append(f"    {_id(state)} --> {_id(following)}")
        if not transitions[state]:
            lines.append(f"    {_id(state)} --> [*]")
    return "\n".join([*lines, "```"]) + "\n"


def _id(state: StrEnum) -> str:
    return state.value.replace(" ", "_")


def transfer_syntaxes() -> str:
    """What is accepted, in the order of preference, and what is decoded for a tool."""
    return table(
        ("transfer syntax", "UID", "pixels decoded"),
        (
            (
                conformance.name_of(uid),
                f"`{uid}`",
                "yes" if _is_decoded(uid) else "kept as received",
            )
            for uid in contexts.STORED_AS_RECEIVED
        ),
    )


def _is_decoded(uid: str) -> bool:
    return uid in contexts.UNCOMPRESSED or uid in CODECS


def storage_classes() -> str:
    """The SOP Classes of the Storage SCP."""
    named = sorted((conformance.name_of(uid), uid) for uid in contexts.storage_classes())
    return table(("SOP Class", "UID"), ((name, f"`{uid}`") for name, uid in named))


def statuses() -> str:
    """The answers to C-STORE."""
    rows = (
        (f"`{status:04X}`", MEANINGS[status][0], when)
        for status, when in conformance.STORE_ANSWERS.items()
    )
    return table(("status", "meaning", "when"), rows)


def commitment_statuses() -> str:
    """The answers to the messages of Storage Commitment."""
    rows = (
        (f"`{status:04X}`", MEANINGS[status][0], when)
        for status, when in conformance.COMMITMENT_ANSWERS.items()
    )
    return table(("status", "meaning", "when"), rows)


def rejections() -> str:
    """Why an association is rejected."""
    rows = (
        (str(r.result), str(r.source), str(r.reason), when)
        for r, when in conformance.REJECTIONS.items()
    )
    return table(("result", "source", "reason", "when"), rows)


def store_fates() -> str:
    """What follows on the answer to a C-STORE of the node's."""
    return table(("status", "what follows", "meaning"), fates(instead=True))


def shipped_sheet() -> str:
    """The sheet for the PACS, of the shipped configuration."""
    return f"```text\n{sheet(statement(load(shipped() / FILE_NAME)))}```\n"


def keywords() -> str:
    """The names that an expression may ask about."""
    return ", ".join(f"`{name}`" for name in sorted({*KEYWORDS, *NODE_KEYWORDS})) + "\n"


def event_kinds() -> str:
    """What the catalog records."""
    kinds = get_args(events.Event)
    rows = ((f"`{kind.__name__}`", (kind.__doc__ or "").split("\n")[0]) for kind in kinds)
    return table(("event", "meaning"), rows)


def commands() -> str:
    """The commands of dicom-node."""
    rows = ((f"`{name}`", text) for name, (_, text) in COMMANDS.items())
    return table(("command", "what it does"), rows)


def audit_messages() -> str:
    """What the audit trail holds."""
    rows = ((code.meaning, f"`{code.value}`", when) for code, when in TOLD.items())
    return table(("message", "code", "when"), rows)


def audit_example() -> str:
    """One message, as the node writes it but for its line breaks."""
    node = node_itself("DICOMNODE", "ai-node")
    text = to_xml(
        instances_transferred(
            at=1_767_606_300.0,
            source=Participant(user_id="CT1", ae_title="CT1", address="10.1.2.3"),
            destination=node,
            what=Transfer(
                study_uid="1.2.3.4",
                patient_id="4711",
                patient_name="Doe^Jane",
                accession_number="A1",
                classes={"1.2.840.10008.5.1.4.1.1.2": 312},
            ),
            action="C",
        ),
        "DICOMNODE@ai-node",
    )
    document = ET.fromstring(text)  # noqa: S314  # our own
    ET.indent(document)
    return f"```xml\n{ET.tostring(document, encoding='unicode')}\n```\n"


def policies() -> str:
    """The keys of [policy] in model.toml."""
    rows = []
    for key, default in ((f.name, _default(f.default)) for f in fields(policy.InputPolicy)):
        kinds = ", ".join(f"`{t}`" for t in policy.ALLOWED.get(key, ()))
        least = f"from {policy.LEAST[key]} upwards" if key in policy.LEAST else "list of texts"
        rows.append((f"`{key}`", kinds or least, default, policy.MEANINGS[key]))
    return table(("key", "allowed", "default", "about"), rows)


BLOCKS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "audit-example": audit_example,
        "audit-messages": audit_messages,
        "commands": commands,
        "commitment-statuses": commitment_statuses,
        "configuration": configuration,
        "delivery-states": lambda: diagram(
            states.DELIVERY_TRANSITIONS, states.DeliveryState.QUEUED
        ),
        "events": event_kinds,
        "keywords": keywords,
        "policy": policies,
        "rejections": rejections,
        "series-states": lambda: diagram(states.SERIES_TRANSITIONS, states.SeriesState.RECEIVING),
        "sheet": shipped_sheet,
        "statuses": statuses,
        "step-states": lambda: diagram(states.STEP_TRANSITIONS, states.StepState.SCHEDULED),
        "storage-classes": storage_classes,
        "store-fates": store_fates,
        "transfer-syntaxes": transfer_syntaxes,
    }
)


def filled(text: str) -> str:
    """The document with all its generated parts made anew."""
    return _BLOCK.sub(lambda m: f"{m[1]}\n{BLOCKS[m[2]]()}\n{m[3]}", text)


def stale(folder: Path = DOCS) -> list[Path]:
    """The documents whose generated parts are not what they should be."""
    return [
        path
        for path in sorted(folder.rglob("*.md"))
        if "_build" not in path.parts and filled(path.read_text("utf-8")) != path.read_text("utf-8")
    ]


def main() -> int:
    """Write, or check."""
    paths = stale()
    if "--check" in sys.argv[1:]:
        for path in paths:
            print(f"{path.name} is stale: run docs/generate.py")
        return 1 if paths else 0
    for path in paths:
        path.write_text(filled(path.read_text("utf-8")), "utf-8")
        print(f"wrote {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
