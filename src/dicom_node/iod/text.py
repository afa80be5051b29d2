"""Text in the character sets of DICOM (PS3.5 §6.1, PS3.3 C.12.1.1.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

_NO_TERMS = frozenset({"ISO_IR 6", "ISO 2022 GBK", "ISO 2022 58"})  # understood, and not defined
CHARACTER_SETS = tuple(term for term in python_encoding if term and term not in _NO_TERMS)
"""The defined terms that are understood (PS3.3 C.12.1.1.2); the default repertoire has none."""

_ESCAPE = b"\x1b"
_FRAGMENT = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
# Python's own codecs take these escape sequences as part of the text
_STATEFUL = frozenset({"iso2022_jp", "iso2022_jp_2", "iso_ir_58"})
_DELIMITERS = re.compile(rb"[\\^=\r\n\t\f]")


def codecs_of(character_set: bytes) -> tuple[str, ...]:
    """Python's names for the values of Specific Character Set (0008,0005), unknown ones left out.

    Nothing at all means the default repertoire, or something unsaid: then () is returned.
    """
    terms = [_normal(t) for t in character_set.decode("ascii", "replace").split("\\")]
    known = [python_encoding[t] for t in terms if t in python_encoding]
    return tuple(known) if any(terms) else ()


def decode(value: bytes, codecs: Sequence[str]) -> str:
    """`value` as text; what cannot be decoded becomes U+FFFD, never an exception."""
    if _ESCAPE in value:
        fragments = _FRAGMENT.findall(value)
        return "".join(_fragment(f, codecs[0] if codecs else "latin_1") for f in fragments)
    if value.isascii() and "shift_jis" not in codecs[:1]:
        return value.decode("ascii")
    if codecs:
        return value.decode(codecs[0], "replace")
    try:
        return value.decode("utf-8")  # not declared, yet what is usually meant
    except UnicodeDecodeError:
        return value.decode("latin_1")


def _normal(term: str) -> str:
    """The defined term that was meant: "ISO-IR 100", "ISO IR 100", "ISO_IR_100" are met too."""
    term = term.strip("\0 ").upper()
    match = re.fullmatch(r"(ISO)[ _-]*(2022)?[ _-]*IR[ _-]*([0-9]+)", term)
    if match is None:
        return term
    return f"ISO 2022 IR {match[3]}" if match[2] else f"ISO_IR {match[3]}"


def _fragment(fragment: bytes, first: str) -> str:
    """One stretch that begins with an escape sequence (or with none, before the first one)."""
    if not fragment.startswith(_ESCAPE):
        return fragment.decode(first, "replace")
    size = 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = CODES_TO_ENCODINGS.get(fragment[:size], first)
    if codec in _STATEFUL:
        return fragment.decode(codec, "replace")
    # a delimiter resets to the first character set (PS3.5 §6.1.2.5.3)
    rest = fragment[size:]
    reset = _DELIMITERS.search(rest)
    if reset is None:
        return rest.decode(codec, "replace")
    end = reset.start()
    return rest[:end].decode(codec, "replace") + rest[end:].decode(first, "replace")
