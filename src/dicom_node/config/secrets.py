"""Secrets stand elsewhere: the file only says where, as `env:NAME` or `file:PATH`."""

from __future__ import annotations

import os
from pathlib import Path

from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.security import is_private

ENVIRONMENT = "env:"
FILE = "file:"
_MAX_BYTES = 64 * 1024


def is_reference(text: str) -> bool:
    """Whether the text says where a secret stands."""
    return any(text.startswith(p) and len(text) > len(p) for p in (ENVIRONMENT, FILE))


def absolute(reference: str, base: Path) -> str:
    """The reference, its path (if it is one) relative to `base` made absolute."""
    if reference.startswith(FILE):
        return f"{FILE}{base / Path(reference.removeprefix(FILE)).expanduser()}"
    return reference


def reveal(reference: str) -> str:
    """The secret, without white space around it; "" for no reference. Raises ConfigurationError."""
    if not reference:
        return ""
    if reference.startswith(ENVIRONMENT):
        name = reference.removeprefix(ENVIRONMENT)
        value = os.environ.get(name, "").strip()
        if not value:
            raise ConfigurationError([f"the environment variable {name} is not set"], reference)
        return value
    path = Path(reference.removeprefix(FILE))
    try:
        if not is_private(path.stat().st_mode):
            raise ConfigurationError(
                ["others may read it: make it readable by its owner only (chmod 600)"], reference
            )
        value = path.read_bytes()[:_MAX_BYTES].decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"cannot be read: {error}"], reference) from error
    if not value:
        raise ConfigurationError(["it is empty"], reference)
    return value
