"""UIDs of results, derived from what they were made of: the same input and tool, the same UIDs."""

from __future__ import annotations

from collections.abc import Iterable

from dicom_node.domain.identifiers import derived_uid


def result_uids(
    sources: Iterable[tuple[str, str]],
    *,
    tool_id: str,
    tool_version: str,
    digest: str,
    kind: str,
    index: int = 0,
    replaces: Iterable[str] = (),
) -> tuple[str, str]:
    """Series Instance UID and SOP Instance UID of one result object.

    sources: SOP Instance UID and SHA-256 of each source instance, in any order. digest: of the
    tool's weights or code. index counts the objects of one kind from one run; each has its own
    Series, because viewers show one segmentation a Series. replaces: SOP Instance UIDs of the
    earlier results that the object names: an object that names others is another.
    """
    made_of = [f"{uid} {sha256}" for uid, sha256 in sorted(set(sources))]
    named = sorted(set(replaces))
    parts = (tool_id, tool_version, digest, kind, str(index), *made_of)
    if named:
        parts = (*parts, "replaces", *named)
    return derived_uid("result series", *parts), derived_uid("result instance", *parts)
