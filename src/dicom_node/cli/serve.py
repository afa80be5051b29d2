"""`serve`: the node itself."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from dicom_node.cli.common import config_option, console
from dicom_node.config.hazards import unmeant, unsafe
from dicom_node.config.load import find, load
from dicom_node.node import log
from dicom_node.node.serve import RunningNode, start
from dicom_node.tools.registry import load_models


@click.command()
@config_option
@click.option("--log-json", is_flag=True, help="Log one JSON object a line.")
@click.option("-v", "--verbose", is_flag=True, help="Log each instance, too.")
def serve(config_path: Path | None, log_json: bool, verbose: bool) -> None:
    """Run the node until it is told to stop (Ctrl-C or SIGTERM)."""
    log.configure(json_lines=log_json, verbose=verbose)
    path = config_path or find()
    config = load(path)
    with _told_to_end() as told:
        node = start(config)
        try:
            if not log_json:
                with contextlib.suppress(OSError):  # nobody reads it: the node runs all the same
                    console().print(start_table(node))
            told.recv(1)
        finally:
            node.stop()


@contextmanager
def _told_to_end() -> Iterator[socket.socket]:
    """A socket that has something to read after SIGTERM or Ctrl-C, whichever thread got the signal.

    A handler in Python runs when the main thread wakes, and a signal wakes only its own thread.
    """
    told, tells = socket.socketpair()
    tells.setblocking(False)
    with told, tells:
        before = signal.set_wakeup_fd(tells.fileno())
        handlers = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield told
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def start_table(node: RunningNode) -> Table:
    """What an administrator wants to see at a glance."""
    config = node.config
    table = Table(title="dicom-node", show_header=False, title_justify="left", min_width=60)
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    table.add_row("AE title", config.node.ae_title)
    if node.port != node.tls_port:
        table.add_row("listens on", f"{config.node.host}:{node.port}")
    if node.tls_port is not None:
        table.add_row("with TLS on", f"{config.node.host}:{node.tls_port}")
    table.add_row("configuration", config.source)
    table.add_row("data folder", str(config.data_dir))
    for peer in config.peers:
        table.add_row(
            "peer", f"{peer.name}: {peer.ae_title} at {peer.host}:{peer.port}, "
            f"may {', '.join(sorted(peer.may)) or 'nothing'}"
        )  # fmt: skip
    for route in config.routes:
        state = "" if route.enabled else " (off)"
        to = ", ".join(route.destinations) or "nobody"
        table.add_row(
            "route", f"{route.name}{state}: {', '.join(route.sources)} -> {route.tool_id} -> {to}"
        )
    for manifest in load_models(config.models_dir).values():
        table.add_row("model", f"{manifest.id} {manifest.version}: {manifest.description}")
    table.add_row("device", config.engine.device)
    for danger in unsafe(config):
        table.add_row(Text("unsafe", "red"), danger)
    for warning in unmeant(config):
        table.add_row(Text("warning", "yellow"), warning)
    return table
