"""`doctor`: is this node fit to run, and if not, what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import click
from rich.console import Console

from dicom_node import __version__
from dicom_node.cli import capacity, examine, guarded, trial
from dicom_node.cli.asking import counted
from dicom_node.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    config_option,
    console,
    json_option,
    print_json,
)
from dicom_node.cli.diagnosis import diagnosis
from dicom_node.cli.examine import Finding, State, doubtful, failed, well
from dicom_node.cli.examine_audit import audit
from dicom_node.cli.trial import Model
from dicom_node.config.hazards import unmeant, unsafe
from dicom_node.config.load import Config, check, load
from dicom_node.dimse.scu import Outcome, Phase, Timeouts, echo
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.records import Peer
from dicom_node.domain.text import printable
from dicom_node.iod.header import KEYWORDS
from dicom_node.node import pulse

ECHO = Timeouts(connect_s=3.0, associate_s=3.0, answer_s=3.0)
_AT_ONCE = 64  # peers asked at a time
_STYLES = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}
_WIDTH, _INDENT = 80, 22


@click.command()
@config_option
@json_option
def doctor(config_path: Path | None, as_json: bool) -> int:
    """Check configuration, disk, limits, ports, certificates, secrets, models, peers and clock.

    Harms nothing, also while the node runs. Exit 0 if nothing failed (warnings are allowed), 1 if
    something did, 2 for mistakes in the configuration.
    """
    mistakes = False
    findings: list[Finding] = []
    to = console()
    for finding in _findings(config_path):
        findings.append(finding)
        mistakes |= finding.check == "configuration" and finding.state is State.FAILED
        if not as_json:
            _print(finding, to)
    failures = sum(f.state is State.FAILED for f in findings)
    if as_json:
        print_json({"version": __version__, "ok": not failures, "findings": _plain(findings)})
    else:
        doubts = sum(f.state is State.WARNING for f in findings)
        click.echo(f"{len(findings)} checks, {failures} failed, {counted(doubts, 'warning')}")
    if mistakes:
        return EXIT_USAGE
    return EXIT_FAILED if failures else 0


def _findings(config_path: Path | None) -> Iterator[Finding]:
    """All findings, in the order in which an operator would mend them."""
    try:
        config = load(config_path)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            yield failed("configuration", mistake, f"correct {error.source}")
        yield examine.versions()
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        echoes = [(peer, pool.submit(_echo, peer, config)) for peer in config.peers]
        models = trial.models(config)
        yield from _configuration(config, {model.name for model in models})
        yield from examine.data_folder(config)
        yield from capacity.fullness(config)
        yield from capacity.findings(config)
        yield capacity.descriptors(config)
        runs = examine.node_runs(config)
        yield from examine.ports(config, runs=runs)
        yield from guarded.tls(config)
        yield from guarded.secrets(config, runs=runs)
        if runs:
            yield _performer(config)
        yield from examine.facts(config)
        yield from _models(config, models)
        yield from examine.decoders()
        yield from audit(config)
        yield from examine.senders(config)
        yield from _peers(config, echoes)
    yield examine.versions()


def _performer(config: Config) -> Finding:
    """Whether there are processes to run models in, beside the node that runs."""
    living, wanted = pulse.living(config.data_dir), len(pulse.started(config.data_dir))
    if living and living >= wanted:
        return well("performer", "its process lives" if living == 1 else f"{living} processes live")
    if living:
        return doubtful(
            "performer",
            f"only {living} of {wanted} performers live",
            "if they are not just starting, the log says why",
        )
    return doubtful(
        "performer",
        "the node is running, but no performer lives: no model runs",
        "if it is not just starting, the log says why",
    )


def _configuration(config: Config, tools: set[str]) -> Iterator[Finding]:
    """What the file says, and what only models and header attributes can contradict."""
    try:
        check(config, tools=tools, keywords=KEYWORDS)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            yield failed("configuration", mistake, f"correct {config.source}")
    else:
        routes = sum(route.enabled for route in config.routes)
        yield well(
            "configuration",
            f"{config.source}: AE title {config.node.ae_title}, "
            f"peers: {len(config.peers)}, routes: {routes}",
        )
    for danger in unsafe(config):
        yield doubtful("security", danger)
    for warning in unmeant(config):
        yield doubtful("configuration", warning)


def _models(config: Config, models: list[Model]) -> Iterator[Finding]:
    """All are looked at; those that a route uses are run, too."""
    if not models:
        text = f"there is no model in {config.models_dir}"
        yield failed("model", text, "install one there, or change node.models_dir")
    wanted = {route.tool_id for route in config.routes if route.enabled}
    for model in models:
        yield model.finding
        if model.manifest is not None and model.name in wanted:
            yield trial.dry_run(config, model.manifest)


def _echo(peer: Peer, config: Config) -> tuple[Outcome, float, str]:
    """The outcome, how long it took in ms, and the diagnosis where it did not succeed."""
    began = perf_counter()
    outcome = echo(peer=peer, calling_ae=config.node.ae_title, timeouts=ECHO)
    milliseconds = (perf_counter() - began) * 1000
    reason = "" if outcome.succeeded else diagnosis(outcome, peer, config, asked="echo")
    return outcome, milliseconds, reason


def _peers(
    config: Config, echoes: list[tuple[Peer, Future[tuple[Outcome, float, str]]]]
) -> Iterator[Finding]:
    """A peer that is away is a failure where a route names it, else a doubt.

    One that rejects us will go on doing so: always a failure.
    """
    owed = {name for route in config.routes if route.enabled for name in route.destinations}
    for peer, future in echoes:
        outcome, milliseconds, reason = future.result()
        if outcome.succeeded:
            where = f"{peer.ae_title} at {peer.host}:{peer.port}"
            yield well("peer", f"{peer.name}: {where} answers in {milliseconds:.0f} ms")
        elif peer.name in owed or outcome.phase is Phase.REJECT:
            yield failed("peer", f"{peer.name}: {reason}")
        else:
            yield doubtful("peer", f"{peer.name}: {reason}")


def _print(finding: Finding, to: Console) -> None:
    text = printable(finding.text + (f": {finding.advice}" if finding.advice else ""))
    first, *more = textwrap.wrap(
        text, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False
    )
    to.print(f"{finding.state:<8}", style=_STYLES[finding.state], end="", markup=False)
    to.print(f"{finding.check:<{_INDENT - 8}}{first}", markup=False, soft_wrap=True)
    for line in more:  # a fingerprint, or a path, is kept whole: it is to be copied
        indent = min(_INDENT, max(0, _WIDTH - len(line)))
        to.print(" " * indent + line, markup=False, soft_wrap=True)


def _plain(findings: list[Finding]) -> list[dict[str, str]]:
    return [
        {"check": f.check, "state": str(f.state), "text": f.text, "advice": f.advice}
        for f in findings
    ]
