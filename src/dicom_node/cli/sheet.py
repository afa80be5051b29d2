"""One page for the administrator of the PACS: what to enter there, and what comes from there."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from dicom_node.decide.routing import calls_from
from dicom_node.dimse.conformance import name_of
from dicom_node.domain.records import Peer
from dicom_node.domain.text import printable
from dicom_node.node.statement import Statement, routes_to

WIDTH, _INDENT = 80, 18
_UNCOMPRESSED = "Little Endian"
_PUSH = "Push"


def sheet(facts: Statement) -> str:
    """The page: plain text, 80 columns."""
    lines = [f"DICOM-NODE {facts.version}: SHEET FOR THE PACS", "=" * WIDTH]
    for title, rows in (
        ("THIS NODE", _node(facts)),
        ("WHAT IT TAKES", _takes(facts)),
        ("WHAT IT MAKES", _makes(facts)),
    ):
        lines += ["", title, *_rows(rows)]
    lines += ["", "TO ENTER ON THE PACS", *_steps(facts)]
    lines += ["", "WHOM THE NODE KNOWS", *_peers(facts)]
    lines += ["", "In full: dicom-node conformance. Does it work? dicom-node doctor"]
    return "\n".join(lines) + "\n"


def _rows(rows: Iterable[tuple[str, str]]) -> Iterable[str]:
    for name, text in rows:
        yield from _hanging(f"  {name}", text, _INDENT)


def _hanging(head: str, text: str, indent: int) -> list[str]:
    lines = textwrap.wrap(
        printable(text), WIDTH - indent, break_long_words=False, break_on_hyphens=False
    )
    first, *more = lines or [""]
    return [f"{head:<{indent}}{first}", *(" " * indent + line for line in more)]


def _node(facts: Statement) -> Iterable[tuple[str, str]]:
    heard = " (it hears this machine alone: node.host)" if facts.local else ""
    if facts.everywhere:
        heard = f" (it listens on all: {facts.config.node.host})"
    yield "AE title", facts.config.node.ae_title
    yield "Host", facts.host + heard
    yield "Port", facts.entrance.removeprefix("port ")
    yield "TLS", facts.tls or "not configured"
    yield (
        "Associations",
        f"{facts.limits.associations_max} at a time, "
        f"{facts.config.receive.peer_associations()} with one peer",
    )
    yield "Largest PDU", f"{facts.limits.pdu_bytes} bytes"
    yield "Configuration", Path(facts.config.source).name


def _takes(facts: Statement) -> Iterable[tuple[str, str]]:
    yield "C-ECHO", "Verification"
    extra = [c.abstract_syntax for c in facts.stored if not c.standard]
    more = f", {len(extra)} of them by configuration ({', '.join(extra)})" if extra else ""
    yield (
        "C-STORE",
        f"{len(facts.stored)} SOP Classes{more}: every kind of image, report, waveform, "
        "presentation and RT object",
    )
    plain = [uid for uid in facts.storage_syntaxes if _UNCOMPRESSED in name_of(uid)]
    packed = [uid for uid in facts.storage_syntaxes if uid not in plain]
    yield "Syntaxes", ", ".join(name_of(uid) for uid in plain)
    yield "  compressed", ", ".join(_families(packed))
    yield "Largest object", f"{facts.limits.object_bytes / 1024**3:g} GiB"
    may = ", ".join(peer.name for peer in facts.config.peers if "commit" in peer.may)
    yield "Commitment", f"asked by {may}" if may else "nobody may ask for it"


def _families(uids: Sequence[str]) -> Iterable[str]:
    """The first words of the names, each once: 32 syntaxes are too many for a page."""
    known: dict[str, int] = {}
    for uid in uids:
        name = name_of(uid).split(" Image Compression")[0].split(",")[0].split(" Part 2")[0]
        family = name.removeprefix("Fragmentable ").split("/")[0].split(" (")[0]
        family = family.replace("High-Throughput", "HT").split(" Main")[0].split(" with ")[0]
        known[family] = known.get(family, 0) + 1
    return known


def _makes(facts: Statement) -> Iterable[tuple[str, str]]:
    for created in facts.created:
        yield "SOP Class", f"{created.name}  {created.sop_class_uid}"
        yield "", f"({'; '.join(created.why)})"
    if not facts.created:
        yield "Results", "none: no route is enabled"
    yield "", "in Explicit VR Little Endian; sent as Implicit where only that is taken"


def _steps(facts: Statement) -> Iterable[str]:
    """What the other side needs, each with whom it concerns."""
    us = f"{facts.config.node.ae_title}, {facts.host}, {facts.entrance}"
    config = facts.config
    title, offering = config.node.ae_title, facts.offering
    steps = [
        (
            _PUSH,
            facts.sending(),
            f"a destination for C-STORE: {us}. The node is to be called with the AE title, and "
            "from the address, that it knows (below).",
        ),
        (
            "Results",
            facts.owed(),
            f"let {title} associate and store what the node makes: it belongs to the Study of the "
            "images.",
        ),
        (
            "Commitment",
            offering("commit"),
            f"let {title} ask for Storage Commitment; the report (N-EVENT-REPORT) goes to {us}.",
        ),
        (
            "Query",
            offering("query"),
            f"let {title} ask by C-FIND: Study Root, at SERIES and IMAGE level.",
        ),
        (
            "Retrieve",
            offering("retrieve"),
            f"let {title} ask by C-MOVE or C-GET; {title} is a move destination: {us}.",
        ),
    ]
    for number, (name, peers, text) in enumerate(steps, 1):
        names = [peer.name for peer in peers]
        if name == _PUSH and config.receive.unknown_peers == "accept":
            names.append("anybody else")
        said = f"On {', '.join(names)}: {text}" if names else "nothing: it is asked of no peer"
        yield from _hanging(f"  {number} {name}", said, _INDENT)


def _peers(facts: Statement) -> Iterable[str]:
    for peer in facts.config.peers:
        yield from _hanging(f"  {peer.name}", _peer(facts, peer), _INDENT)
    unknown = facts.config.receive.unknown_peers
    if unknown == "accept":
        yield from _hanging("  anybody else", "may verify and store; gets no results", _INDENT)
    elif not facts.config.peers:
        yield "  nobody: add [[peer]] to the configuration"
    if unknown == "echo":
        yield from _hanging("  anybody else", "may verify (C-ECHO), and nothing else", _INDENT)


def _peer(facts: Statement, peer: Peer) -> str:
    address = ", ".join(calls_from(peer)) or "any address (`networks` is not configured)"
    may = ", ".join(sorted(peer.may)) or "nothing but C-ECHO"
    offers = ", ".join(sorted(peer.offers)) or "nothing"
    if peer.certificates:
        address += " (by TLS, with its certificate)"
    if peer.user:
        address += f" (as user {peer.user})"
    where = f"{peer.host}:{peer.port}" + (" (by TLS)" if peer.tls else "")
    routes = ", ".join(route.name for route in routes_to(facts.config, peer)) or "none"
    return (
        f"{peer.ae_title} at {where}. Calls from: {address}. May: {may}. "
        f"Offers: {offers}. Results by route: {routes}."
    )
