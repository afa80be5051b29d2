"""What an operator may not have meant, above all what is not safe: one list of rules. Pure.

`serve` logs what is unsafe each time it starts, and shows the rest; `doctor` tells all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from dicom_node.config.auditing import UNAUDITED
from dicom_node.config.load import Config
from dicom_node.decide.routing import calls_from
from dicom_node.domain.records import Peer

_ALL_BITS = 8  # of a network: a whole 10.0.0.0/8 is one hospital


def is_local(host: str) -> bool:
    """Whether the name or address is this machine's own, and nobody else's."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def unsafe(config: Config) -> list[str]:
    """By what others could do, or see, more than they should: a sentence each."""
    return [*_of_the_door(config), *(text for p in config.peers for text in _of_peer(config, p))]


def unmeant(config: Config) -> list[str]:
    """What works as it says, and perhaps not as it was meant."""
    found = []
    if is_local(config.node.host) and any(not is_local(p.host) for p in config.peers):
        found.append("there are peers on other machines, but the node hears this machine alone")
    if not config.peers and config.receive.unknown_peers != "accept":
        found.append("no peer is configured: nobody can send anything here; add [[peer]]")
    if not any(route.enabled for route in config.routes):
        found.append("no route is enabled: nothing will be processed; add [[route]]")
    if not config.results.research_use:
        found.append("results are not marked as research (results.research_use = false)")
    return found


def _of_the_door(config: Config) -> Iterator[str]:
    local, tls = is_local(config.node.host), config.tls
    if config.receive.unknown_peers == "accept":
        where = "" if local else ", from the whole network"
        yield f"anybody may store here (receive.unknown_peers = accept){where}"
    if not local and not config.peers:
        yield (
            f"the node listens on {config.node.host} and knows no peer: nobody has a business "
            "there; set node.host to 127.0.0.1, or add [[peer]]"
        )
    if not local and tls.certificate is None:
        yield "DICOM goes in clear over the network: configure [tls]"
    elif not local and tls.plain:
        yield (
            f"port {config.node.port} is open to the network without TLS, beside that with it "
            "(tls.plain = false closes it)"
        )
    if not local and not config.audit.is_on:
        yield UNAUDITED
    if config.receive.front == "stock":
        yield (
            "pynetdicom's own server receives (receive.front = stock): each object is in memory "
            "whole before its size is looked at, connections that say nothing count as "
            "associations, a peer may be as slow as it likes, and what is no DICOM is not recorded"
        )
    if tls.certificate is not None and not tls.require_client_certificate:
        yield (
            "who calls by TLS need not show a certificate (tls.require_client_certificate = "
            "false): an AE title is no proof"
        )


def _of_peer(config: Config, peer: Peer) -> Iterator[str]:
    local, tls = is_local(config.node.host), config.tls
    if not local and peer.may and not calls_from(peer):
        yield (
            f"peer {peer.name} may call from any address: its host is a name; give it `networks`"
        )
    if peer.passcode and tls.certificate is None:
        yield (
            f"peer {peer.name} has a passcode, and there is no TLS: it will be rejected, and its "
            "passcode goes over the network in clear"
        )
    elif peer.passcode and tls.plain and not local:
        yield (
            f"peer {peer.name} has a passcode, and could send it to the port without TLS, in "
            "clear (tls.plain = false)"
        )
    if peer.user and not peer.passcode:
        yield f"peer {peer.name} has a user without a passcode: a name is no proof"
    if peer.tls and peer.may and not peer.certificates and tls.plain and not local:
        yield (f"peer {peer.name} is called by TLS, and may call without: give it `certificates`")
    if peer.may and tls.certificate is not None and not tls.plain and not peer.certificates:
        yield (
            f"whoever has a certificate by an issuer of tls.ca can call as peer {peer.name}, from "
            "its addresses: give it `certificates`"
        )
    if peer.may and any(_is_everywhere(network) for network in peer.networks):
        yield f"peer {peer.name} may call from any address: its `networks` leave nobody out"
    if (
        peer.dicomweb_token
        and peer.dicomweb.startswith("http://")
        and not is_local(urlsplit(peer.dicomweb).hostname or "")
    ):
        yield f"peer {peer.name} gets its DICOMweb token in clear: use https"


def _is_everywhere(network: str) -> bool:
    """Whether hardly anybody is left out."""
    return ip_network(network, strict=False).prefixlen < _ALL_BITS
