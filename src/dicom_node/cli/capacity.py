"""What the node takes in now, and what it ever removes: for `status` and `doctor`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from dicom_node.catalog import Catalog
from dicom_node.cli.examine import Finding, doubtful, failed, node_runs, well
from dicom_node.config.load import Config
from dicom_node.decide import confirmation
from dicom_node.decide.pressure import Level, Pressure, judge
from dicom_node.node.descriptors import attainable, needed
from dicom_node.node.outgoing import RESERVE, limits_of


def pressure(config: Config, catalog: Catalog | None) -> Pressure:
    """As the node judges it; without a catalog nothing waits."""
    free = shutil.disk_usage(config.data_dir).free
    waiting = catalog.keeping.waiting_steps() if catalog is not None else 0
    return judge(limits_of(config), free, waiting)


def findings(config: Config) -> Iterator[Finding]:
    """What is removed, and whether it can be: what peers prove."""
    retain, passing = config.retain, sorted(config.passing)
    parts = [
        f"settled series after {retain.keep_days:g} days" if retain.keep_days else "",
        f"unsettled ones after {retain.keep_days_unsettled:g} days"
        if retain.keep_days_unsettled
        else "",
        f"the oldest settled ones below {retain.free_gib:g} GiB free" if retain.free_gib else "",
        f"what was delivered by route {', '.join(passing)}" if passing else "",
    ]
    said = ", ".join(part for part in parts if part)
    yield well("retention", f"removed: {said}" if said else "nothing is ever removed ([retain])")
    unproven = sorted(
        peer.name
        for peer in config.peers
        if "store" in peer.offers and not confirmation.ways(peer.offers)
    )
    if passing and unproven:
        yield doubtful(
            "retention",
            f"{', '.join(unproven)} cannot prove what it has, and series are removed after "
            "delivery",
            'let it offer "commit" or "query"',
        )


def fullness(config: Config) -> Iterator[Finding]:
    """Whether senders are let in, where the data folder is there."""
    if not config.data_dir.is_dir():
        return
    found = pressure(config, None)
    if found.level is Level.CLOSED:
        yield failed("disk", f"senders are rejected: {found.reason}", "free some space")
    if node_runs(config) and not (config.data_dir / RESERVE).exists():
        text = "there was no room for the file that keeps some for the catalog"
        yield doubtful("disk", text, "free some space")


def descriptors(config: Config) -> Finding:
    """Whether this user may have as many as all associations together need."""
    wanted, most = needed(config), attainable()
    if most is None or most >= wanted:
        return well("descriptors", f"{wanted} may be needed, and may be had")
    return doubtful(
        "descriptors",
        f"{wanted} may be needed, and {most} may be had: with many associations at a time "
        "further ones are not answered",
        "raise the hard limit (ulimit -Hn, LimitNOFILE), or lower receive.max_associations",
    )
