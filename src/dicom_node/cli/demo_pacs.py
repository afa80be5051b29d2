"""The PACS of the demo: the built-in one, or a configured peer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dicom_node.cli.send import collect
from dicom_node.config.load import Config
from dicom_node.dimse.contract import StoreAnswer, StoreRequest
from dicom_node.dimse.scu import Outcome, find, get, move, store
from dicom_node.domain.errors import ConfigurationError, PeerError
from dicom_node.domain.records import Peer
from dicom_node.testing.pacs import LocalPacs

CALLING_AE = "DEMO"


class DemoPacs(Protocol):
    """What the demo asks of a PACS."""

    name: str
    listen_host: str

    def listen_port(self, base: Config) -> int:
        """Where the node is to listen; 0: anywhere."""

    def peer_table(self) -> str:
        """The PACS as [[peer]] of the node's configuration."""

    def knows(self, ae_title: str, port: int) -> None:
        """The node is there."""

    def store(self, paths: Sequence[Path]) -> None:
        """C-STORE the files. PeerError if one is refused."""

    def move(self, study_uid: str, series_uid: str, to: str) -> None:
        """C-MOVE the series to an AE title. PeerError if it does not go."""

    def get(self, study_uid: str, sop_instance_uid: str, out: Path) -> Path:
        """Fetch one result. PeerError if it is not there."""


class ConfiguredPacs:
    """A PACS of the configuration: it has to know the node's AE title, host and port."""

    def __init__(self, config: Config, name: str) -> None:
        peer = config.peer(name)
        if peer is None:
            known = ", ".join(p.name for p in config.peers)
            raise ConfigurationError([f"no peer is named {name}; known: {known}"], "--pacs")
        self._peer = peer
        self._calling = config.node.ae_title
        self.name = name
        self.listen_host = config.node.host

    def listen_port(self, base: Config) -> int:
        """The configured port: the PACS knows it."""
        return base.node.port

    def peer_table(self) -> str:
        """As configured."""
        return table(self._peer)

    def knows(self, ae_title: str, port: int) -> None:
        """It does, or its administrator has to tell it."""

    def store(self, paths: Sequence[Path]) -> None:
        """C-STORE the files. PeerError if one is refused."""
        items = collect(iter(paths), lambda: None).items
        outcomes = store(peer=self._peer, calling_ae=self._calling, items=items)
        bad = [o for o in outcomes if not o.succeeded]
        if bad:
            raise PeerError(f"{self.name} did not store the series: {said(bad[0])}")

    def move(self, study_uid: str, series_uid: str, to: str) -> None:
        """C-MOVE the series to an AE title. PeerError if it does not go."""
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        for progress in move(
            peer=self._peer, calling_ae=self._calling, level="SERIES", keys=keys, destination_ae=to
        ):
            outcome = progress.outcome
            if outcome is not None and not outcome.succeeded:
                raise PeerError(
                    f"{self.name} did not move the series to {to}: {said(outcome)}; it has to "
                    f"know the AE title {to} with the node's host and port"
                )

    def get(self, study_uid: str, sop_instance_uid: str, out: Path) -> Path:
        """Fetch one result: the PACS says where it is, then gives it."""
        sink = _OneFile(out)

        def receive(_request: StoreRequest) -> _OneFile:
            return sink

        found = find(
            peer=self._peer,
            calling_ae=self._calling,
            level="SERIES",
            keys={"StudyInstanceUID": study_uid, "Modality": "SEG", "SeriesInstanceUID": ""},
        )
        for match in found.matches:
            keys = {
                "StudyInstanceUID": study_uid,
                "SeriesInstanceUID": str(match["SeriesInstanceUID"]),
                "SOPInstanceUID": sop_instance_uid,
            }
            with contextlib.closing(
                get(
                    peer=self._peer,
                    calling_ae=self._calling,
                    level="IMAGE",
                    keys=keys,
                    receive=receive,
                )
            ) as responses:
                for _ in responses:
                    pass
            if sink.done:
                return out
        raise PeerError(f"the SEG is not to be had from {self.name}: {said(found.outcome)}")


class _OneFile:
    """Takes the one object that is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[bytes] = []
        self.done = False

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        """The next bytes."""
        self._parts.extend(bytes(chunk) for chunk in chunks)

    def finish(self) -> StoreAnswer:
        """It is whole."""
        self._path.write_bytes(b"".join(self._parts))
        self.done = True
        return StoreAnswer(status=0)

    def abort(self) -> None:
        """It will not be."""
        self._parts.clear()


class BuiltInPacs(ConfiguredPacs):
    """The test PACS, on a free port of this machine; it gets to know the node by itself."""

    listen_host = "127.0.0.1"

    def __init__(self, running: LocalPacs) -> None:
        self._running = running
        self.name = running.ae_title
        self._calling = CALLING_AE
        self._peer = Peer(
            name="pacs", ae_title=running.ae_title, host="127.0.0.1", port=running.port
        )

    def listen_port(self, base: Config) -> int:
        """Any that is free."""
        del base
        return 0

    def knows(self, ae_title: str, port: int) -> None:
        """Register the node as a destination of C-MOVE."""
        self._running.destinations[ae_title] = ("127.0.0.1", port)


@contextmanager
def test_pacs(folder: Path) -> Iterator[BuiltInPacs]:
    """A PACS for the time of the demo, with its files in `folder`."""
    with LocalPacs(folder, ae_title="TESTPACS") as running:
        yield BuiltInPacs(running)


def table(peer: Peer) -> str:
    """A peer as [[peer]] in TOML."""
    networks = ", ".join(f'"{n}"' for n in peer.networks)
    may = ", ".join(f'"{m}"' for m in sorted(peer.may))
    return f"""[[peer]]
name = "{peer.name}"
ae_title = "{peer.ae_title}"
host = "{peer.host}"
port = {peer.port}
networks = [{networks}]
may = [{may}]
"""


def said(outcome: Outcome) -> str:
    """How it ended, in words."""
    text = "; ".join(part for part in (outcome.detail, outcome.comment) if part)
    return text or (f"status 0x{outcome.status:04X}" if outcome.status is not None else "")
