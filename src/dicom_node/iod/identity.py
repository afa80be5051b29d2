"""UIDs of results, derived from all that goes into them: other bytes have another UID."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from dicom_node import __version__
from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.tool import AlgorithmIdentity, Segment
from dicom_node.iod.seg_settings import SegSettings


def manner(
    settings: SegSettings, identity: AlgorithmIdentity, segments: Sequence[Segment] = ()
) -> str:
    """A digest of how an object is made: by which version of the node, with what a site decides,
    and with what a tool says of itself and of its segments."""
    said = (__version__, repr(settings), repr(identity), repr(tuple(segments)))
    return hashlib.sha256("\x00".join(said).encode()).hexdigest()


def result_uids(
    sources: Iterable[tuple[str, str]],
    *,
    tool_id: str,
    tool_version: str,
    digest: str,
    kind: str,
    manner: str,
    index: int = 0,
    replaces: Iterable[str] = (),
) -> tuple[str, str]:
    """Series Instance UID and SOP Instance UID of one result object.

    sources: SOP Instance UID and SHA-256 of each source instance, in any order. digest: of the
    tool's weights or code. manner: see `manner`. index counts the objects of one kind from one run;
    each has its own Series, because viewers show one segmentation a Series. replaces: SOP Instance
    UIDs of the earlier results that the object names: an object that names others is another.
    """
    made_of = [f"{uid} {sha256}" for uid, sha256 in sorted(set(sources))]
    named = sorted(set(replaces))
    parts = (tool_id, tool_version, digest, kind, manner, str(index), *made_of)
    if named:
        parts = (*parts, "replaces", *named)
    return derived_uid("result series", *parts), derived_uid("result instance", *parts)
