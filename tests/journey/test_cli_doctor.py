"""`doctor`: what it says of whole and of broken nodes, and that it harms none."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_node.catalog import Catalog
from dicom_node.cli import examine, trial
from dicom_node.cli.main import main
from dicom_node.config.load import load
from dicom_node.domain import events as e
from dicom_node.domain.records import Instance
from dicom_node.domain.tool import ImageProcessingTool, SegmentationResult, ToolContext
from dicom_node.domain.volume import Volume
from dicom_node.node.bell import PERFORM, Bell
from dicom_node.node.layout import lock_data_dir
from dicom_node.node.pulse import Pulse
from dicom_node.testing.models import LUNGS
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, a_series
from dicom_node.tools.registry import build_tool
from raw.ports import free_port

PINNED = (
    """
id = "{id}"
name = "A model"
version = "1"
kind = "{kind}"
description = "Right and left lung on CT"
licence = "MIT"
{weights}
[input]
modality = "CT"
when = 'Modality == "CT"'
"""
    + LUNGS
)


class Report:
    """The JSON of a doctor, and its exit code."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.findings = json.loads(text)["findings"]
        self.ok = json.loads(text)["ok"]

    def of(self, check: str) -> list[dict[str, str]]:
        return [f for f in self.findings if f["check"] == check]

    def states(self, check: str) -> set[str]:
        return {f["state"] for f in self.of(check)}

    def one(self, check: str) -> dict[str, str]:
        (found,) = self.of(check)
        return found


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs the console script in this process: exit code and output."""

    def command(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dicom-node", "doctor", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert printed.err == ""
        return int(ended.value.code or 0), printed.out

    return command


@pytest.fixture
def doctor(run) -> Callable[[Path], Report]:
    return lambda path: Report(*run("--config", path, "--json"))


@pytest.fixture
def site(tmp_path) -> Callable[..., Path]:
    """Writes a configuration with one model of no weights, and one route to the sender."""

    def write(
        *,
        node: str = "",
        receive: str = "min_free_gib = 0.001",
        peers: str = "",
        to: str = '["@sender"]',
        tool: str = "lung-threshold",
    ) -> Path:
        if not (tmp_path / "models").exists():
            a_model(tmp_path / "models")
        path = tmp_path / "ae_config.toml"
        path.write_text(
            f'[node]\nmodels_dir = "models"\nport = {free_port()}\n{node}\n[receive]\n{receive}\n'
            f'{peers}\n[[route]]\nname = "lungs"\ntool = "{tool}"\nto = {to}\n'
        )
        return path

    return write


def a_model(models: Path, model_id: str = "lung-threshold") -> None:
    folder = models / model_id
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(PINNED.format(id=model_id, kind="threshold", weights=""))


def a_peer(port: int, name: str = "pacs", more: str = "") -> str:
    return (
        f'[[peer]]\nname = "{name}"\nae_title = "TESTPACS"\nhost = "127.0.0.1"\nport = {port}\n'
        f"{more}\n"
    )


def an_arrival(at: float, path: str = "objects/00/" + 64 * "0" + ".dcm") -> e.InstanceArrived:
    instance = Instance(
        sop_instance_uid="1.2.3",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_uid="1.2",
        series_uid="1.2.1",
        path=path,
        size=1,
        sha256=64 * "0",
        association=1,
        received_at=at,
        attributes={"Modality": "CT"},
    )
    return e.InstanceArrived(at=at, instance=instance, judge_at=at)


def a_catalog(folder: Path, *events: e.Event) -> Path:
    """A catalog in the data folder, closed again, with a spool beside it."""
    (folder / "var" / "spool").mkdir(parents=True)
    catalog = Catalog(folder / "var" / "catalog.db")
    opened = e.AssociationOpened(
        at=1.0, number=1, calling_ae="A", called_ae="B", address="127.0.0.1"
    )
    catalog.commit(opened, *events)
    catalog.close()
    return folder / "var" / "catalog.db"


@pytest.mark.parametrize(("most", "state"), [(1_000, "ok"), (500, "warning")])
def test_too_few_descriptors_for_all_associations_are_a_warning(
    doctor, site, monkeypatch, most, state
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, most))
    finding = doctor(site(receive="max_associations = 100")).one("descriptors")
    assert finding["state"] == state
    assert "684 may be needed" in finding["text"]


# --- whole nodes


def test_a_whole_node_has_no_failure_and_no_warning_that_matters(doctor, site):
    with LocalPacs(Path(site().parent / "pacs")) as pacs:
        report = doctor(site(peers=a_peer(pacs.port)))

    assert report.code == 0
    assert report.ok
    for check in ("configuration", "data folder", "descriptors", "port", "catalog", "clock",
                  "model", "tool", "decoders", "route", "peer", "versions"):  # fmt: skip
        assert report.states(check) == {"ok"}, report.of(check)


def test_it_fits_in_80_columns(run, site):
    code, out = run("--config", site(peers=a_peer(free_port())))

    assert code == 0
    assert "Traceback" not in out
    lines = out.splitlines()
    assert all(len(line) <= 80 or max(map(len, line.split())) > 60 for line in lines), "long paths"
    assert " checks, 0 failed, " in out.splitlines()[-1]


def test_the_shipped_configuration_and_model_have_no_failure(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOM_NODE_CONFIG", raising=False)

    report = Report(*run("--json"))

    failures = [f for f in report.findings if f["state"] == "failed" and f["check"] != "port"]
    assert failures == []
    assert "lung-unet on" in report.one("tool")["text"]
    assert report.of("peer")[0]["state"] in ("ok", "warning")


def test_looking_makes_and_changes_nothing(doctor, site, tmp_path):
    path = site()
    before = sorted(tmp_path.rglob("*"))
    doctor(path)
    assert sorted(tmp_path.rglob("*")) == before

    catalog = a_catalog(tmp_path, an_arrival(1.0))
    digest = hashlib.sha256(catalog.read_bytes()).hexdigest()
    before = sorted(tmp_path.rglob("*"))
    doctor(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert hashlib.sha256(catalog.read_bytes()).hexdigest() == digest


def test_a_running_node_is_known_and_left_alone(doctor, start_node):
    node = start_node()
    text = node.config_path.read_text()
    node.config_path.write_text(text.replace("port = 0", f"port = {node.port}", 1))
    before = [number for number, _ in node.running.catalog.views.events_after(0, 100)]

    report = doctor(node.config_path)

    assert "this node is running" in report.one("port")["text"]
    after = [number for number, _ in node.running.catalog.views.events_after(0, 100)]
    assert after == before


# --- configuration


def test_a_node_without_a_performer_is_doubtful(doctor, site):
    path = site()
    (path.parent / "var").mkdir()
    with lock_data_dir(path.parent / "var"):
        found = doctor(path).one("performer")
    assert found["state"] == "warning"
    assert "no performer lives" in found["text"]
    assert doctor(path).of("performer") == [], "nor does a node"


def test_the_performers_of_every_device_are_looked_for(doctor, site):
    path = site()  # one performer on each device
    data = path.parent / "var"
    data.mkdir()
    for number in range(3):  # as the node starts them on three devices
        Pulse(data_dir=data, number=number).beat()
    bell = Bell(data)
    with lock_data_dir(data), closing(bell), closing(bell.listen(PERFORM, 1)):
        found = doctor(path).one("performer")
        assert found["state"] == "warning"
        assert "only 1 of 3 performers live" in found["text"]
        with closing(bell.listen(PERFORM, 0)), closing(bell.listen(PERFORM, 2)):
            assert doctor(path).one("performer")["text"] == "3 processes live"


def test_every_mistake_of_the_file_is_told_with_exit_2(doctor, site, run):
    path = site(node='ae_title = "FAR TOO LONG A TITLE"\nprot = 1', to='["nobody"]')

    report = doctor(path)

    assert report.code == 2
    assert not report.ok
    text = " ".join(f["text"] for f in report.of("configuration"))
    assert all(word in text for word in ("ae_title", "prot", "nobody"))
    assert run("--config", path)[0] == 2


def test_a_route_with_an_unknown_tool_is_a_mistake_of_the_file(doctor, site):
    report = doctor(site(tool="lung-treshold"))

    assert report.code == 2
    assert "lung-threshold" in report.of("configuration")[0]["text"]


def test_a_file_that_is_not_there_is_exit_2(doctor, tmp_path):
    assert doctor(tmp_path / "none.toml").code == 2


# --- models


def test_weights_that_are_not_the_pinned_ones_fail(doctor, site, tmp_path):
    path = site(tool="net")
    folder = tmp_path / "models" / "net"
    folder.mkdir()
    weights = f'[weights]\nfile = "w.safetensors"\nsha256 = "{64 * "0"}"\n'
    (folder / "model.toml").write_text(PINNED.format(id="net", kind="unet", weights=weights))
    (folder / "w.safetensors").write_bytes(b"other weights")

    report = doctor(path)

    (broken,) = [f for f in report.of("model") if f["state"] == "failed"]
    assert report.code == 1, "the file is right, the model is not"
    assert "SHA-256 differs" in broken["text"]
    assert report.states("configuration") <= {"ok", "warning"}
    assert report.of("tool") == [], "a broken model is not run"


def test_a_device_that_is_not_there_fails(doctor, site, tmp_path):
    path = site(tool="lung-unet")
    path.write_text(path.read_text().replace('models_dir = "models"\n', ""))
    path.write_text(path.read_text() + '[engine]\ndevice = "cuda:99"\n')

    report = doctor(path)

    assert report.code == 1
    assert report.one("tool")["state"] == "failed"
    assert "cuda:99" in report.one("tool")["text"]


def test_a_tool_that_confuses_left_and_right_fails(doctor, site, tmp_path):
    path = site()
    config = load(path)
    (manifest,) = [m.manifest for m in trial.models(config) if m.manifest is not None]
    assert trial.dry_run(config, manifest).state is examine.State.OK

    class Swapped:
        """Finds the lungs, and gives each the other's number."""

        def __init__(self, tool: ImageProcessingTool) -> None:
            self._tool = tool

        def version_id(self) -> str:
            return "1.swapped"

        def process(self, volume: Volume, context: ToolContext) -> list[SegmentationResult]:
            (found,) = self._tool.process(volume, context)
            return [replace(found, labels_zyx=np.array([0, 2, 1], np.uint8)[found.labels_zyx])]

    finding = trial.tried(Swapped(build_tool(manifest)), "lung-threshold", 0.1)

    assert finding.state is examine.State.FAILED
    assert "the sides differ" in finding.text


def test_no_model_at_all_fails(doctor, site, tmp_path):
    path = site(node='data_dir = "d"')
    path.write_text(path.read_text().replace('"models"', '"elsewhere"'))

    report = doctor(path)

    assert report.code == 2, "the route names a tool that is not there"
    assert report.states("model") == {"failed"}


# --- disk, port, catalog, clock


def test_too_little_room_fails(doctor, site):
    report = doctor(site(receive="min_free_gib = 1000000"))

    assert report.code == 1
    assert report.of("disk")[0]["state"] == "failed"
    assert "every image is refused" in report.of("disk")[0]["text"]


def test_a_data_folder_that_is_a_file_fails(doctor, site, tmp_path):
    (tmp_path / "var").write_text("in the way")

    report = doctor(site())

    assert report.code == 1
    assert report.one("data folder")["state"] == "failed"


def test_a_port_that_another_program_has_fails(doctor, site):
    with socket.create_server(("127.0.0.1", 0)) as other:
        path = site()
        port = other.getsockname()[1]
        text = path.read_text().splitlines()
        text[2] = f"port = {port}"
        path.write_text("\n".join(text))
        report = doctor(path)

    assert report.code == 1
    assert f"another program listens at 127.0.0.1:{port}" in report.one("port")["text"]


def test_an_address_of_another_machine_fails(doctor, site):
    report = doctor(site(node='host = "192.0.2.1"'))

    assert report.one("port")["state"] == "failed"
    assert "no address of this machine" in report.one("port")["text"]


def test_a_file_that_is_no_catalog_fails(doctor, site, tmp_path):
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "catalog.db").write_bytes(b"not a catalog" * 1000)

    report = doctor(site())

    assert report.code == 1
    assert report.one("catalog")["state"] == "failed"


def test_images_that_the_spool_has_lost_fail(doctor, site, tmp_path):
    a_catalog(tmp_path, an_arrival(1.0))

    report = doctor(site())

    assert report.code == 1
    assert "1 of 1 files of the newest series are missing" in report.one("spool")["text"]


def test_a_clock_behind_the_newest_image_fails(doctor, site, tmp_path):
    a_catalog(tmp_path, an_arrival(1e11))

    report = doctor(site())

    assert report.code == 1
    assert report.one("clock")["state"] == "failed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_told_whose_the_data_folder_is(site, tmp_path):
    a_catalog(tmp_path)
    config = load(site())
    tmp_path.chmod(0o755)
    config.data_dir.chmod(0o700)
    os.seteuid(65534)
    try:
        findings = [*examine.data_folder(config), *examine.facts(config)]
        runs = examine.node_runs(config)
    finally:
        os.seteuid(0)

    failed = {f.check for f in findings if f.state is examine.State.FAILED}
    assert {"data folder", "catalog"} & failed
    assert any("belongs to root" in f.text and "run as root" in f.advice for f in findings)
    assert not runs


# --- peers and routes


def test_a_peer_that_is_away_is_a_warning_unless_a_route_needs_it(doctor, site):
    peers = a_peer(free_port())

    by_chance = doctor(site(peers=peers))
    needed = doctor(site(peers=peers, to='["pacs"]'))

    assert (by_chance.code, by_chance.one("peer")["state"]) == (0, "warning")
    assert (needed.code, needed.one("peer")["state"]) == (1, "failed")
    assert "connection refused" in needed.one("peer")["text"]


def test_a_peer_that_rejects_us_fails_and_learns_what_to_register(doctor, site, start_node):
    other = start_node(receive='unknown_peers = "refuse"')
    peer = a_peer(other.port).replace("TESTPACS", "DICOMNODE")

    report = doctor(site(peers=peer))

    assert report.code == 1
    assert "add AE title DICOMNODE, host 127.0.0.1, port" in report.one("peer")["text"]


def test_silent_peers_are_each_reported(doctor, site):
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
    try:
        peers = "".join(a_peer(s.getsockname()[1], f"p{i}") for i, s in enumerate(silent))
        report = doctor(site(peers=peers))
    finally:
        for server in silent:
            server.close()

    assert [f["state"] for f in report.of("peer")] == ["warning"] * 8
    assert all("no answer within 3 s" in f["text"] for f in report.of("peer"))


@pytest.mark.parametrize(
    ("receive", "peers", "says"),
    [
        ("", "", "no sender is a configured peer"),
        ("", a_peer(1, more='offers = ["query"]'), "pacs may send, but cannot be sent"),
        ('unknown_peers = "accept"', a_peer(1), "a sender that is no [[peer]] gets no results"),
    ],
)
def test_a_sender_that_cannot_get_its_results_is_a_warning(doctor, site, receive, peers, says):
    report = doctor(site(receive=f"min_free_gib = 0.001\n{receive}", peers=peers))

    assert report.code == 0
    assert report.one("route")["state"] == "warning"
    assert says in report.one("route")["text"]


# --- parts


def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(tmp_path):
    assert examine.file_system(Path("/proc/self")) == "proc"
    assert examine.file_system(tmp_path)


def test_a_real_series_in_the_spool_is_found(start_node, doctor):
    node = start_node(more="", peers=a_peer(free_port()).replace("TESTPACS", "SENDER"))
    assert set(send_series(node.address, "DICOMNODE", a_series(3, header=Header()))) == {0}

    findings = {f.check: f for f in examine.facts(load(node.config_path))}

    assert findings["spool"].text == "the files of the newest series are there (3 looked for)"
    assert "1 series, 3 instances" in findings["catalog"].text
