"""What an outcome with a peer means to an administrator: one sentence that says what to do."""

from __future__ import annotations

import socket

from dicom_node.cli.asking import counted
from dicom_node.config.load import Config
from dicom_node.dimse.scu import Outcome, Phase
from dicom_node.dimse.tls import UNEXPLAINED
from dicom_node.domain.records import Peer
from dicom_node.domain.text import printable

PROBE_S = 2.0
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # not bound here, only recognised


_WHAT = {
    "echo": "C-ECHO (Verification)",
    "find": "C-FIND (Study Root)",
    "move": "C-MOVE (Study Root)",
    "get": "C-GET (Study Root)",
    "send": "any of the SOP Classes and transfer syntaxes of these objects",
}


def diagnosis(outcome: Outcome, peer: Peer, config: Config, *, asked: str) -> str:
    """Why an operation did not end well. asked: the command."""
    where = f"{peer.host}:{peer.port}"
    match outcome.phase:
        case Phase.CONNECT:
            return unreachable(peer)
        case Phase.TLS:
            return _without_tls(outcome, peer)
        case Phase.REJECT:
            return _rejected(outcome, peer, config)
        case Phase.ABORT:
            how = "with" if peer.tls else "without"
            return (
                f"{outcome.detail}: is {where} the DICOM port of {peer.ae_title}, {how} TLS? "
                f"Some PACS do so to who is not registered: {registration(config, peer)}"
            )
        case Phase.TIMEOUT:
            return (
                f"{peer.ae_title} at {where} gave {outcome.detail}: it may be busy, a firewall may "
                f"swallow the answer, or the port is not a DICOM port"
            )
        case Phase.NO_CONTEXT:
            return f"{peer.ae_title} does not offer {_WHAT[asked]} to {config.node.ae_title}"
        case Phase.OBJECT:
            return outcome.detail
        case Phase.STATUS:
            return printable(f"{peer.ae_title} answered {outcome.detail}")


def registration(config: Config, peer: Peer, ae_title: str = "") -> str:
    """What the PACS's administrator has to enter there. ae_title: ours, if no other."""
    title = ae_title or config.node.ae_title
    if title != config.node.ae_title:
        other = next((p for p in config.peers if p.ae_title == title), None)
        place = f"host {other.host}, port {other.port}" if other else "its host and port"
    else:
        number = str(config.node.port or "as dicom-node serve shows it")
        place = f"host {own_address(config, peer)}, port {number}"
    return f"have the administrator of {peer.ae_title} add AE title {title}, {place}"


def own_address(config: Config, peer: Peer) -> str:
    """The address by which the peer can reach this node."""
    host = config.node.host
    if host not in ANY_ADDRESS:
        return host
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            peer.host, peer.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as way:
            way.connect(address)  # sends nothing: the system only chooses the way
            return str(way.getsockname()[0])
    except OSError:
        return socket.gethostname()


def unreachable(peer: Peer) -> str:
    """Why there is no TCP connection: found out by trying once more."""
    where = f"{peer.host}:{peer.port}"
    try:
        socket.create_connection((peer.host, peer.port), PROBE_S).close()
    except socket.gaierror:
        return f"the host name {peer.host} is unknown here: correct it, or use the IP address"
    except UnicodeError:
        return f"{peer.host} is not a host name: correct it, or use the IP address"
    except ConnectionRefusedError:
        return (
            f"nobody listens at {where} (connection refused): is {peer.ae_title} running, "
            f"and is that its port?"
        )
    except TimeoutError:
        return (
            f"no answer from {where}: the host is off, the address is wrong, or a firewall "
            f"drops the packets"
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return f"{where} cannot be reached ({reason}): check the address and the network"
    return f"the connection to {where} failed, and now it would be accepted: try again"


def _without_tls(outcome: Outcome, peer: Peer) -> str:
    """A guess only where nothing better is known."""
    if not outcome.detail.endswith(UNEXPLAINED):
        return outcome.detail
    return (
        f"{outcome.detail}; is {peer.host}:{peer.port} the TLS port of {peer.ae_title}, and does "
        "it trust this node's certificate?"
    )


def _rejected(outcome: Outcome, peer: Peer, config: Config) -> str:
    rejection = outcome.rejection
    if rejection is None:
        return outcome.detail
    if rejection.result == 2:
        return f"{peer.ae_title} is busy ({outcome.detail}): try again later"
    match rejection.source, rejection.reason:
        case 1, 3:
            return (
                f"{peer.ae_title} does not know the AE title {config.node.ae_title}: "
                f"{registration(config, peer)}"
            )
        case 1, 7:
            return (
                f"what listens at {peer.host}:{peer.port} is not called {peer.ae_title}: "
                f"ask for its AE title and use that"
            )
        case _:
            return f"{peer.ae_title} {outcome.detail}; perhaps: {registration(config, peer)}"


def move_diagnosis(
    outcome: Outcome, peer: Peer, config: Config, *, destination_ae: str, failed: int
) -> str:
    """As `diagnosis`, for the statuses of C-MOVE (PS3.4 Table C.4-2)."""
    match outcome.status:
        case 0xA801:
            return (
                f"{peer.ae_title} does not know AE title {destination_ae}, or cannot reach it: "
                f"{registration(config, peer, destination_ae)}"
            )
        case 0xA702:
            return (
                f"{peer.ae_title} could not send to {destination_ae}: it has a wrong host or port "
                f"for it, or was rejected there ({registration(config, peer, destination_ae)})"
            )
        case 0xB000:
            hint = f"; dicom-node why {peer.ae_title} tells what this node refused"
            mine = hint if destination_ae == config.node.ae_title else ""
            number = counted(failed, "image") if failed else "some images"
            return f"{number} did not arrive at {destination_ae}{mine}"
        case 0xFE00:
            return f"{peer.ae_title} stopped sending: the C-MOVE was cancelled"
        case status if status is not None and status >> 12 == 0xC:
            return (
                f"{diagnosis(outcome, peer, config, asked='move')}; some PACS say so where they do "
                f"not know or cannot reach AE title {destination_ae}: "
                f"{registration(config, peer, destination_ae)}"
            )
        case _:
            return diagnosis(outcome, peer, config, asked="move")
