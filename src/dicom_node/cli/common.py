"""What the commands share: options, output for people and for programs, peers by name."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from dicom_node.config.load import Config
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.identifiers import is_ae_title
from dicom_node.domain.records import Peer

EXIT_FAILED = 1
EXIT_USAGE = 2

_PEER = re.compile(r"(?P<ae>[^@]+)@(?P<host>\[[^\]]+\]|[^:@]+):(?P<port>[0-9]{1,5})")

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """--config: the operator's file."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file. Default: ae_config.toml here, else what comes with the node.",
    )(command)


def json_option(command: F) -> F:
    """--json: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def console() -> Console:
    """Standard output, as wide as the terminal (80 where there is none)."""
    return Console(highlight=False, markup=False, soft_wrap=not sys.stdout.isatty())


def progress_console() -> Console:
    """Standard error: progress never mixes with the output."""
    return Console(stderr=True, highlight=False, markup=False)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def complain(first: str, *more: str) -> None:
    """An error, on standard error."""
    click.echo(f"dicom-node: {first}", err=True)
    for line in more:
        click.echo(f"  - {line}", err=True)


def find_peer(text: str, config: Config) -> Peer:
    """A configured peer by name or AE title, or AET@host:port. Raises ConfigurationError."""
    for peer in config.peers:
        if text in (peer.name, peer.ae_title):
            return peer
    match = _PEER.fullmatch(text)
    if match and is_ae_title(match["ae"]) and 0 < int(match["port"]) < 65536:
        return Peer(
            name=text,
            ae_title=match["ae"].strip(),
            host=match["host"].strip("[]"),
            port=int(match["port"]),
            offers=frozenset({"store", "query", "retrieve"}),
        )
    names = ", ".join(peer.name for peer in config.peers) or "none"
    raise ConfigurationError(
        [f"{text!r} is neither a configured peer ({names}) nor of the form AET@host:port"],
        "command line",
    )
