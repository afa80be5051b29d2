"""`dicom-node`: finds the command, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import importlib
import sys

import click

from dicom_node import __version__
from dicom_node.cli.common import EXIT_FAILED, EXIT_USAGE, complain
from dicom_node.domain.errors import ConfigurationError, NodeError

COMMANDS = {
    "serve": ("serve", "Run the node."),
    "demo": ("demo", "The whole way of one CT series, over DIMSE, to a picture."),
    "doctor": ("doctor", "Check configuration, ports, disk, models, peers and device."),
    "process": ("process", "Run a model on a folder of DICOM files, without a node."),
    "status": ("status", "What the node has received, made and delivered."),
    "why": ("why", "Tell the story of a series, or why there is no result."),
    "retry": ("retry", "Try a failed step or delivery again."),
    "hold": ("hold", "Stop a series: nothing of it is processed or sent until it is released."),
    "release": ("hold", "Let a series go on that was held, or is incomplete."),
    "routes": ("routes", "Test the routes against a DICOM file."),
    "models": ("models", "List the models, check their digests."),
    "conformance": (
        "conformance",
        "Write the DICOM Conformance Statement, or a sheet for the PACS.",
    ),
    "catalog": ("catalog", "Check the catalog, or make it anew from the spool."),
    "echo": ("network", "C-ECHO: does a peer answer?"),
    "find": ("network", "C-FIND: what does a peer have?"),
    "move": ("network", "C-MOVE: have a peer send studies to this node, or elsewhere."),
    "get": ("network", "C-GET: fetch studies into a folder."),
    "send": ("network", "C-STORE: send DICOM files to a peer."),
}
"""name -> (module in this package, help). Loaded when called: `echo` does not import torch."""


class Lazy(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: the daily ones first."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"dicom_node.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, without importing anything."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dicom-node")
def root() -> None:
    """The node between a PACS and its AI models.

    Receives series by C-STORE, runs models on them, and delivers the results as DICOM objects.
    For research use; not for diagnosis.
    """


def main() -> None:
    """The console script. Exit codes: 0 done, 1 failed, 2 usage or configuration."""
    try:
        code = root.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_FAILED)
    except (click.Abort, KeyboardInterrupt):
        complain("stopped")
        sys.exit(EXIT_FAILED)
    except ConfigurationError as error:
        complain(f"{error.source}: {len(error.mistakes)} to mend", *error.mistakes)
        sys.exit(EXIT_USAGE)
    except NodeError as error:
        complain(str(error))
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
