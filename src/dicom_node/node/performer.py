"""The performer process: `... performer NUMBER [cold] DEVICES CLOCK CONFIGURATION`.

DEVICES: that of each performer of the node, separated by commas; this one is performer NUMBER.
cold: no model is loaded before a step asks for it; so what dies of loading one dies of a step.
CLOCK is the supervisor's clock offset (see node.clock): leases are judged by one time.
CONFIGURATION is the file that `hand_over` wrote: what the node was started with, whatever the
operator has made of the file since.

The supervisor starts it and ends it; standard input closes when the supervisor dies, and the
performer goes with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from dicom_node.catalog import Catalog
from dicom_node.config.load import Config
from dicom_node.domain.errors import NodeError, ToolError
from dicom_node.domain.tool import ImageProcessingTool
from dicom_node.iod.image import Reading
from dicom_node.node import bell as bells
from dicom_node.node import log, stage
from dicom_node.node.ahead import Ahead
from dicom_node.node.applicability import judges
from dicom_node.node.clock import SystemClock
from dicom_node.node.decode import Decoders
from dicom_node.node.devices import Place, cores
from dicom_node.node.journal import Journal
from dicom_node.node.layout import (
    catalog_path,
    seg_settings,
    share_catalog,
    spool_path,
    taken_over,
)
from dicom_node.node.perform import Performer, be_nice
from dicom_node.node.pulse import Pulse
from dicom_node.node.router import Router
from dicom_node.node.supersede import Superseder
from dicom_node.node.supervise import COLD
from dicom_node.node.toolbox import BuildTool, Toolbox, load_tool
from dicom_node.spool.store import Spool
from dicom_node.tools.manifest import ModelManifest, read_manifest

_log = logging.getLogger("dicom_node")
_NICE = 5


def builder(config: Config, place: Place) -> BuildTool:
    """Loads the models of the configuration, in their place; one that is bad spoils no other."""

    def build(tool_id: str) -> ImageProcessingTool:
        folder = config.models_dir / tool_id
        if not folder.is_dir():
            raise ToolError(f"there is no model {tool_id} in {config.models_dir}")
        return load_tool(read_manifest(folder), config, place)

    return build


def main(arguments: list[str]) -> int:
    """Perform steps until told to stop."""
    log.configure()
    number, *mode, devices, clock_offset, configuration = arguments
    place = Place(number=int(number), devices=tuple(devices.split(",")))
    try:
        return _perform(place, float(clock_offset), Path(configuration), cold=mode == [COLD])
    except ToolError as error:  # a stage outlives all others
        _log.error("performer %s ends, and a fresh one is to go on: %s", number, error)
        return 1
    except NodeError as error:
        _log.error("performer %s cannot start: %s", number, error)
        return 1


def _perform(place: Place, clock_offset: float, configuration: Path, *, cold: bool) -> int:
    clock = SystemClock(clock_offset)
    config, number = taken_over(configuration), place.number
    be_nice(_NICE)
    stop = threading.Event()
    bell = bells.Bell(config.data_dir)
    listener = bell.listen(bells.PERFORM, number)

    def end(*_: object) -> None:
        stop.set()
        bell.ring(bells.PERFORM, number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    threading.Thread(target=_follow_parent, daemon=True).start()
    shared = share_catalog(config.data_dir)  # it may outlive the node for a moment
    catalog = Catalog(catalog_path(config))
    spool, journal = Spool(spool_path(config)), Journal(catalog, bell, len(place.devices))
    settings = seg_settings(config)
    tools = Toolbox(build=builder(config, place))
    decoders = Decoders()
    superseder = Superseder(
        told=frozenset(peer.name for peer in config.peers if "reject" in peer.offers),
        settings=settings,
        spool=spool,
        journal=journal,
    )
    ahead = None
    if config.engine.ahead_mib:
        ahead = Ahead(
            journal=journal,
            spool=spool,
            clock=clock,
            expected=_expected(config, catalog, place.is_mine),
            tools=tools,
            decode=decoders,
            most_bytes=config.engine.ahead_mib << 20,
        )
    performer = Performer(
        name=f"performer {number}",
        tools=tools,
        settings=settings,
        reading=Reading(threads=place.threads(config.engine.threads, cores()), decode=decoders),
        max_attempts=config.engine.max_attempts,
        spool=spool,
        journal=journal,
        clock=clock,
        superseder=superseder if number == 0 else None,
        ahead=ahead,
        leaves_s=place.leaves_s if len(place.devices) > 1 else None,
        alive=Pulse(data_dir=config.data_dir, number=number).beat,
    )
    if not cold:
        performer.warm({route.tool_id for route in config.routes if route.enabled})
    stage.run("perform", performer.run_due, listener, clock, stop)
    decoders.close()
    catalog.close()
    shared.close()
    return 0


def _expected(
    config: Config, catalog: Catalog, is_mine: Callable[[str], bool]
) -> Callable[[str], tuple[str, ...]]:
    """The tools that the routes would give a Series as far as it is here; none, if another
    performer works ahead on it."""
    router = Router(
        routes=config.routes,
        peers=config.peers,
        tools=judges(_manifests(config)),
        catalog=catalog,
    )
    return lambda series_uid: router.expected(series_uid) if is_mine(series_uid) else ()


def _manifests(config: Config) -> dict[str, ModelManifest]:
    """Of the models that routes name, as far as they can be read: a step tells of the others."""
    found = {}
    for tool_id in {route.tool_id for route in config.routes if route.enabled}:
        with contextlib.suppress(ToolError, OSError):
            found[tool_id] = read_manifest(config.models_dir / tool_id)
    return found


def _follow_parent() -> None:
    """Blocks on standard input; its end is the end of the supervisor.

    The next supervisor takes every claimed step back, so what is under way is of no use any more.
    """
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
