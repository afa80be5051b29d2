"""From the operator's file to one frozen Config, or to the list of all its mistakes."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dicom_node.config import mistakes, secrets
from dicom_node.config.auditing import Audit
from dicom_node.config.crosschecks import cross_checks, tools_and_keywords
from dicom_node.config.outgoing import Deliver, Retain
from dicom_node.config.repair import repaired
from dicom_node.config.schema import Complete, Engine, File, Node, Receive, Results
from dicom_node.config.schema import Peer as PeerTable
from dicom_node.config.schema import Route as RouteTable
from dicom_node.config.transport import Tls
from dicom_node.decide import match
from dicom_node.decide.routing import Route
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.records import Peer
from dicom_node.domain.security import TlsFiles

FILE_NAME = "ae_config.toml"
ENVIRONMENT = "DICOM_NODE_CONFIG"
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the operator said, with the defaults for the rest; paths are absolute.

    source: the file, for messages. text, base: what `read` made it of. data_dir, models_dir: as in
    `node`; without a models_dir in the file, that of the models shipped along. passing: the routes
    that delete after delivery.
    """

    source: str
    data_dir: Path
    models_dir: Path
    node: Node
    receive: Receive
    complete: Complete
    engine: Engine
    results: Results
    tls: Tls
    deliver: Deliver
    retain: Retain
    audit: Audit
    passing: frozenset[str]
    peers: tuple[Peer, ...]
    routes: tuple[Route, ...]
    text: str = ""
    base: Path = Path()

    def peer(self, name: str) -> Peer | None:
        """The peer of that name."""
        return next((p for p in self.peers if p.name == name), None)


def load(path: Path | None = None) -> Config:
    """Read the file at `path`; without one, the file that `find` finds, or the shipped one.

    The shipped file's data folder is relative to the working directory, any other's to the file.
    Raises ConfigurationError with every mistake in the file.
    """
    found = path if path is not None else find()
    base = found.absolute().parent if found is not None else Path.cwd()
    file = found if found is not None else shipped() / FILE_NAME
    return read(_text(file), base=base, source=str(file))


def find() -> Path | None:
    """The file named by DICOM_NODE_CONFIG, else ae_config.toml in the working directory, if any."""
    named = os.environ.get(ENVIRONMENT, "")
    if named:
        return Path(named)
    here = Path(FILE_NAME)
    return here if here.is_file() else None


def shipped() -> Path:
    """The folder with the shipped ae_config.toml and models: in the wheel, or the source tree."""
    package = Path(__file__).parents[1]
    wheel = package / "_shipped"
    return wheel if wheel.is_dir() else package.parents[1]


def read(text: str, *, base: Path, source: str = FILE_NAME) -> Config:
    """The Config of a TOML text whose relative paths start at `base`.

    Raises ConfigurationError with every mistake.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"not TOML: {error}"], source) from error
    file, found = _validated(document)
    found += cross_checks(file)
    if found:
        raise ConfigurationError(found, source)
    return replace(_config(file, base=base, source=source), text=text, base=base)


def check(config: Config, *, tools: Collection[str], keywords: Collection[str]) -> None:
    """What only the assembled node can tell: that routes name tools and keywords that exist.

    tools: ids of the models. keywords: header attributes that the catalog keeps of each instance.
    Raises ConfigurationError with every mistake.
    """
    found = tools_and_keywords(config.routes, tools=tools, keywords=keywords)
    if found:
        raise ConfigurationError(found, config.source)


def _validated(document: dict[str, Any]) -> tuple[File, list[str]]:
    """The file, and what the schema refuses in it.

    With refused parts repaired the file is not fit for use, but for further checks: so one look
    shows all mistakes.
    """
    try:
        return File.model_validate(document), []
    except ValidationError as error:
        found = mistakes.of_validation(error, document)
        return File.model_validate(repaired(document, error)), found


def _text(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigurationError([f"cannot be read: {error.strerror}"], str(file)) from error
    if len(raw) > MAX_BYTES:
        raise ConfigurationError([f"larger than {MAX_BYTES} bytes"], str(file))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigurationError([f"line {line} is not UTF-8"], str(file)) from error


def _config(file: File, *, base: Path, source: str) -> Config:
    models = file.node.models_dir
    data_dir = base / file.node.data_dir
    models_dir = shipped() / "models" if models is None else base / models
    tls = _tls(file.tls, base)
    return Config(
        source=source,
        data_dir=data_dir,
        models_dir=models_dir,
        node=file.node.model_copy(update={"data_dir": data_dir, "models_dir": models_dir}),
        receive=file.receive,
        complete=file.complete,
        engine=file.engine,
        results=file.results,
        tls=tls,
        deliver=file.deliver,
        retain=file.retain,
        audit=file.audit.below(base),
        passing=frozenset(route.name for route in file.route if route.delete_after_delivery),
        peers=tuple(_peer(table, base, tls.files()) for table in file.peer),
        routes=tuple(_route(table) for table in file.route),
    )


def _tls(section: Tls, base: Path) -> Tls:
    """With absolute paths."""
    paths = {"certificate": section.certificate, "key": section.key, "ca": section.ca}
    return section.model_copy(
        update={key: base / path for key, path in paths.items() if path is not None}
    )


def _peer(table: PeerTable, base: Path, files: TlsFiles) -> Peer:
    return Peer(
        name=table.name,
        ae_title=table.ae_title,
        host=table.host,
        port=table.port,
        networks=table.networks,
        may=frozenset(table.may),
        offers=frozenset(table.offers),
        release_s=table.release_s,
        quiet_s=table.quiet_s,
        give_up_s=table.give_up_s,
        idle_s=table.idle_s,
        fallback=table.fallback or "",
        dicomweb=table.dicomweb,
        dicomweb_token=secrets.absolute(table.dicomweb_token, base),
        certificates=table.certificates,
        user=table.user,
        passcode=secrets.absolute(table.passcode, base),
        max_associations=table.max_associations,
        objects_per_minute=table.objects_per_minute,
        in_flight_mib=table.in_flight_mib,
        tls=table.tls,
        tls_name=table.tls_name,
        tls_files=files if table.tls else None,
    )


def _route(table: RouteTable) -> Route:
    return Route(
        name=table.name,
        tool_id=table.tool,
        sources=table.from_,
        when=match.parse(table.when) if table.when.strip() else None,
        results=table.results,
        destinations=table.to,
        priority=table.priority,
        enabled=table.enabled,
    )
