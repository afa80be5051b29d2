"""Which tools a complete Series goes through, and where the results go; or why none."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dicom_node.decide.geometry import Finding
from dicom_node.decide.match import Expression, evaluate
from dicom_node.domain.records import Attributes, Peer
from dicom_node.domain.tool import Applicable, NotApplicable

ANYONE = "*"
SENDER = "@sender"

Applicability = Mapping[str, Applicable | NotApplicable]
"""Tool id -> its own verdict on the Series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One rule of the operator: Series like this, from these senders, through this tool, to there.

    sources: names or AE titles of peers, or "*". when: None means whatever the tool can process.
    results: kinds, such as "seg". destinations: names of peers, or "@sender". priority: a step with
    a higher one is performed first.
    """

    name: str
    tool_id: str
    sources: tuple[str, ...] = (ANYONE,)
    when: Expression | None = None
    results: tuple[str, ...] = ("seg",)
    destinations: tuple[str, ...] = (SENDER,)
    priority: int = 0
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sent the Series: the calling AE title of the association, and its IP address."""

    ae_title: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One tool to run, and the names of the peers that its results are owed to."""

    route: str
    tool_id: str
    results: tuple[str, ...]
    destinations: tuple[str, ...]
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps for a Series. reasons: a sentence for every route that gave no step of its own,
    or none of its results to the sender."""

    steps: tuple[StepPlan, ...] = ()
    reasons: tuple[str, ...] = ()


def plan(
    *,
    attributes: Attributes,
    sender: Sender,
    peers: Sequence[Peer],
    applicability: Applicability,
    routes: Sequence[Route],
    is_own_result: bool = False,
    mixed: Sequence[Finding] = (),
) -> Plan:
    """The steps that the routes ask for. The node's own results are never processed again.

    attributes: of one instance of the Series, with the keywords of match.NODE_KEYWORDS added.
    Routes that want the same results of the same tool share one step, with all their destinations.
    A route with destinations of which none is known gives no step; one without destinations does:
    its results stay here. mixed: see subject; such a Series goes nowhere.
    """
    if is_own_result:
        return Plan(reasons=("the Series is a result of this node: no route takes it",))
    if mixed:
        return Plan(reasons=tuple(finding.reason for finding in mixed))
    if not routes:
        return Plan(reasons=("no route is configured: add [[route]]",))
    peer = resolve_sender(sender, peers)
    steps: list[StepPlan] = []
    reasons: list[str] = []
    for route in routes:
        obstacle = _obstacle(route, attributes, sender, peer, applicability)
        if not obstacle:
            answered = peer if peer is not None and "store" in peer.offers else None
            destinations = _destinations(route, answered)
            if answered is None and SENDER in route.destinations:
                obstacle = _no_way_back(sender, peer)
            if destinations or not route.destinations:
                shared = _add(steps, route, destinations)
                obstacle = obstacle or shared
        if obstacle:
            reasons.append(f"route '{route.name}': {obstacle}")
    return Plan(steps=tuple(steps), reasons=tuple(reasons))


def resolve_sender(sender: Sender, peers: Sequence[Peer]) -> Peer | None:
    """The configured peer with the sender's AE title, at the sender's address.

    A peer's networks decide; a peer without them is looked for at its host, where that is an IP
    address or localhost, and anywhere, where it is another name (names are not looked up). Of
    several, one with networks or that host wins.
    """
    titled = [p for p in peers if p.ae_title.strip() == sender.ae_title.strip()]
    for exact in (True, False):
        for peer in titled:
            if _is_at(peer, sender.address, exact=exact):
                return peer
    return None


def calls_from(peer: Peer) -> tuple[str, ...]:
    """The networks and addresses at which `resolve_sender` finds the peer; none: at any."""
    if peer.networks:
        return peer.networks
    known = peer.host.lower() == "localhost" or _address(peer.host) is not None
    return (peer.host,) if known else ()


def _is_at(peer: Peer, address: str, *, exact: bool) -> bool:
    found = _address(address)
    if peer.networks:
        return found is not None and any(
            found in ipaddress.ip_network(network, strict=False) for network in peer.networks
        )
    if peer.host.lower() == "localhost":
        return found is not None and found.is_loopback
    host = _address(peer.host)
    if host is None:
        return peer.host == address or not exact
    return host == found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _obstacle(
    route: Route,
    attributes: Attributes,
    sender: Sender,
    peer: Peer | None,
    applicability: Applicability,
) -> str:
    """The first thing that keeps the Series off the route, "" if there is none."""
    if not route.enabled:
        return "it is not enabled"
    names = {ANYONE, sender.ae_title.strip()} | ({peer.name} if peer else set())
    if names.isdisjoint(route.sources):
        wanted = ", ".join(f"'{source}'" for source in route.sources)
        return f"the Series came from '{sender.ae_title}', not from {wanted}"
    if route.when is not None:
        verdict = evaluate(route.when, attributes)
        if not verdict.matched:
            return verdict.explanation
    match applicability.get(route.tool_id):
        case None:
            return f"its tool '{route.tool_id}' is not there"
        case NotApplicable(reason):
            return f"its tool '{route.tool_id}' declines: {reason}"
    return ""


def _no_way_back(sender: Sender, peer: Peer | None) -> str:
    if peer is not None:
        return f"nothing goes to the sender: the peer '{peer.name}' does not offer \"store\""
    return (
        f"nothing goes to the sender: '{sender.ae_title}' at {sender.address} is not a "
        f"configured peer: add [[peer]] with its AE title, host and port"
    )


def _destinations(route: Route, peer: Peer | None) -> tuple[str, ...]:
    """Names of peers, each once; without the sender where it is not a configured peer."""
    sender = () if peer is None else (peer.name,)
    found = (name for to in route.destinations for name in (sender if to == SENDER else (to,)))
    return tuple(dict.fromkeys(found))


def _add(steps: list[StepPlan], route: Route, destinations: tuple[str, ...]) -> str:
    """Add a step, or the destinations to the step that does the same: then a sentence on that."""
    for i, step in enumerate(steps):
        if step.tool_id == route.tool_id and set(step.results) == set(route.results):
            steps[i] = replace(
                step,
                destinations=tuple(dict.fromkeys((*step.destinations, *destinations))),
                priority=max(step.priority, route.priority),
            )
            return f"it shares the step of route '{step.route}'"
    steps.append(
        StepPlan(
            route=route.name,
            tool_id=route.tool_id,
            results=route.results,
            destinations=destinations,
            priority=route.priority,
        )
    )
    return ""
