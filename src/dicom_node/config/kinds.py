"""The kinds of values in ae_config.toml: each refuses what is none of its kind, and says why."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from dicom_node.config import secrets
from dicom_node.decide import admission, match
from dicom_node.domain.identifiers import is_ae_title, is_uid

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?")


def _path(value: object, what: str = "folder") -> object:
    if not isinstance(value, str):
        return value
    if not value.strip() or "\0" in value:
        raise ValueError(f"the path of a {what} is wanted")
    return Path(value).expanduser()


def _file(value: object) -> object:
    return _path(value, "file")


def _ae_title(value: str) -> str:
    if not is_ae_title(value):
        raise ValueError("an AE title has 1 to 16 characters, printable ASCII, no backslash")
    return value.strip()


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name has 1 to 64 letters, digits, '-', '_' or '.'")
    return value


def _host(value: str) -> str:
    if not value or len(value) > 253 or not all("!" <= c <= "~" for c in value) or "/" in value:
        raise ValueError("a host name or an IP address is wanted")
    if not all(0 < len(label) <= 63 for label in value.removesuffix(".").split(".")):
        raise ValueError("a host name has 1 to 63 characters between its dots")
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(
            "an IP address or a network such as 10.1.0.0/16 is wanted "
            "(no bits set behind the prefix)"
        ) from error


def _uid(value: str) -> str:
    if not is_uid(value):
        raise ValueError("a UID has digits and dots, at most 64")
    return value


def _when(value: str) -> str:
    if value.strip():
        match.parse(value)  # a ParseError is a ValueError, and says where
    return value


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError("a device is auto, cpu, cuda or cuda:N")
    return value


def _url(value: str) -> str:
    if value and not _URL.fullmatch(value):
        raise ValueError("a URL such as https://pacs/dicom-web is wanted, without ? and #")
    return value


def _secret(value: str) -> str:
    if value and not secrets.is_reference(value):
        raise ValueError("a secret does not stand here: env:NAME or file:PATH is wanted")
    return value


def _endpoint(value: str) -> str:
    if not value:
        return value
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("a host and a port are wanted, such as audit.example:6514")
    _host(host.removeprefix("[").removesuffix("]"))
    return value


def _certificate(value: str) -> str:
    """With the digits of a fingerprint as they are compared: OpenSSL prints others."""
    kind, colon, rest = value.partition(":")
    if kind + colon == admission.FINGERPRINT:
        digits = rest.replace(":", "").lower()
        if not _SHA256.fullmatch(digits):
            raise ValueError("a fingerprint has 64 hexadecimal digits after sha256:")
        return admission.FINGERPRINT + digits
    if kind + colon == admission.SUBJECT:
        admission.subject_of(rest)  # says what is wrong
        return value
    raise ValueError('a certificate is named "sha256:" and its digits, or "subject:CN=name"')


# the text in each: what a value is called, in messages and in docs/configuration.md
AeTitle = Annotated[str, AfterValidator(_ae_title), "AE title"]
Name = Annotated[str, AfterValidator(_name), "name"]
Host = Annotated[str, AfterValidator(_host), "host name or IP address"]
Network = Annotated[str, AfterValidator(_network), "address or network"]
Uid = Annotated[str, AfterValidator(_uid), "UID"]
When = Annotated[str, AfterValidator(_when), "expression"]
Device = Annotated[str, AfterValidator(_device), "auto, cpu, cuda or cuda:N"]
Url = Annotated[str, AfterValidator(_url), "http or https URL"]
Endpoint = Annotated[str, AfterValidator(_endpoint), "HOST:PORT"]
SECRET = "env:NAME or file:PATH"  # noqa: S105  # says where one stands
Secret = Annotated[str, AfterValidator(_secret), SECRET]
CertificateName = Annotated[str, AfterValidator(_certificate), "sha256:DIGITS or subject:NAME"]
File = Annotated[Path, BeforeValidator(_file), "path of a file"]
Folder = Annotated[Path, BeforeValidator(_path)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)]
Days = Annotated[float, Field(ge=0, le=36500, allow_inf_nan=False)]
Gibibytes = Annotated[float, Field(gt=0, le=1024 * 1024, allow_inf_nan=False)]

Asked = Literal["store", "commit"]
Offered = Literal["store", "query", "retrieve", "commit", "reject"]
ResultKind = Literal["seg", "sc"]


class Section(BaseModel):
    """Frozen, strict (no text for numbers), and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
