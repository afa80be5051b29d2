"""Commands as their users meet them: output, JSON, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner

from dicom_node.cli.models import models
from dicom_node.cli.process import process
from dicom_node.cli.routes import routes
from dicom_node.cli.status import status
from dicom_node.cli.why import why
from dicom_node.testing.pacs import send_series
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import (
    Header,
    a_localizer,
    a_series,
    ct_series,
    write_files,
    write_series,
)


@dataclass
class Ran:
    exit_code: int
    output: str
    stdout: str


def run(command, *arguments):
    """As main() runs it: what the command returns is the exit code."""
    done = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return Ran(exit_code=done.return_value or 0, output=done.output, stdout=done.stdout)


def dicom_node(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "dicom_node.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=cwd,
        check=False,
    )


@pytest.fixture
def config(tmp_path, build):
    build.write_model(tmp_path / "models")
    path = tmp_path / "ae_config.toml"
    path.write_text('[node]\nmodels_dir = "models"\ndata_dir = "var"\n')
    return path


def test_process_gives_every_series_of_a_folder_a_result_or_a_reason(tmp_path, config):
    volume, _ = chest_phantom(slices=12, size=64, spacing_mm=(22.0, 6.0, 6.0))
    write_series(tmp_path / "in" / "good", volume, header=Header(series="good"))
    write_files(tmp_path / "in" / "holed", a_series(8, missing=(3,), header=Header(series="holed")))
    mr = a_series(4, header=Header(series="mr", extra={"Modality": "MR"}))
    write_files(tmp_path / "in" / "mr", mr)
    (tmp_path / "in" / "notes.txt").write_text("no DICOM")
    out = tmp_path / "out"
    done = run(
        process, tmp_path / "in", "--out", out, "--tool", "lung-threshold", "--config", config,
        "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    by_folder = {row["folder"].rsplit("/", 1)[1]: row for row in told["series"]}
    assert by_folder["good"]["measurements"]["Right lung"] > 1000
    assert "1 plane is missing" in by_folder["holed"]["reason"]
    assert "MR" in by_folder["mr"]["reason"]
    assert [path.rsplit("/", 1)[1] for path in told["unused"]] == ["notes.txt"]
    seg, picture = by_folder["good"]["files"]
    assert pydicom.dcmread(seg).SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert Path(picture).read_bytes()[:4] == b"\x89PNG"


def test_processing_twice_makes_the_same_bytes(tmp_path, config):
    write_files(tmp_path / "in", a_series(6))
    files = []
    for name in ("one", "two"):
        done = run(
            process, tmp_path / "in", "--out", tmp_path / name, "--tool", "lung-threshold",
            "--config", config, "--json",
        )  # fmt: skip
        files.append(json.loads(done.stdout)["series"][0]["files"][0])
    first, second = (Path(path).read_bytes() for path in files)
    assert first == second


def test_process_without_any_series_fails_and_says_so(tmp_path, config):
    (tmp_path / "in").mkdir()
    done = run(
        process, tmp_path / "in", "--out", tmp_path / "o", "--tool", "lung-threshold",
        "--config", config,
    )  # fmt: skip
    assert done.exit_code == 1
    assert "there is no DICOM series" in done.output


def test_a_wrong_tool_is_a_usage_error_that_names_the_right_ones(tmp_path, config):
    done = dicom_node("process", tmp_path, "--out", tmp_path / "o", "--config", config)
    assert done.returncode == 2
    assert "lung-threshold" in done.stderr


def test_every_mistake_of_a_configuration_is_told_at_once(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[node]\nporte = 1\nae_title = ""\n[[route]]\nname = "x"\ntool = 3\n')
    done = dicom_node("status", "--config", path)
    assert done.returncode == 2
    for part in ("node.porte", "node.ae_title", "route[0].tool"):
        assert part in done.stderr


def test_status_and_why_tell_the_same_story_to_people_and_programs(start_node, pacs):
    peers = f"""
[[peer]]
name = "pacs"
ae_title = "TESTPACS"
host = "127.0.0.1"
port = {pacs.port}
"""
    node = start_node(peers=peers)
    series = a_series(6)
    uid = series[0].SeriesInstanceUID
    send_series(node.address, "DICOMNODE", series, calling_ae="TESTPACS")
    node.wait(lambda: "pacs has it" in node.why(uid))
    told = json.loads(run(status, "--config", node.config_path, "--json").stdout)
    assert told["counts"]["instance"] == 6
    assert told["series"][0]["results"] == ["lung-threshold -> pacs SENT"]
    shown = run(status, "--config", node.config_path).output
    assert "COMPLETE" in shown
    assert max(map(len, shown.splitlines())) <= 80
    (story,) = json.loads(run(why, uid, "--config", node.config_path, "--json").stdout)
    assert story["verdict"] == "lung-threshold made its result; pacs has it"
    by_accession = run(why, "ACC-0", "--config", node.config_path).output
    assert "6 instances stored" in by_accession
    assert run(why, "1.2.3", "--config", node.config_path).exit_code == 1


def test_status_before_any_node_ran_says_what_to_do(config):
    done = dicom_node("status", "--config", config)
    assert done.returncode == 1
    assert "has a node run with this data_dir?" in done.stderr


def test_models_are_listed_and_checked(config):
    (listed,) = json.loads(run(models, "list", "--config", config, "--json").stdout)
    assert listed["id"] == "lung-threshold"
    assert run(models, "check", "--config", config).exit_code == 0


def with_route(config, when, more=""):
    config.write_text(
        config.read_text()
        + f"[[route]]\nname = \"chest\"\nwhen = '{when}'\n"
        + f'tool = "lung-threshold"\nto = []\n{more}'
    )


def test_routes_can_be_tried_on_a_file(tmp_path, config):
    with_route(config, 'BodyPartExamined == "HEAD"')
    (file,) = write_files(tmp_path / "in", a_series(1))
    done = run(routes, "test", file, "--config", config)
    assert done.exit_code == 1
    assert "BodyPartExamined is 'CHEST', not 'HEAD'" in done.output
    assert "give the series' folder" in " ".join(done.output.split())


def test_routes_tried_on_a_folder_count_and_choose_as_the_node_does(tmp_path, config):
    with_route(config, 'InstancesInSeries == 6 and CallingAE == "PACS"')
    volume, _ = chest_phantom(slices=6, size=64, spacing_mm=(22.0, 6.0, 6.0))
    header = Header(seed=1)
    planes = ct_series(volume, header=header)
    write_files(tmp_path / "in" / "ct", [*planes, a_localizer(volume, header=header)])
    write_files(tmp_path / "in" / "short", a_series(4, header=Header(seed=2)))

    done = run(routes, "test", tmp_path / "in", "--from", "PACS@10.0.0.1", "--config", config)
    assert done.exit_code == 0
    assert "chest: lung-threshold -> nobody" in done.output
    assert "6 images, 1 left out" in done.output
    assert "InstancesInSeries is 4, not 6" in done.output
    told = json.loads(
        run(routes, "test", tmp_path / "in", "--from", "X", "--config", config, "--json").stdout
    )
    assert [len(one["steps"]) for one in told] == [0, 0]
    assert all("CallingAE is 'X', not 'PACS'" in one["reasons"][0] for one in told)


def test_a_folder_with_two_patients_under_one_series_uid_goes_to_no_model(tmp_path, config):
    with_route(config, 'Modality == "CT"')
    mixed = a_series(8)
    for dataset in mixed[4:]:
        dataset.PatientID = "SOMEBODY-ELSE"
    write_files(tmp_path / "in", mixed)
    said = "the Series holds images of 2 patients"
    done = run(routes, "test", tmp_path / "in", "--config", config)
    assert (done.exit_code, said in done.output) == (1, True)
    out = ("--out", tmp_path / "out", "--tool", "lung-threshold")
    done = run(process, tmp_path / "in", *out, "--config", config)
    assert (done.exit_code, f"no result: {said}" in done.output) == (1, True)
    assert "ELSE" not in done.output


def test_routes_can_be_tried_as_a_configured_peer(tmp_path, config, build):
    with_route(config, 'CallingAE == "THEPACS"', build.peer_table("pacs", "THEPACS", 104))
    write_files(tmp_path / "in", a_series(4))
    done = run(routes, "test", tmp_path / "in", "--from", "pacs", "--config", config)
    assert (done.exit_code, "chest: lung-threshold" in done.output) == (0, True)


def test_the_command_line_is_quick_because_it_loads_nothing_it_does_not_need():
    code = (
        "import sys; from dicom_node.cli.main import root; "
        "root.main(['echo', '--help'], standalone_mode=False); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'highdicom', 'SimpleITK')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.slow
def test_the_demo_brings_the_phantoms_lungs_back_from_the_pacs(tmp_path):
    done = dicom_node("demo", "--out", tmp_path / "demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert min(told["dice"].values()) >= 0.9
    assert told["story"] == "lung-unet made its result; pacs has it"
    seg = pydicom.dcmread(told["seg"])
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Right lung", "Left lung"]
    assert Path(told["picture"]).read_bytes()[:4] == b"\x89PNG"
