"""What the routes make of a Series: for the verdict, and for what may be done ahead of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_node.catalog import Catalog
from dicom_node.decide import subject
from dicom_node.decide.geometry import Finding, split_localizers
from dicom_node.decide.origin import Origin, origin
from dicom_node.decide.routing import Plan, Route, plan
from dicom_node.domain.records import Attributes, Peer
from dicom_node.node.applicability import Judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """The routes of a configuration, with the peers and the models that they name."""

    routes: tuple[Route, ...]
    peers: tuple[Peer, ...]
    tools: Mapping[str, Judge]
    catalog: Catalog

    def plan(
        self,
        series_uid: str,
        chosen: Sequence[Attributes],
        sent_by: Origin,
        mixed: Sequence[Finding],
    ) -> Plan:
        """The steps for a Series of these instances, and why there are not more."""
        called = sent_by.association
        attributes = subject.header(
            chosen, calling_ae=called.calling_ae, called_ae=called.called_ae
        )
        return plan(
            attributes=attributes,
            sender=sent_by.sender,
            peers=self.peers,
            applicability={name: judge(attributes) for name, judge in self.tools.items()},
            routes=self.routes,
            is_own_result=self.catalog.views.is_own_series(series_uid),
            mixed=mixed,
        )

    def expected(self, series_uid: str) -> tuple[str, ...]:
        """Ids of the tools that the Series would go through if it were complete now."""
        views = self.catalog.views
        instances = views.instances(series_uid)
        associations = views.associations(series_uid)
        if not instances or not associations:
            return ()
        brought = Counter(instance.association for instance in instances)
        split = split_localizers([instance.attributes for instance in instances])
        mixed = subject.mixed(instance.attributes for instance in instances)
        sent_by = origin(associations, brought, self.peers)
        steps = self.plan(series_uid, subject.chosen(split), sent_by, mixed).steps
        return tuple(dict.fromkeys(step.tool_id for step in steps))
