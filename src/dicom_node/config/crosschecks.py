"""Checks that look at several keys at once."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence

from dicom_node.config.mistakes import did_you_mean, shown
from dicom_node.config.schema import File
from dicom_node.config.schema import Peer as PeerTable
from dicom_node.decide import match, routing
from dicom_node.decide.admission import FINGERPRINT
from dicom_node.domain.identifiers import is_ae_title

_SECOND = '; a second node can serve a peer that needs "stock"'


def cross_checks(file: File) -> list[str]:
    """One sentence for each contradiction within the file."""
    own = (_times, _room, _front, _tls, _peers, _routes, _audit)
    return [text for check in own for text in check(file)]


def tools_and_keywords(
    routes: Sequence[routing.Route], *, tools: Collection[str], keywords: Collection[str]
) -> list[str]:
    """One sentence for each tool or keyword of a route that does not exist."""
    known = set(keywords) | match.NODE_KEYWORDS
    found: list[str] = []
    for i, route in enumerate(routes):
        if route.tool_id not in tools:
            hint = did_you_mean(route.tool_id, tools)
            there = ", ".join(sorted(tools)) or "none"
            found.append(
                f"{_where(i, route.name, 'tool')} is {shown(route.tool_id)}: "
                f"there is no such model{hint}; there are: {there}"
            )
        asked = match.keywords(route.when) if route.when is not None else frozenset()
        found += [
            f"{_where(i, route.name, 'when')} asks for {shown(keyword)}: "
            f"the node keeps no such attribute{did_you_mean(keyword, known)}"
            for keyword in sorted(asked - known)
        ]
    return found


def _where(index: int, route: str, key: str) -> str:
    return f"route[{index}].{key} (of '{route}')"


def _front(file: File) -> Iterator[str]:
    if file.receive.front == "stock" and file.receive.processes > 1:
        yield f'receive.processes is above 1: that needs receive.front = "own"{_SECOND}'
    if file.receive.front == "stock" and file.tls.certificate is not None:
        yield f'tls.certificate is set: TLS needs receive.front = "own"{_SECOND}'


def _times(file: File) -> Iterator[str]:
    complete, deliver = file.complete, file.deliver
    if complete.release_s > complete.quiet_s:
        yield (
            f"complete.release_s is {complete.release_s:g}: "
            f"at most complete.quiet_s, which is {complete.quiet_s:g}"
        )
    if complete.quiet_s > complete.give_up_s:
        yield (
            f"complete.quiet_s is {complete.quiet_s:g}: "
            f"at most complete.give_up_s, which is {complete.give_up_s:g}"
        )
    if deliver.first_s > deliver.max_s:
        yield f"deliver.first_s is {deliver.first_s:g}: at most deliver.max_s ({deliver.max_s:g})"


def _room(file: File) -> Iterator[str]:
    """First room is made, then objects are refused, then associations."""
    receive, free = file.receive, file.retain.free_gib
    if receive.stop_free_gib is not None and receive.stop_free_gib > receive.min_free_gib:
        yield (
            f"receive.stop_free_gib is {receive.stop_free_gib:g}: "
            f"at most receive.min_free_gib, which is {receive.min_free_gib:g}"
        )
    if free and free <= receive.min_free_gib:
        yield (
            f"retain.free_gib is {free:g}: more than receive.min_free_gib, which is "
            f"{receive.min_free_gib:g}, or objects are refused before room is made"
        )


def _peers(file: File) -> Iterator[str]:
    yield from _repeated("peer", "name", [p.name for p in file.peer])
    ends = [(p.ae_title, p.host.lower(), p.port) for p in file.peer]
    yield from _repeated("peer", "AE title, host and port", ends)
    for i, peer in enumerate(file.peer):
        if (peer.ae_title, peer.host, peer.port) == (
            file.node.ae_title,
            file.node.host,
            file.node.port,
        ):
            yield f"peer[{i}] ('{peer.name}') is this node itself"


def _tls(file: File) -> Iterator[str]:
    tls = file.tls
    if tls.certificate is not None and tls.key is None:
        yield "tls.key is missing: tls.certificate has one"
    if tls.key is not None and tls.certificate is None:
        yield "tls.certificate is missing: tls.key is that of one"
    if tls.certificate is None and not tls.plain:
        yield "tls.plain is false: then tls.certificate is wanted, or nobody can be heard"
    if tls.certificate is not None and tls.require_client_certificate and tls.ca is None:
        yield (
            "tls.ca is missing: require_client_certificate = true needs it "
            "(false lets anybody in who speaks TLS)"
        )
    if tls.certificate is not None and tls.plain and 0 < tls.port == file.node.port:
        yield f"tls.port is {tls.port}: that is node.port"
    for i, peer in enumerate(file.peer):
        yield from (f"peer[{i}].{text} (of '{peer.name}')" for text in _secrets(file, peer))


def _secrets(file: File, peer: PeerTable) -> Iterator[str]:
    tls = file.tls
    heard = tls.certificate is not None and tls.ca is not None
    pinned = all(name.startswith(FINGERPRINT) for name in peer.certificates)
    if peer.certificates and not heard and not peer.tls:
        yield "certificates cannot match: no caller can show any without tls.certificate and tls.ca"
    if peer.tls and tls.ca is None and not (peer.certificates and pinned):
        yield "tls is true: nobody vouches for it; tls.ca is wanted, or certificates by sha256:"
    if peer.passcode and not peer.user:
        yield "passcode has no user"


def _repeated(table: str, what: str, values: Sequence[Hashable]) -> Iterator[str]:
    first: dict[Hashable, int] = {}
    for i, value in enumerate(values):
        if value in first:
            text = value if isinstance(value, str) else ", ".join(map(str, value))  # type: ignore[call-overload]
            yield f"{table}[{i}] has the {what} of {table}[{first[value]}]: {text}"
        first.setdefault(value, i)


def _routes(file: File) -> Iterator[str]:
    yield from _repeated("route", "name", [r.name for r in file.route])
    names = {p.name: p for p in file.peer}
    titles = {p.ae_title for p in file.peer}
    for i, route in enumerate(file.route):
        where = _where(i, route.name, "to")
        yield from _sources(_where(i, route.name, "from"), route.from_, {*names, *titles}, file)
        for to in route.to:
            if to == routing.SENDER:
                continue
            if to not in names:
                hint = did_you_mean(to, [*names, routing.SENDER])
                yield (
                    f"{where} has {shown(to)}: {routing.SENDER} "
                    f"or the name of a [[peer]] is wanted{hint}"
                )
            elif "store" not in names[to].offers:
                yield f'{where} has {shown(to)}: that peer does not offer "store"'


def _sources(
    where: str, sources: Iterable[str], peers: Collection[str], file: File
) -> Iterator[str]:
    """Any AE title may call where unknown peers are accepted, else only those of peers."""
    for source in sources:
        if source == routing.ANYONE or source in peers:
            continue
        if file.receive.unknown_peers != "accept":
            hint = did_you_mean(source, peers)
            yield (
                f"{where} has {shown(source)}: * or the name or AE title of a [[peer]] "
                f"is wanted{hint}"
            )
        elif not is_ae_title(source):
            yield f"{where} has {shown(source)}: *, a peer's name or an AE title is wanted"


def _audit(file: File) -> Iterator[str]:
    audit = file.audit
    if (audit.certificate is None) != (audit.key is None):
        missing = "certificate" if audit.certificate is None else "key"
        yield f"audit.{missing} is missing: audit.certificate and audit.key go together"
