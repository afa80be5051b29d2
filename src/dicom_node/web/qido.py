"""QIDO-RS as user agent (PS3.18 §10.6): how many instances does a peer have of a Series?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from dicom_node.domain.errors import PeerError
from dicom_node.domain.identifiers import is_uid

_COUNT = "00201209"  # Number of Series Related Instances
_SERIES = "0020000E"
_INSTANCE = "00080018"
_PAGE = 1000
_PAGES_MAX = 200
_BODY_MAX = 64 * 1024 * 1024
_NO_CONTENT = 204


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A DICOMweb origin server. url: its base, such as https://pacs/dicom-web."""

    url: str
    token: str = ""
    timeout_s: float = 10.0


def count_instances(service: Service, *, study_uid: str, series_uid: str) -> int | None:
    """How many instances of the Series the service has: by its own word, else by counting them.

    None: it does not know the Series. Raises PeerError if it cannot be asked or answers nonsense.
    """
    if not is_uid(study_uid) or not is_uid(series_uid):
        raise PeerError("a Series without valid UIDs cannot be asked for", permanent=True)
    headers = {"Accept": "application/dicom+json"}
    if service.token:
        headers["Authorization"] = f"Bearer {service.token}"
    with httpx.Client(headers=headers, timeout=service.timeout_s, trust_env=False) as client:
        base = service.url.rstrip("/")
        found = _get(
            client,
            f"{base}/studies/{study_uid}/series",
            {"SeriesInstanceUID": series_uid, "includefield": _COUNT},
        )
        for match in found:
            count = _value(match, _COUNT)
            if _value(match, _SERIES) == series_uid and isinstance(count, int) and count > 0:
                return count
        return _counted(client, f"{base}/studies/{study_uid}/series/{series_uid}/instances")


def _counted(client: httpx.Client, url: str) -> int | None:
    """Page by page: services limit what they give at once, some without saying so."""
    uids: set[object] = set()
    for _ in range(_PAGES_MAX):
        page = _get(client, url, {"limit": str(_PAGE), "offset": str(len(uids))})
        more = {_value(match, _INSTANCE) for match in page} - uids - {None}
        if not more:
            return len(uids) or None
        uids |= more
    raise PeerError("there is no end to the instances that it lists", permanent=True)


def _get(client: httpx.Client, url: str, params: Mapping[str, str]) -> Sequence[Any]:
    try:
        with client.stream("GET", url, params=dict(params)) as response:
            if response.status_code == _NO_CONTENT:
                return ()
            if not response.is_success:
                raise PeerError(f"HTTP status {response.status_code}")
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _BODY_MAX:
                    raise PeerError("its answer is too large", permanent=True)
    except httpx.HTTPError as error:
        raise PeerError(f"{type(error).__name__}: {error}") from error
    except httpx.InvalidURL as error:
        raise PeerError(str(error), permanent=True) from error
    try:
        found = httpx.Response(200, content=body).json()
    except ValueError as error:
        raise PeerError("its answer is not JSON", permanent=True) from error
    if not isinstance(found, list):
        raise PeerError("its answer is not a list of matches", permanent=True)
    return found


def _value(match: Any, tag: str) -> object:
    """The first value of an attribute of the DICOM JSON Model (PS3.18 §F.2), None without it."""
    element = match.get(tag) if isinstance(match, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
