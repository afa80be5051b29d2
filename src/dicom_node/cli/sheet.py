"""One page for the administrator of the PACS: what to enter there, and what comes from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dicom_node.cli.sheet_peers import peers
from dicom_node.cli.sheet_rows import WIDTH, day, fingerprint, hanging, rows
from dicom_node.dimse.conformance import name_of
from dicom_node.dimse.tls import VERSIONS
from dicom_node.node.statement import Statement

_UNCOMPRESSED = "Little Endian"
_CT = "CT Image Storage"
_PUSH = "Push"
_ROOT = "1.2.840.10008.1.2.4"  # of nearly all compressed transfer syntaxes


def sheet(facts: Statement) -> str:
    """The page: plain text, 80 columns."""
    lines = [f"DICOM-NODE {facts.version}: SHEET FOR THE PACS", "=" * WIDTH]
    for title, told in (
        ("THIS NODE", _node(facts)),
        ("BY TLS", _tls(facts)),
        ("WHAT IT TAKES", _takes(facts)),
        ("WHAT IT MAKES", _makes(facts)),
    ):
        if found := list(rows(told)):
            lines += ["", title, *found]
    lines += ["", "TO ENTER ON THE PACS", *_steps(facts)]
    lines += ["", "WHOM THE NODE KNOWS", *peers(facts)]
    lines += ["", "In full: dicom-node conformance. Does it work? dicom-node doctor"]
    return "\n".join(lines) + "\n"


def _node(facts: Statement) -> Iterable[tuple[str, str]]:
    config, limits = facts.config, facts.limits
    yield "AE title", config.node.ae_title
    yield "Host", _host(facts)
    yield "Port", facts.entrance.removeprefix("port ")
    if not facts.tls:
        yield "TLS", "not configured"
    yield (
        "Associations",
        f"{limits.associations_max} at a time, {config.receive.peer_associations()} with one peer; "
        f"aborted after {limits.patience.idle_s:g} s of silence",
    )
    yield "Largest PDU", f"{limits.pdu_bytes} bytes"
    yield "Configuration", Path(config.source).name


def _host(facts: Statement) -> str:
    if facts.local:
        return f"{facts.host} (it hears this machine alone: node.host)"
    if not facts.everywhere:
        return facts.host
    known = ", ".join((facts.host, *facts.machine.addresses))
    return (
        f"{known} (as the machine knows itself: behind NAT, or in a container, enter what leads to "
        "it)"
    )


def _tls(facts: Statement) -> Iterable[tuple[str, str]]:
    """What is to be entered and imported at the other side; nothing where there is no TLS."""
    tls, shown = facts.config.tls, facts.shown
    if not facts.tls:
        return
    yield "Versions", VERSIONS
    if tls.certificate is not None and shown is None:
        yield "Certificate", "it cannot be used: `dicom-node doctor` says why"
    if shown is not None:
        names = f", for {', '.join(shown.names)}" if shown.names else ""
        yield "Certificate", f"{shown.subject}{names}; good until {day(shown.expires_at)}"
        yield "  SHA-256", fingerprint(shown.sha256)
        itself = shown.issuer == shown.subject
        issuer = "itself: import the certificate" if itself else f"{shown.issuer}: import that CA"
        yield "  issued by", f"{issuer} on each peer"
    if facts.tls_port:
        yield "Peers show", _wanted(facts)
    for one in facts.trusted:
        yield "  CA", f"{one.subject}; good until {day(one.expires_at)}"
        yield "  SHA-256", fingerprint(one.sha256)


def _wanted(facts: Statement) -> str:
    """Which certificate who calls by TLS is to have."""
    if facts.config.tls.ca is None:
        return "no certificate: none is asked for"
    must = "must" if facts.config.tls.require_client_certificate else "may, and need not,"
    whose = "one of these CAs, or be" if facts.trusted else "an issuer in `tls.ca`, or be"
    return f"who calls {must} show a certificate; it must come from {whose} in `tls.ca` itself"


def _takes(facts: Statement) -> Iterable[tuple[str, str]]:
    yield "C-ECHO", "Verification"
    extra = [c.abstract_syntax for c in facts.stored if not c.standard]
    more = f", {len(extra)} of them by configuration ({', '.join(extra)})" if extra else ""
    yield (
        "C-STORE",
        f"{len(facts.stored)} SOP Classes{more}: every kind of image, report, waveform, "
        "presentation and RT object",
    )
    for context in facts.stored:
        if (name := name_of(context.abstract_syntax)).endswith(_CT):
            yield "  of CT", f"{name}  {context.abstract_syntax}"
    plain = [uid for uid in facts.storage_syntaxes if _UNCOMPRESSED in name_of(uid)]
    packed = [uid for uid in facts.storage_syntaxes if uid not in plain]
    yield "Syntaxes", ", ".join(f"{name_of(uid)} {uid}" for uid in plain)
    yield "  compressed", f"{', '.join(_families(packed))} (.50 is {_ROOT}.50)"
    yield "Largest object", f"{facts.limits.object_bytes / 1024**3:g} GiB"
    may = ", ".join(peer.name for peer in facts.config.peers if "commit" in peer.may)
    asked = f"{may} may ask this node to keep images" if may else "no peer may ask this node for it"
    yield "Commitment", asked


def _families(uids: Sequence[str]) -> Iterable[str]:
    """The first words of the names, each once, with the UIDs: 32 names are too many for a page."""
    known: dict[str, list[str]] = {}
    for uid in uids:
        name = name_of(uid).split(" Image Compression")[0].split(",")[0].split(" Part 2")[0]
        family = name.removeprefix("Fragmentable ").split("/")[0].split(" (")[0]
        family = family.replace("High-Throughput", "HT").split(" Main")[0].split(" with ")[0]
        known.setdefault(family, []).append(uid.removeprefix(_ROOT))
    return (f"{family} {' '.join(found)}" for family, found in known.items())


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
            f"let {title} ask that its results are kept (Storage Commitment; {title} is SCU). The "
            f"report (N-EVENT-REPORT) goes to {us}.",
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
    for number, (name, concerned, text) in enumerate(steps, 1):
        names = [peer.name for peer in concerned]
        if name == _PUSH and config.receive.unknown_peers == "accept":
            names.append("anybody else")
        said = f"On {', '.join(names)}: {text}" if names else "nothing: it is asked of no peer"
        yield from hanging(f"  {number} {name}", said)
