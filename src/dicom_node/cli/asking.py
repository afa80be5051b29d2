"""What the commands that talk to a peer share: the peer, time-outs, columns, progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.cells import cell_len, set_cell_size

from dicom_node.cli.common import find_peer
from dicom_node.config.load import Config, load
from dicom_node.dimse.scu import Outcome, Timeouts
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.identifiers import is_uid
from dicom_node.domain.records import Peer
from dicom_node.domain.text import printable

WIDTH = 80

F = TypeVar("F", bound=Callable[..., Any])


def _peers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the names of the configured peers that begin so."""
    del param
    try:
        config = load(ctx.params.get("config_path"))
    except ConfigurationError:
        return []
    return [peer.name for peer in config.peers if peer.name.startswith(incomplete)]


def peer_argument(command: F) -> F:
    """PEER: a configured name, the AE title of a configured peer, or AET@host:port."""
    return click.argument("peer", shell_complete=_peers)(command)


def a_uid(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of an option: the value is a UID, or there is none."""
    if value is not None and not is_uid(value.strip()):
        raise click.BadParameter(f"{value!r} is not digits and dots, at most 64", ctx, param)
    return None if value is None else value.strip()


def timeout_option(default_s: float) -> Callable[[F], F]:
    """--timeout: how long to wait for each answer."""

    def decorate(command: F) -> F:
        return click.option(
            "--timeout", "answer_s", default=default_s, show_default=True, metavar="SECONDS",
            type=click.FloatRange(min=0.1, max=86400),
            help="How long to wait for each answer of the peer.",
        )(command)  # fmt: skip

    return decorate


def timeouts(config: Config, answer_s: float) -> Timeouts:
    """The configured wait for a connection, and the command's own for an answer."""
    return Timeouts(
        connect_s=min(config.deliver.connect_s, answer_s),
        associate_s=min(30.0, answer_s),
        answer_s=answer_s,
    )


def peer_offering(text: str, config: Config, service: str) -> Peer:
    """The peer, if it may be asked for `service`. Raises ConfigurationError."""
    peer = find_peer(text, config)
    if service not in peer.offers:
        raise ConfigurationError(
            [
                f"peer {peer.name!r} does not offer {service!r}: add it to its `offers`, "
                f"or write {peer.ae_title}@{peer.host}:{peer.port}"
            ],
            config.source,
        )
    return peer


def status_text(outcome: Outcome) -> str:
    """The status as the standard writes it, or the phase in which there was none."""
    return f"0x{outcome.status:04X}" if outcome.status is not None else str(outcome.phase)


def counted(number: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def cell(text: object, width: int) -> str:
    """Exactly `width` columns of the terminal, with an ellipsis where the text is longer."""
    plain = printable(str(text))
    if cell_len(plain) > width:
        plain = set_cell_size(plain, width - 1).rstrip() + "…"
    return set_cell_size(plain, width)
