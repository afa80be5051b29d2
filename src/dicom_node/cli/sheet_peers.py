"""The peers on the sheet for the PACS: who they are, what they may, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable

from dicom_node.cli.sheet_rows import fingerprint, hanging, rows
from dicom_node.decide.admission import FINGERPRINT, NAME, NAME_AND_PASSCODE
from dicom_node.decide.routing import calls_from
from dicom_node.domain.records import Peer
from dicom_node.node.statement import Statement, routes_to

_MAY = {
    "store": "send images to this node",
    "commit": "ask this node to keep them (Storage Commitment)",
}
_ASKED = {
    "store": "to store results",
    "commit": "to keep them (Storage Commitment)",
    "query": "what it has (C-FIND)",
    "retrieve": "to send images (C-MOVE, C-GET)",
    "reject": "to hide what was replaced (rejection notes)",
}


def peers(facts: Statement) -> Iterable[str]:
    """All, and anybody else."""
    for peer in facts.config.peers:
        yield from hanging(f"  {peer.name}", _called(peer))
        yield from rows((f"  {name}", text) for name, text in _peer(facts, peer) if text)
    unknown = facts.config.receive.unknown_peers
    if unknown == "accept":
        yield from hanging("  anybody else", "may verify and store; gets no results")
    elif not facts.config.peers:
        yield "  nobody: add [[peer]] to the configuration"
    if unknown == "echo":
        yield from hanging("  anybody else", "may verify (C-ECHO), and nothing else")


def _called(peer: Peer) -> str:
    """Where the node finds it, and what it is to show there."""
    where = f"{peer.ae_title} at {peer.host}:{peer.port}"
    if not peer.tls:
        return where
    named = (
        f"with {_certificates(peer)}" if peer.certificates else f"for {peer.tls_name or peer.host}"
    )
    return f"{where}, called by TLS: it must show a certificate {named}"


def _peer(facts: Statement, peer: Peer) -> Iterable[tuple[str, str]]:
    proven = f"alone, with the certificate {_certificates(peer)}" if peer.certificates else ""
    may = "; ".join(text for key, text in _MAY.items() if key in peer.may)
    asked = "; ".join(text for key, text in _ASKED.items() if key in peer.offers)
    routes = ", ".join(route.name for route in routes_to(facts.config, peer))
    yield "calls from", ", ".join(calls_from(peer)) or "any address (`networks` is not configured)"
    yield "by TLS", proven
    yield "as user", _user(peer)
    yield "it may", may or "do nothing but verify (C-ECHO)"
    yield "it is asked", asked or "nothing"
    yield "results", f"by route {routes}" if routes else "none"
    yield "limits", _limits(peer)


def _certificates(peer: Peer) -> str:
    return " or ".join(
        f"SHA-256 {fingerprint(name.removeprefix(FINGERPRINT))}"
        if name.startswith(FINGERPRINT)
        else name
        for name in peer.certificates
    )


def _user(peer: Peer) -> str:
    if not peer.user:
        return ""
    if not peer.passcode:
        return f"{peer.user}: user identity type {NAME}, the name alone"
    return (
        f"{peer.user}, with its passcode: user identity type {NAME_AND_PASSCODE}, which counts "
        "over TLS alone"
    )


def _limits(peer: Peer) -> str:
    """Its own; the node's stand above."""
    most, idle_s = peer.max_associations, peer.idle_s
    told = [
        f"{most} associations" if most is not None else "",
        f"{peer.objects_per_minute} objects a minute" if peer.objects_per_minute else "",
        f"{peer.in_flight_mib} MiB on the way at a time" if peer.in_flight_mib else "",
        f"{idle_s:g} s of silence" if idle_s is not None else "",
    ]
    return ", ".join(filter(None, told)) or "those of the node, above"
