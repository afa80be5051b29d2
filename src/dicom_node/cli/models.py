"""`models`: what is installed, and whether it is what it claims to be."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from dicom_node.cli.common import (
    EXIT_FAILED,
    complain,
    config_option,
    console,
    json_option,
    print_json,
)
from dicom_node.config.load import load
from dicom_node.domain.errors import ToolError
from dicom_node.tools.registry import load_models


@click.group()
def models() -> None:
    """List the models, check their digests."""


@models.command("list")
@config_option
@json_option
def list_models(config_path: Path | None, as_json: bool) -> None:
    """The models of models_dir, each checked against its digest."""
    manifests = load_models(load(config_path).models_dir)
    rows = [
        {
            "id": m.id,
            "version": m.version,
            "kind": m.kind,
            "description": m.description,
            "when": m.when,
            "sha256": m.sha256,
            "licence": m.licence,
            "folder": str(m.folder),
        }
        for m in manifests.values()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table(title=f"{len(rows)} models", title_justify="left")
    for heading in ("id", "version", "finds", "for"):
        table.add_column(heading, overflow="fold")
    for m in manifests.values():
        table.add_row(m.id, m.version, m.description, m.when)
    console().print(table)


@models.command("check")
@config_option
def check_models(config_path: Path | None) -> int:
    """Exit 0 if every model is whole."""
    try:
        manifests = load_models(load(config_path).models_dir)
    except ToolError as error:
        complain(str(error))
        return EXIT_FAILED
    for manifest in manifests.values():
        click.echo(f"{manifest.id} {manifest.version}: {manifest.sha256 or 'no weights'} as pinned")
    return 0
