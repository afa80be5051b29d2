"""Section 8 of the Conformance Statement: the objects that the node makes, and their codes."""

from __future__ import annotations

from dicom_node.cli.page import Page
from dicom_node.dimse.conformance import name_of
from dicom_node.domain.tool import Code
from dicom_node.iod.created import AUTO, CONFIGURED, COPIED, FIXED, Attribute
from dicom_node.iod.replacing import SCHEME, SCHEME_UID
from dicom_node.iod.transcode import PATIENT_AND_STUDY
from dicom_node.node.statement import Created, Statement

_NONE = "None."


def objects(page: Page, facts: Statement) -> None:
    """All of it."""
    page.head("8", "Annexes")
    page.head("8.1", "IOD contents")
    page.head("8.1.1", "Created SOP Instances")
    _legend(page)
    for number, created in enumerate(facts.created, 1):
        _iod(page, f"8.1.1.{number}", created)
    if not facts.created:
        page.say(_NONE, "No route is enabled that makes any.")
    page.head("8.1.2", "Attributes used of received objects")
    page.say(
        "Needed to keep an object: SOP Class, SOP Instance, Study and Series Instance UID. Needed",
        "to process a Series: what its place in space is made of (Image Position and Orientation",
        "(Patient), Pixel Spacing, Rows, Columns) and the Image Pixel and Modality LUT attributes.",
        "Routes may ask for any attribute that the node keeps of a header.",
    )
    page.head("8.1.3", "Coerced attributes")
    page.say(_NONE)
    page.head("8.2", "Private attributes")
    page.say(_NONE, "The node adds none. Those of received objects are kept with them.")
    _codes(page, facts)
    page.head("8.4", "Grayscale image consistency")
    page.say("Not supported: the node shows no images.")
    page.head("8.5", "Extended, specialised and private SOP Classes")
    extra = [c.abstract_syntax for c in facts.accepted if not c.standard]
    page.say(f"Kept as received, by configuration: {', '.join(extra)}." if extra else _NONE)
    page.head("8.6", "Private transfer syntaxes")
    unknown = [uid for uid in facts.storage_syntaxes if name_of(uid) == uid]
    page.say(f"Kept as received, by configuration: {', '.join(unknown)}." if unknown else _NONE)


def _legend(page: Page) -> None:
    page.say(
        "Found by encoding objects with the settings of this configuration, and comparing them.",
        "Type: of the attribute in its module. Presence: ALWAYS with a value, VNAP (value not",
        "always present), ANAP (attribute not always present). Source: as follows, or the value",
        "that it always has.",
    )
    page.items(
        [
            f"{COPIED}: byte for byte from the source.",
            f"{AUTO}: computed, or taken from the source or the model.",
            f"{CONFIGURED}: depends on `results` in the configuration, too.",
        ]
    )
    page.say(
        "Of patient and study these are copied, too, where the source has them:",
        ", ".join(PATIENT_AND_STUDY) + ".",
    )


def _iod(page: Page, number: str, created: Created) -> None:
    page.head(number, created.name)
    page.say(
        f"SOP Class `{created.sop_class_uid}`, Explicit VR Little Endian. Made by:",
        "; ".join(created.why) + ".",
    )
    for module in created.modules:
        usage = {"M": "mandatory", "C": "conditional", "U": "optional"}.get(module.usage, "")
        page.say(f"**{module.name}** ({usage})" if usage else f"**{module.name}**")
        page.table(
            ("Tag", "Type", "Presence", "Attribute", "Source"),
            [_row(attribute) for attribute in module.attributes],
        )


def _row(attribute: Attribute) -> tuple[str, str, str, str, str]:
    tag = f"{attribute.tag >> 16:04X},{attribute.tag & 0xFFFF:04X}"
    name = ">" * (len(attribute.path) - 1) + attribute.path[-1]
    fixed = FIXED in attribute.sources
    source = attribute.value or "-" if fixed else ", ".join(attribute.sources)
    return tag, attribute.kind, attribute.presence, name, source


def _codes(page: Page, facts: Statement) -> None:
    page.head("8.3", "Coded terminology")
    for model in facts.models:
        page.say(f"Segments of the model `{model.id}` {model.version}:")
        page.table(
            ("Segment", "Category", "Type", "Laterality"),
            [
                (s.label, _code(s.category), _code(s.type), _code(s.laterality))
                for s in model.segments
            ],
        )
    page.say(
        f"Private coding scheme: {SCHEME} (`{SCHEME_UID}`), with the one code REPLACED, purpose of",
        "reference of the Series that a result replaces.",
    )


def _code(code: Code | None) -> str:
    return f"({code.value}, {code.scheme}, {code.meaning})" if code else ""
