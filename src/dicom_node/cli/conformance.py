"""`conformance`: what this node says of itself to other systems."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dicom_node.cli.common import config_option, json_option, print_json
from dicom_node.cli.machine import this_machine
from dicom_node.cli.sheet import sheet
from dicom_node.cli.statement import document
from dicom_node.config.load import load
from dicom_node.dimse import conformance as tables
from dicom_node.dimse.conformance import Context, name_of
from dicom_node.dimse.status import meaning, rejection_words
from dicom_node.domain.errors import NodeError
from dicom_node.node.clock import SystemClock
from dicom_node.node.statement import Statement, statement


@click.command()
@click.option(
    "--sheet", "one_page", is_flag=True, help="One page, for the administrator of a PACS."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write there, and not to standard output.",
)
@config_option
@json_option
def conformance(one_page: bool, out: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Write the DICOM Conformance Statement of this configuration (PS3.2), in Markdown.

    Nothing is sent, and the node need not be running.
    """
    if as_json and (one_page or out is not None):
        raise click.UsageError("--json goes to standard output, and is all there is")
    config = load(config_path)
    facts = statement(config, this_machine(config))
    if as_json:
        print_json(_plain(facts))
        return
    text = sheet(facts) if one_page else document(facts, SystemClock().now())
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NodeError(f"{out} cannot be written: {error.strerror}") from error


def _plain(facts: Statement) -> dict[str, Any]:
    config = facts.config
    return {
        "version": facts.version,
        "ae_title": config.node.ae_title,
        "host": config.node.host,
        "port": config.node.port,
        "implementation_class_uid": facts.implementation[0],
        "implementation_version_name": facts.implementation[1],
        "limits": asdict(facts.limits),
        "accepted": [_context(context) for context in facts.accepted],
        "proposed": [_context(context) for context in facts.proposed],
        "proposed_to_get": [_context(context) for context in facts.brought],
        "answers": {
            "C-ECHO": _answers(tables.ECHO_ANSWERS),
            "C-STORE": _answers(tables.STORE_ANSWERS),
            "storage commitment": _answers(tables.COMMITMENT_ANSWERS),
            "other": _answers(tables.OTHER_ANSWERS),
        },
        "rejections": [
            {**asdict(rejection), "meaning": rejection_words(rejection), "when": when}
            for rejection, when in tables.REJECTIONS.items()
        ],
        "created": [asdict(created) for created in facts.created],
        "security": dict(facts.security),
        "settings": {f"{s.section}.{s.key}": s.value for s in facts.settings},
        "peers": [
            {
                "name": peer.name,
                "ae_title": peer.ae_title,
                "host": peer.host,
                "port": peer.port,
                "may": sorted(peer.may),
                "offers": sorted(peer.offers),
            }
            for peer in config.peers
        ],
    }


def _context(context: Context) -> dict[str, Any]:
    return {**asdict(context), "name": name_of(context.abstract_syntax)}


def _answers(answers: Any) -> dict[str, dict[str, str]]:
    return {
        f"{code:04X}": {"meaning": meaning(code), "when": when} for code, when in answers.items()
    }
