"""Who sent a Series, where several did: who gets the results, and is asked how many it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_node.decide.routing import Sender, resolve_sender
from dicom_node.domain.records import Association, Peer

_Entity = tuple[str, str]
"""The name of a peer, "" of one that is not configured; its AE title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """association: the latest of the sender's. peer: who it is, if it is configured.

    reason: a clause that names the others that brought something, "" if there are none.
    """

    association: Association
    peer: Peer | None
    reason: str = ""

    @property
    def sender(self) -> Sender:
        """As the routes know it."""
        return _sender(self.association)


def origin(
    associations: Sequence[Association], brought: Mapping[int, int], peers: Sequence[Peer]
) -> Origin:
    """The Application Entity that brought most of the instances; of equals, the latest.

    associations: at least one, by number. brought: number of an association -> how many instances
    are here because of it: new ones, and such as came again after their files were removed. An
    identical repetition brings nothing: else whoever sends one image again would get the results.
    """
    own: dict[_Entity, list[Association]] = {}
    for association in associations:
        if brought.get(association.number):
            own.setdefault(_entity(association, peers), []).append(association)
    counts = {entity: sum(brought[a.number] for a in some) for entity, some in own.items()}
    if not counts:
        return Origin(association=associations[-1], peer=_peer(associations[-1], peers))
    most = max(counts, key=lambda entity: (counts[entity], own[entity][-1].number))
    association = own[most][-1]
    return Origin(
        association=association,
        peer=_peer(association, peers),
        reason=_clause(most, counts) if len(counts) > 1 else "",
    )


def _clause(most: _Entity, counts: Mapping[_Entity, int]) -> str:
    others = [f"{_title(entity)} {counts[entity]}" for entity in sorted(counts) if entity != most]
    return (
        f"{_title(most)} counts as its sender: it brought {counts[most]} of "
        f"{sum(counts.values())} instances, {', '.join(others)}"
    )


def _entity(association: Association, peers: Sequence[Peer]) -> _Entity:
    peer = _peer(association, peers)
    return ("", association.calling_ae.strip()) if peer is None else (peer.name, peer.ae_title)


def _title(entity: _Entity) -> str:
    name, ae_title = entity
    return name or ae_title


def _peer(association: Association, peers: Sequence[Peer]) -> Peer | None:
    return resolve_sender(_sender(association), peers)


def _sender(association: Association) -> Sender:
    return Sender(ae_title=association.calling_ae, address=association.address)
