"""What this machine is called, and at which addresses others may find it."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from dicom_node.config.load import Config
from dicom_node.node.statement import Machine

_ANYBODY = ("192.0.2.1", "2001:db8::1")  # stand for the rest of the world (RFC 5737, 3849)
_ANY_IPV4 = "0.0.0.0"  # noqa: S104 - what an operator may write


def this_machine(config: Config) -> Machine:
    """Its host name, and its addresses on the ways to the peers and to anybody; nobody is asked,
    and nothing is sent."""
    wanted = IPv4Address if config.node.host == _ANY_IPV4 else (IPv4Address, IPv6Address)
    found = (ip_address(text.split("%")[0]) for text in _addresses(p.host for p in config.peers))
    kept = (one for one in found if isinstance(one, wanted))
    return Machine(
        name=socket.gethostname(),
        addresses=tuple(
            dict.fromkeys(str(one) for one in kept if not one.is_loopback and not one.is_link_local)
        ),
    )


def _addresses(hosts: Iterable[str]) -> Iterator[str]:
    for host in (*hosts, *_ANYBODY):
        with suppress(ValueError, OSError):
            family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
            with socket.socket(family, socket.SOCK_DGRAM) as way:
                way.connect((host, 104))  # sends nothing: the system only chooses the way
                yield str(way.getsockname()[0])
    with suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_DGRAM):
            yield str(address[0])
