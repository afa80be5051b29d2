"""Fixtures that more than one room's tests use: a receiver, and foreign programs as peers.

Real Orthanc and DCMTK; tests skip where they are missing. Both hold back small packets for 40 ms
unless TCP_NODELAY=1 is in their environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dicom_node.dimse.scp import (
    AssociationRequest,
    Limits,
    Refusal,
    Rejection,
    Server,
    StoreAnswer,
    StoreRequest,
    serve_storage,
)
from dicom_node.dimse.stock import serve_with_stock
from dicom_node.spool.store import Incoming, Spool, Stored
from dicom_node.testing.models import unet_model
from raw.ports import free_port

BINARIES = (Path("/usr/bin"), Path("/usr/sbin"))  # the environment's own names come second
DICOMWEB = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/lib/orthanc/libOrthancDicomWeb.so"),
)
READY_S = 60.0

pytest_plugins = ("faults.report",)

# no verdict hangs on how fast the machine is
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say at the very end what was not run, and for lack of what."""
    yield
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("not run")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5d}  {reason}")


@pytest.fixture(scope="session", autouse=True)
def _quiet_between_tests() -> Iterator[None]:
    """A node that several tests share may log while pytest listens to nobody: then to nobody."""
    handler = logging.NullHandler()
    logging.getLogger("dicom_node").addHandler(handler)
    yield
    logging.getLogger("dicom_node").removeHandler(handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real CT series (test/, train/, quirks/); skips where there is none."""
    folder = os.environ.get("DICOM_NODE_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real CT series: DICOM_NODE_REAL_DATA names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def small_network() -> Callable[[Path], Path]:
    """Writes models/small-unet: an untrained network whose answers are different in each slice."""
    import torch  # noqa: PLC0415  (takes seconds: only where it is asked for)
    from safetensors.torch import save  # noqa: PLC0415

    from dicom_node.tools.unet import UNet  # noqa: PLC0415

    torch.manual_seed(0)
    network = UNet((4, 8), 3).eval()
    with torch.no_grad():
        y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
        inputs = network.stem.conv1.in_channels
        waves = (torch.sin(y / 9) * torch.cos(x / 13))[None, None].repeat(1, inputs, 1, 1)
        network.head.weight *= 30
        network.head.bias.zero_()
        network.head.bias -= network(waves).mean(dim=(0, 2, 3))  # no class is the usual one
    weights = save({k: v for k, v in network.state_dict().items() if "batches" not in k})

    def write(models: Path) -> Path:
        folder = models / "small-unet"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.safetensors").write_bytes(weights)
        digest = hashlib.sha256(weights).hexdigest()
        (folder / "model.toml").write_text(unet_model(sha256=digest), "utf-8")
        return folder

    return write


class SpoolSink:
    """Spools the object and remembers it with its receiver."""

    def __init__(self, receiver: SpoolReceiver, request: StoreRequest) -> None:
        self._receiver, self._request = receiver, request
        self._incoming: Incoming = receiver.spool.begin()

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        self._incoming.write(chunks)

    def finish(self) -> StoreAnswer:
        stored = self._incoming.commit()
        with self._receiver.changed:
            self._receiver.stored.append((self._request, stored))
        return self._receiver.answer

    def abort(self) -> None:
        self._incoming.abort()


class SpoolReceiver:
    """A receiver that spools all it gets, and remembers what it was told.

    verdict, refusing: set them to have associations or objects refused.
    """

    def __init__(self, root: Path) -> None:
        self.spool = Spool(root)
        self.changed = threading.Condition()
        self.requests: list[AssociationRequest] = []
        self.stored: list[tuple[StoreRequest, Stored]] = []
        self.endings: dict[int, str] = {}
        self.echoes: list[AssociationRequest] = []
        self.refusals: list[Refusal] = []
        self.rejections: list[tuple[AssociationRequest, Rejection]] = []
        self.breaks: list[tuple[AssociationRequest, int | None, str]] = []
        self.insecure: list[tuple[AssociationRequest, str]] = []
        self.own_idle_s: float | None = None
        self.identity_counts = False
        self.answer = StoreAnswer(status=0)
        self.verdict: Rejection | None = None
        self.refusing: StoreAnswer | None = None

    def admit(self, request: AssociationRequest) -> int | Rejection:
        with self.changed:
            self.requests.append(request)
            return self.verdict or len(self.requests)

    def begin(self, request: StoreRequest) -> SpoolSink | StoreAnswer:
        return self.refusing or SpoolSink(self, request)

    def ended(self, association: int, how: str) -> None:
        with self.changed:
            self.endings[association] = how
            self.changed.notify_all()

    def echoed(self, request: AssociationRequest) -> None:
        with self.changed:
            self.echoes.append(request)
            self.changed.notify_all()

    def idle_s(self, association: int) -> float | None:
        return self.own_idle_s

    def identifies(self, association: int) -> bool:
        return self.identity_counts

    def unsecured(self, request: AssociationRequest, reason: str) -> None:
        with self.changed:
            self.insecure.append((request, reason))
            self.changed.notify_all()

    def refused(self, refusal: Refusal) -> None:
        with self.changed:
            self.refusals.append(refusal)
            self.changed.notify_all()

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        with self.changed:
            self.rejections.append((request, rejection))
            self.changed.notify_all()

    def broke(self, request: AssociationRequest, association: int | None, reason: str) -> None:
        with self.changed:
            self.breaks.append((request, association, reason))
            self.changed.notify_all()

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait until something is so; false if it is not so within 20 s."""
        with self.changed:
            return self.changed.wait_for(until, 20)

    def files(self) -> list[Path]:
        """Every file in the spool, temporaries included."""
        return sorted(p for p in self.spool.root.rglob("*") if p.is_file())


@pytest.fixture
def spool_receiver(tmp_path: Path) -> SpoolReceiver:
    return SpoolReceiver(tmp_path / "spool")


@pytest.fixture
def front() -> str:
    """Which server storage_scp starts; tests that hold for both say so by parametrize."""
    return "own"


@pytest.fixture
def storage_scp(front: str, spool_receiver: SpoolReceiver) -> Iterator[Callable[..., Server]]:
    """Starts SCPs on free loopback ports, in front of spool_receiver if no other; stops them."""
    serve = serve_with_stock if front == "stock" else serve_storage
    servers: list[Server] = []

    def start(receiver: object = None, limits: Limits | None = None, **more: object) -> Server:
        server = serve(
            ae_title="DICOMNODE",
            host="127.0.0.1",
            receiver=receiver or spool_receiver,
            limits=limits,
            **{"port": 0, **more},
        )
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop(0)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with the certificates and keys of tests/certificates, for this test to change."""
    folder = tmp_path / "certificates"
    shutil.copytree(Path(__file__).parent / "certificates", folder)
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    return folder


def program(name: str) -> Path:
    """Where a program of the system is; skips the test when it is not there."""
    for folder in BINARIES:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"{name} is not installed")


def peer_environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TCP_NODELAY": "1", **more}


def wait_until(ready: Callable[[], bool], what: str, timeout_s: float = READY_S) -> None:
    """Ask again and again; fails the test when it is not so in time."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not happen in {timeout_s:g} s"
        pause.wait(0.05)


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def running(command: Sequence[object], log: Path, **settings: Any) -> Iterator[subprocess.Popen]:
    """A process that is ended, by its pid, when the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=peer_environment(),
            **settings,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """A running Orthanc: its DICOM port, its REST port, and the REST calls that tests want."""

    ae_title: str
    dicom_port: int
    http_port: int
    dicomweb: bool

    @property
    def dicomweb_url(self) -> str:
        """Root of QIDO-RS, WADO-RS and STOW-RS."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def ask(self, path: str, body: object = None, *, method: str | None = None) -> Any:
        """A REST call; a body is sent as JSON (bytes as they are), an answer in JSON is read."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}",
            data=data,
            method=method or ("GET" if body is None else "POST"),
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            content = answer.read()
            if "json" in answer.headers.get("Content-Type", ""):
                return json.loads(content)
            return content

    def knows(self, name: str, ae_title: str, port: int, **more: object) -> None:
        """Tell it of a modality on this machine."""
        body = {"AET": ae_title, "Host": "127.0.0.1", "Port": port, **more}
        self.ask(f"/modalities/{name}", body, method="PUT")

    def instances(self) -> list[str]:
        """Its own identifiers of the instances that it holds."""
        return list(self.ask("/instances"))

    def series(self) -> list[dict[str, Any]]:
        """What it tells about each series that it holds."""
        return list(self.ask("/series?expand"))

    def file(self, instance: str) -> bytes:
        """An instance as a DICOM file."""
        return bytes(self.ask(f"/instances/{instance}/file"))

    def wait_for(self, count: int, timeout_s: float = READY_S) -> None:
        """Wait until it holds so many instances."""
        wait_until(lambda: len(self.instances()) >= count, f"{count} instances", timeout_s)

    def send(self, resource: str, modality: str) -> None:
        """C-STORE a patient, study, series or instance to a modality, and wait for the end."""
        self.ask(f"/modalities/{modality}/store", {"Resources": [resource], "Synchronous": True})

    def clear(self) -> None:
        """Forget all patients and modalities."""
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", method="DELETE")
        for name in self.ask("/modalities"):
            self.ask(f"/modalities/{name}", method="DELETE")


@contextlib.contextmanager
def running_orthanc(folder: Path, **settings: object) -> Iterator[Orthanc]:
    """An Orthanc with its storage in `folder`; `settings` go over those of the tests."""
    binary = program("Orthanc")
    folder.mkdir(parents=True, exist_ok=True)
    plugin = next((p for p in DICOMWEB if p.is_file()), None)
    orthanc = Orthanc(
        ae_title="ORTHANC",
        dicom_port=free_port(),
        http_port=free_port(),
        dicomweb=plugin is not None,
    )
    config = {
        "Name": "test peer",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(plugin)] if plugin else [],
        "DicomAet": orthanc.ae_title,
        "DicomPort": orthanc.dicom_port,
        "HttpPort": orthanc.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomCheckModalityHost": False,
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": False,
        "StableAge": 2,
        "SynchronousCMove": True,
        "DicomModalitiesInDatabase": True,
        "SaveJobs": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
        **settings,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(config))
    log = folder / "orthanc.log"
    with running([binary, path], log, cwd=folder) as process:

        def answers() -> bool:
            assert process.poll() is None, f"Orthanc ended: {log.read_text('utf-8', 'replace')}"
            try:
                return bool(orthanc.ask("/system")) and listens(orthanc.dicom_port)
            except (urllib.error.URLError, OSError):
                return False

        wait_until(answers, "an answer of Orthanc")
        yield orthanc


@pytest.fixture(scope="session")
def shared_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


@pytest.fixture
def orthanc(shared_orthanc: Orthanc) -> Orthanc:
    """A real Orthanc, empty, that knows nobody yet."""
    shared_orthanc.clear()
    return shared_orthanc


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Starts an Orthanc of its own for this test: start_orthanc(StableAge=1, ...)."""
    with contextlib.ExitStack() as stack:

        def start(**settings: object) -> Orthanc:
            folder = tmp_path / f"orthanc-{free_port()}"
            return stack.enter_context(running_orthanc(folder, **settings))

        yield start


@pytest.fixture
def dcmtk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of DCMTK to its end: dcmtk("echoscu", "127.0.0.1", port)."""

    def run(name: str, *arguments: object, timeout_s: float = 120.0) -> Any:
        return subprocess.run(
            [str(program(name)), *(str(a) for a in arguments)],
            env=peer_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., tuple[int, Path]]]:
    """Starts DCMTK's storescp: storescp("+xa") gives its port and the folder that it fills."""
    with contextlib.ExitStack() as stack:

        def start(*options: object) -> tuple[int, Path]:
            port = free_port()
            folder = tmp_path / f"storescp-{port}"
            folder.mkdir()
            command = [program("storescp"), *options, "--output-directory", folder, port]
            process = stack.enter_context(running(command, tmp_path / f"storescp-{port}.log"))
            wait_until(lambda: listens(port) or process.poll() is not None, "storescp")
            assert process.poll() is None, "storescp ended at once"
            return port, folder

        yield start


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a program of the system that listens: start_program("dcmqrscp", port, "-c", file)."""
    with contextlib.ExitStack() as stack:

        def start(name: str, port: int, *arguments: object) -> subprocess.Popen:
            command = [program(name), *arguments]
            log = tmp_path / f"{name}-{port}.log"
            process = stack.enter_context(running(command, log, cwd=tmp_path))
            wait_until(lambda: listens(port) or process.poll() is not None, name)
            assert process.poll() is None, f"{name} ended: {log.read_text('utf-8', 'replace')}"
            return process

        yield start


@pytest.fixture(scope="session", name="free_port")
def _free_port() -> Callable[[], int]:
    """Gives TCP ports that nobody listens on."""
    return free_port


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Of torch, for what is so small that threads only wait for one another; then as before."""
    import torch  # noqa: PLC0415  (takes seconds, which few tests should pay)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
