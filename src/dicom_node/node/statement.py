"""What a node with this configuration does on the network: the facts of its Conformance Statement.

Everything is asked of what the node works by: the configuration, the functions that negotiate, the
tables of answers, the encoders, the models. How it is written down is the command line's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node import __version__
from dicom_node.config.hazards import is_local
from dicom_node.config.listing import NOT_CONFIGURED, Setting, settings
from dicom_node.config.load import Config
from dicom_node.decide.routing import SENDER, Route
from dicom_node.dimse import conformance
from dicom_node.dimse.certificates import OWN, Validity, validities
from dicom_node.dimse.conformance import Context
from dicom_node.dimse.contract import Limits
from dicom_node.dimse.tls import PROFILE, VERSIONS
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.domain.records import Peer
from dicom_node.iod import rejection, secondary
from dicom_node.iod.created import Module, modules_of
from dicom_node.iod.sample import SEG_CLASS
from dicom_node.node.encode import SC, SEG
from dicom_node.node.layout import limits, seg_settings
from dicom_node.tools.manifest import ModelManifest
from dicom_node.tools.registry import load_models

TLS = "Secure transport, TLS (Annex B)"
AUDIT = "Audit trail message format (A.5)"
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what an operator may write


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A SOP Class of which the node makes objects. why: by what in the configuration."""

    sop_class_uid: str
    name: str
    why: tuple[str, ...]
    modules: tuple[Module, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the node is installed, as the machine knows itself: from outside, behind address
    translation or in a container, it has other names. name: "" where nobody has looked."""

    name: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The facts. accepted, proposed: presentation contexts; for the results those of `created`.

    models: those that an enabled route uses. settings: every key but paths and secrets. shown: the
    node's certificate, if it can be used. trusted: the CAs of tls.ca.
    """

    version: str
    implementation: tuple[str, str]
    config: Config
    limits: Limits
    accepted: tuple[Context, ...]
    proposed: tuple[Context, ...]
    brought: tuple[Context, ...]
    created: tuple[Created, ...]
    models: tuple[ModelManifest, ...]
    settings: tuple[Setting, ...]
    machine: Machine = Machine()
    shown: Validity | None = None
    trusted: tuple[Validity, ...] = ()

    @property
    def stored(self) -> tuple[Context, ...]:
        """The accepted contexts of the Storage Service."""
        return tuple(c for c in self.accepted if c.service == conformance.STORE)

    @property
    def storage_syntaxes(self) -> tuple[str, ...]:
        """The transfer syntaxes of all of them, in the order of preference."""
        return self.stored[0].transfer_syntaxes

    @property
    def everywhere(self) -> bool:
        """Whether it listens on every address of the machine."""
        return self.config.node.host in EVERYWHERE

    @property
    def host(self) -> str:
        """Where peers find it, as far as configuration and machine tell."""
        if not self.everywhere:
            return self.config.node.host
        return self.machine.name or "the address of this machine"

    @property
    def port(self) -> str:
        """The port that peers are told."""
        return _told(self.config.node.port) if self.config.tls.plain else self.tls_port

    @property
    def local(self) -> bool:
        """Whether only this machine is heard."""
        return is_local(self.config.node.host)

    @property
    def security(self) -> tuple[tuple[str, str], ...]:
        """The security profiles, with what is configured of each."""
        return ((TLS, self.tls or NOT_CONFIGURED), (AUDIT, self._audit()))

    def _audit(self) -> str:
        """Where it goes; paths are nobody's business."""
        audit = self.config.audit
        ways = [f"by syslog over TLS (A.6) to {audit.syslog}"] if audit.syslog else []
        ways += ["to a file"] if audit.file is not None else []
        return " and ".join(ways) or NOT_CONFIGURED

    @property
    def tls(self) -> str:
        """How TLS is used, "" where it is not."""
        tls, called = self.config.tls, [p.name for p in self.config.peers if p.tls]
        parts = []
        if tls.certificate is not None:
            shown = "must" if tls.require_client_certificate else "need not"
            parts.append(f"heard on port {self.tls_port}; who calls {shown} show a certificate")
            parts += [] if tls.plain else ["nobody is heard without TLS"]
        if called:
            parts.append(f"used to call {', '.join(called)}")
        return f"{PROFILE}, {VERSIONS}: {'; '.join(parts)}" if parts else ""

    @property
    def tls_port(self) -> str:
        """The port for TLS that peers are told, "" without one."""
        return _told(self.config.tls.port) if self.config.tls.certificate is not None else ""

    @property
    def entrance(self) -> str:
        """The port or ports, in words."""
        if not self.tls_port:
            return f"port {self.port}"
        if self.config.tls.plain:
            return f"port {self.port}, or {self.tls_port} with TLS"
        return f"port {self.port}, with TLS"

    def sending(self) -> tuple[Peer, ...]:
        """The peers that may store here."""
        return tuple(peer for peer in self.config.peers if "store" in peer.may)

    def owed(self) -> tuple[Peer, ...]:
        """The peers that an enabled route sends results to, as far as the configuration tells."""
        return tuple(peer for peer in self.config.peers if routes_to(self.config, peer))

    def offering(self, service: str) -> tuple[Peer, ...]:
        """The peers that may be asked for a service."""
        return tuple(peer for peer in self.config.peers if service in peer.offers)


def _told(port: int) -> str:
    return str(port) if port else "any that is free"


def routes_to(config: Config, peer: Peer) -> tuple[Route, ...]:
    """The enabled routes whose results may go to the peer."""
    if "store" not in peer.offers:
        return ()
    return tuple(
        route
        for route in config.routes
        if route.enabled
        and (
            peer.name in route.destinations
            or (SENDER in route.destinations and "store" in peer.may)
        )
    )


def statement(config: Config, machine: Machine | None = None) -> Statement:
    """All of it. Raises ToolError for a model that cannot be used."""
    created = _created(config)
    certificates = _certificates(config)
    receive = config.receive
    used = {route.tool_id for route in config.routes if route.enabled}
    return Statement(
        version=__version__,
        implementation=(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
        config=config,
        limits=limits(config),
        accepted=conformance.accepted(receive.extra_sop_classes, receive.extra_transfer_syntaxes),
        proposed=(
            *conformance.proposed_for_results([one.sop_class_uid for one in created]),
            *conformance.proposed_besides(),
        ),
        brought=conformance.proposed_to_get(),
        created=created,
        models=tuple(m for name, m in load_models(config.models_dir).items() if name in used),
        settings=settings(config),
        machine=machine or Machine(),
        shown=next((one for one in certificates if one.whose == OWN), None),
        trusted=tuple(one for one in certificates if one.whose != OWN),
    )


def _certificates(config: Config) -> list[Validity]:
    """Those of the configuration; none where they cannot be used: `doctor` says why."""
    try:
        return validities(config.tls.files())
    except ConfigurationError:
        return []


def _created(config: Config) -> tuple[Created, ...]:
    """The kinds of objects that this configuration leads to."""
    enabled = [route for route in config.routes if route.enabled]
    whys: dict[str, list[str]] = {
        SEG_CLASS: [f"route {r.name}" for r in enabled if SEG in r.results],
        secondary.SOP_CLASS_UID: [f"route {r.name}" for r in enabled if SC in r.results],
        rejection.SOP_CLASS_UID: [],
    }
    for peer in config.peers:
        routes = routes_to(config, peer)
        if peer.fallback == SC and any(SEG in route.results for route in routes):
            whys[secondary.SOP_CLASS_UID].append(f"peer {peer.name}, if it takes no Segmentation")
        if "reject" in peer.offers and routes:
            whys[rejection.SOP_CLASS_UID].append(f"peer {peer.name}, when a result is replaced")
    return tuple(
        Created(
            sop_class_uid=uid,
            name=conformance.name_of(uid),
            why=tuple(why),
            modules=modules_of(uid, seg_settings(config)),
        )
        for uid, why in whys.items()
        if why
    )
