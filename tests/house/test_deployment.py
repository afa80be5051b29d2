"""What stands in docker/, scripts/, the Makefile and constraints.txt holds together."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from dicom_node.config.load import load

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
UNIT = DOCKER / "dicom-node.service"
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]


def ran(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, check=False
    )


def needed(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def test_the_configuration_of_the_container_is_valid_and_finds_its_peers():
    config = load(DOCKER / "ae_config.toml")
    assert {peer.name for peer in config.peers} == {"orthanc", "itself"}
    assert str(config.node.data_dir) == "/var/lib/dicom-node"


def test_node_and_orthanc_know_one_another_by_the_same_words():
    ours = load(DOCKER / "ae_config.toml")
    theirs = json.loads((DOCKER / "orthanc" / "orthanc.json").read_text("utf-8"))
    (peer,) = (p for p in ours.peers if p.name == "orthanc")
    us = theirs["DicomModalities"]["dicom-node"]
    assert (us["AET"], us["Port"]) == (ours.node.ae_title, ours.node.port)
    assert (peer.ae_title, peer.port) == (theirs["DicomAet"], theirs["DicomPort"])
    compose = (DOCKER / "compose.yaml").read_text("utf-8")
    for name in (us["Host"], peer.host):
        assert f"\n  {name}:\n" in compose
    assert peer.networks[0] in compose


def test_ports_are_published_on_the_loopback_interface_only():
    published = re.findall(
        r"^ +ports: \[(.*)\]", (DOCKER / "compose.yaml").read_text("utf-8"), re.M
    )
    assert published
    assert all(p.strip().startswith('"127.0.0.1:') for line in published for p in line.split(","))


def test_docker_accepts_the_compose_file():
    needed("docker")
    if ran("docker", "compose", "version").returncode:
        pytest.skip("docker compose is not installed")
    done = ran("docker", "compose", "-f", DOCKER / "compose.yaml", "config", "--quiet")
    assert done.returncode == 0, done.stderr


def test_the_image_runs_without_privileges_and_checks_its_health():
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    final = text[text.rindex("\nFROM ") :]
    assert "\nUSER dicom\n" in final
    assert "\nHEALTHCHECK " in final
    assert not re.search(r"(?i)(password|secret|token)", text)


def test_everything_that_the_image_copies_is_there_and_not_ignored():
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    kept = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M)
        for source in line.split()
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in kept, source


def test_the_unit_is_accepted_by_systemd(tmp_path: Path):
    needed("systemd-analyze")
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text("utf-8"), flags=re.M)
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    done = ran("systemd-analyze", "verify", "--man=no", copy)
    told = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0, done.stderr
    assert not told


@pytest.mark.parametrize(
    "wanted", ["NoNewPrivileges=yes", "ProtectSystem=strict", "User=", "StateDirectory="]
)
def test_the_unit_is_hardened(wanted: str):
    assert f"\n{wanted}" in UNIT.read_text("utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_run(script: Path):
    needed("bash")
    assert ran("bash", "-n", script).returncode == 0
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize(
    "target",
    [
        *("demo", "test", "faults", "check", "bench", "docs", "clean"),
        *("hostile-table", "fuzz", "soak", "train", "evaluate", "publish"),
    ],
)
def test_make_knows_its_targets(target: str):
    needed("make")
    done = ran("make", "-n", "-C", ROOT, target, "DATA=somewhere")
    assert done.returncode == 0, done.stderr


def test_every_requirement_is_pinned_and_nothing_needs_a_gpu():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in asked}
    assert names <= set(pins)
    assert not [n for n in pins if n.startswith(("nvidia", "triton", "cuda"))]
    assert "+" not in "".join(pins.values())
