"""`echo`, `find`, `move`, `get` and `send` over real DIMSE, as an administrator uses them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from dicom_node.cli.diagnosis import move_diagnosis, registration
from dicom_node.cli.main import main
from dicom_node.cli.retrieve import Folder
from dicom_node.config.load import load
from dicom_node.dimse.contract import StoreAnswer, StoreRequest
from dicom_node.dimse.scu import Outcome, Phase
from dicom_node.testing.pacs import LocalPacs
from dicom_node.testing.series import Header, a_series
from raw.ports import free_port

HEAD = Header(accession_number="ACC-1", patient_id="P1", study_date="20260105")
LATER = Header(
    study="later",
    accession_number="ACC-2",
    patient_id="P2",
    patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう",
    character_set="ISO_IR 192",
    study_date="20260203",
    study_description="A study with a description that is as long as a value may be: 64",
)
TWIN = Header(study="twin", accession_number="ACC-2", patient_id="P3", study_date="20260204")


class Ran:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def cli(monkeypatch, capsys) -> Callable[..., Ran]:
    """Runs the console script in this process."""

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["dicom-node", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def config(tmp_path) -> Callable[..., Path]:
    """Writes a configuration whose peer `pacs` listens on a port."""

    def write(port: int, offers: str = '["store", "query", "retrieve"]', own_port: int = 0) -> Path:
        path = tmp_path / "ae_config.toml"
        path.write_text(
            f"[node]\nport = {own_port}\n[[peer]]\nname = 'pacs'\nae_title = 'TESTPACS'\n"
            f"host = '127.0.0.1'\nport = {port}\noffers = {offers}\n"
        )
        return path

    return write


@pytest.fixture
def holds(tmp_path) -> Iterator[Callable[..., LocalPacs]]:
    """holds(header, ..., slices=) -> a PACS that has a series for each header."""
    running: list[LocalPacs] = []

    def start(*headers: Header, slices: int = 3, **more: object) -> LocalPacs:
        folder = tmp_path / f"held-{len(running)}"
        written(folder, *headers, slices=slices)
        pacs = LocalPacs(folder, **more)
        pacs.__enter__()
        running.append(pacs)
        return pacs

    yield start
    for pacs in running:
        pacs.__exit__(None, None, None)


def written(folder: Path, *headers: Header, slices: int = 3) -> list[Path]:
    """The files of a series for each header."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for header in headers:
        for image in a_series(slices, header=header):
            paths.append(folder / f"{image.SOPInstanceUID}.dcm")
            image.save_as(paths[-1], enforce_file_format=True)
    return paths


def narrow(text: str) -> bool:
    """Whether no line is wider than 80 columns, wide characters counted as two."""
    return all(cells(line) <= 80 for line in text.splitlines())


def cells(line: str) -> int:
    return sum(2 if "\u3000" <= c <= "\u9fff" else 1 for c in line)


# --- echo


def test_echo_tells_status_and_milliseconds(cli, config, holds):
    ran = cli("echo", "pacs", "--count", 2, "--config", config(holds().port), "--json")

    assert ran.code == 0
    assert [e["status"] for e in ran.json["echoes"]] == ["0x0000", "0x0000"]
    assert all(e["milliseconds"] > 0 and e["problem"] == "" for e in ran.json["echoes"])


def test_a_peer_may_be_called_by_ae_title_or_by_address(cli, config, holds):
    pacs = holds()
    path = config(pacs.port)

    for name in ("TESTPACS", f"TESTPACS@127.0.0.1:{pacs.port}"):
        ran = cli("echo", name, "--config", path)
        assert (ran.code, "0x0000 success" in ran.out) == (0, True)


def test_who_is_no_peer_is_a_mistake_of_usage(cli, config):
    ran = cli("echo", "nobody", "--config", config(104))

    assert ran.code == 2
    assert "AET@host:port" in ran.err


def test_a_closed_port_is_told_as_such(cli, config):
    port = free_port()

    ran = cli("echo", "pacs", "--config", config(port))

    assert ran.code == 1
    assert f"nobody listens at 127.0.0.1:{port} (connection refused)" in ran.err


def test_a_rejected_caller_learns_what_the_pacs_has_to_register(cli, config, start_node):
    other = start_node(receive='unknown_peers = "refuse"')

    ran = cli("echo", f"DICOMNODE@127.0.0.1:{other.port}", "--config", config(104, own_port=11199))

    assert ran.code == 1
    assert "DICOMNODE does not know the AE title DICOMNODE" in ran.err
    assert "add AE title DICOMNODE, host 127.0.0.1, port 11199" in ran.err


def test_a_wrong_called_ae_title_is_told_as_such(cli, config, holds):
    port = holds().port

    ran = cli("echo", f"OTHER@127.0.0.1:{port}", "--config", config(port))

    assert ran.code == 1
    assert "is not called OTHER" in ran.err


def test_a_port_that_accepts_and_says_nothing_is_a_time_out(cli, config):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ran = cli("echo", "pacs", "--timeout", 0.5, "--config", config(port))

    assert ran.code == 1
    assert "no answer within 0.5 s" in ran.err


def test_an_unknown_host_is_told_as_such(cli, config, monkeypatch):
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    ran = cli("echo", "PACS@nowhere.invalid:104", "--config", config(104))

    assert ran.code == 1
    assert "the host name nowhere.invalid is unknown" in ran.err


# --- find


def test_find_lists_studies_in_80_columns_with_whole_uids(cli, config, holds):
    pacs = holds(HEAD, LATER)

    ran = cli("find", "pacs", "--config", config(pacs.port))

    lines = [line.strip() for line in ran.out.splitlines()]
    assert ran.code == 0
    assert narrow(ran.out)
    assert {HEAD.study_uid, LATER.study_uid} <= set(lines)
    assert lines.index(LATER.study_uid) < lines.index(HEAD.study_uid), "newest first"
    assert lines[-1] == "2 studies"


def test_find_gives_all_keys_as_json(cli, config, holds):
    ran = cli(
        *("find", "pacs", "--patient", "P1", "--key", "PatientSex=", "--json"),
        *("--config", config(holds(HEAD, LATER).port)),
    )

    (match,) = ran.json["matches"]
    assert ran.code == 0
    assert match["StudyInstanceUID"] == HEAD.study_uid
    assert match["NumberOfStudyRelatedInstances"] == 3
    assert match["PatientSex"] == "O"


@pytest.mark.parametrize(
    ("filters", "patients"),
    [
        (["--accession", "ACC-1"], "P1"),
        (["--accession", "ACC-2"], "P2 P3"),
        (["--date", "20260101-20260203"], "P1 P2"),
        (["--date", "20260204"], "P3"),
        (["--study", TWIN.study_uid], "P3"),
        (["--modality", "CT", "--patient", "P?"], "P1 P2 P3"),
        (["--key", "StudyDescription=A study*"], "P2"),
    ],
)
def test_find_matches_what_it_is_asked_for(cli, config, holds, filters, patients):
    pacs = holds(HEAD, LATER, TWIN, slices=1)

    ran = cli("find", "pacs", *filters, "--json", "--config", config(pacs.port))

    assert sorted(match["PatientID"] for match in ran.json["matches"]) == patients.split()


def test_find_lists_series_and_images(cli, config, holds):
    path = config(holds(HEAD).port)
    series = cli("find", "pacs", "--level", "series", "--study", HEAD.study_uid, "--config", path)
    images = cli(
        *("find", "pacs", "--level", "image", "--study", HEAD.study_uid),
        *("--series", HEAD.series_uid, "--config", path),
    )

    assert f"  {HEAD.series_uid}\n1 series\n" in series.out
    assert "3 images" in images.out
    assert all(HEAD.instance_uid(k) in images.out for k in range(3))
    assert narrow(series.out)
    assert narrow(images.out)


def test_nothing_found_is_exit_1(cli, config, holds):
    ran = cli("find", "pacs", "--patient", "NOBODY", "--config", config(holds(HEAD).port))

    assert (ran.code, ran.out, ran.err) == (1, "no studies found\n", "")


def test_find_stops_at_the_limit_and_says_so(cli, config, holds):
    path = config(holds(HEAD, LATER, TWIN, slices=1).port)

    ran = cli("find", "pacs", "--limit", 2, "--config", path)

    assert ran.code == 0
    assert "2 studies, and there are more" in ran.out


def test_what_a_peer_sends_cannot_drive_the_terminal(cli, config, holds):
    csi = "\N{CONTROL SEQUENCE INTRODUCER}"
    hostile = Header(character_set="ISO_IR 192", study_description=f"red{csi}31m alert")

    ran = cli("find", "pacs", "--config", config(holds(hostile, slices=1).port))

    assert ran.code == 0
    assert "alert" in ran.out
    assert csi not in ran.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--level", "series"],
        ["--level", "image", "--study", "1.2"],
        ["--level", "series", "--study", "1.2", "--patient", "P1"],
        ["--study", "1.2*"],
        ["--date", "2026-01-05"],
        ["--key", "PatientID"],
        ["--key", "NoSuchKeyword=1"],
        ["--limit", "0"],
    ],
    ids=" ".join,
)
def test_a_query_that_cannot_be_asked_is_a_mistake_of_usage(cli, config, holds, arguments):
    ran = cli("find", "pacs", *arguments, "--config", config(holds().port))

    assert ran.code == 2
    assert "Error:" in ran.err


def test_a_peer_is_asked_only_for_what_it_offers(cli, config, tmp_path):
    path = config(104, offers='["store"]')

    for command in (["find"], ["move", "--study", "1.2"], ["get", "--study", "1.2", "--out", "o"]):
        ran = cli(command[0], "pacs", *command[1:], "--config", path)
        assert ran.code == 2
        assert "does not offer" in ran.err


# --- move


def test_a_moved_study_comes_to_the_node(cli, start_node, holds):
    pacs = holds(HEAD)
    table = (
        f"[[peer]]\nname = 'pacs'\nae_title = 'TESTPACS'\nhost = '127.0.0.1'\nport = {pacs.port}\n"
        "offers = ['store', 'query', 'retrieve']\n"
    )
    node = start_node(peers=table)
    pacs.destinations["DICOMNODE"] = node.address

    ran = cli("move", "pacs", "--accession", "ACC-1", "--json", "--config", node.config_path)

    assert ran.code == 0, ran.err
    assert (ran.json["status"], ran.json["completed"], ran.json["failed"]) == ("0x0000", 3, 0)
    series = node.running.catalog.views.series(HEAD.series_uid)
    assert series is not None
    assert series.instances == 3


def test_one_series_is_moved_elsewhere(cli, config, holds):
    other = holds(ae_title="OTHER")
    second = Header(accession_number="ACC-1", patient_id="P1", series="second")
    pacs = holds(HEAD, second, destinations={"OTHER": ("127.0.0.1", other.port)})

    ran = cli(
        *("move", "pacs", "--study", HEAD.study_uid, "--series", second.series_uid),
        *("--to", "OTHER", "--config", config(pacs.port)),
    )

    assert (ran.code, ran.out) == (0, "3 images sent, 0 failed\n")
    assert {str(d.SeriesInstanceUID) for d in other.datasets()} == {second.series_uid}


def test_an_unknown_destination_is_explained(cli, config, holds):
    path = config(holds(HEAD).port, own_port=11199)

    ours = cli("move", "pacs", "--study", HEAD.study_uid, "--config", path)
    other = cli("move", "pacs", "--study", HEAD.study_uid, "--to", "FAR", "--config", path)

    assert (ours.code, other.code) == (1, 1)
    assert "add AE title DICOMNODE, host 127.0.0.1, port 11199" in ours.err
    assert "does not know AE title FAR" in other.err


def test_images_that_the_destination_refuses_are_counted(cli, config, holds):
    other = holds(ae_title="OTHER", on_store=lambda a: 0xA700 if a.number == 2 else 0)
    pacs = holds(HEAD, destinations={"OTHER": ("127.0.0.1", other.port)})

    ran = cli(
        *("move", "pacs", "--study", HEAD.study_uid, "--to", "OTHER", "--json"),
        *("--config", config(pacs.port)),
    )

    assert ran.code == 1
    assert (ran.json["status"], ran.json["completed"], ran.json["failed"]) == ("0xB000", 2, 1)
    assert ran.json["problem"].startswith("1 image did not arrive at OTHER")


def test_a_study_that_is_not_there_is_exit_1(cli, config, holds):
    other = holds(ae_title="OTHER")
    pacs = holds(HEAD, destinations={"OTHER": ("127.0.0.1", other.port)})
    path = config(pacs.port)

    by_uid = cli("move", "pacs", "--study", "1.2.3", "--to", "OTHER", "--config", path)
    by_number = cli("move", "pacs", "--accession", "NO", "--to", "OTHER", "--config", path)

    assert (by_uid.code, by_number.code) == (1, 1)
    assert "the peer has no such images" in by_uid.err
    assert "no study with accession number NO" in by_number.err


def test_an_accession_number_of_two_studies_is_refused_with_a_list(cli, config, holds):
    pacs = holds(HEAD, LATER, TWIN)

    ran = cli("move", "pacs", "--accession", "ACC-2", "--config", config(pacs.port))

    assert ran.code == 1
    assert LATER.study_uid in ran.err
    assert TWIN.study_uid in ran.err
    assert HEAD.study_uid not in ran.err
    assert not ran.out


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (0xA801, "does not know AE title DICOMNODE, or cannot reach it: have the administrator"),
        (
            0xA702,
            "could not send to DICOMNODE: it has a wrong host or port for it, or was rejected",
        ),
        (0xB000, "2 images did not arrive at DICOMNODE; dicom-node why TESTPACS tells"),
        (0xFE00, "cancelled"),
        (0xC001, "not know or cannot reach AE title DICOMNODE: have the administrator"),
        (0xA701, "answered the detail"),
        (0x0122, "answered the detail"),
    ],
)
def test_each_status_of_a_move_is_explained(config, status, says):
    outcome = Outcome(phase=Phase.STATUS, status=status, detail="the detail")
    settings = load(config(104))

    sentence = move_diagnosis(
        outcome, settings.peers[0], settings, destination_ae="DICOMNODE", failed=2
    )

    assert says in sentence


@pytest.fixture
def by_tls(certificates, tmp_path) -> Iterator[Callable[..., Path]]:
    """Writes a configuration whose peer `pacs` is called by TLS, and shows the certificate `name`
    of tests/certificates; with no name it speaks none."""
    pacs = LocalPacs(tmp_path / "secure", ae_title="TESTPACS")
    stack = contextlib.ExitStack()

    def write(name: str = "") -> Path:
        if name:
            pacs.secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            pacs.secure.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        stack.enter_context(pacs)
        path = certificates / "ae_config.toml"
        path.write_text(
            "[tls]\ncertificate = 'node.pem'\nkey = 'node.key'\nca = 'ca.pem'\n[[peer]]\n"
            "name = 'pacs'\nae_title = 'TESTPACS'\nhost = '127.0.0.1'\n"
            f"port = {pacs.port}\ntls = true\n"
        )
        return path

    with stack:
        yield write


def test_a_fault_of_tls_that_is_known_is_told_without_a_guess(by_tls, cli):
    path = by_tls("expired")
    told = " ".join(cli("echo", "pacs", "--config", path).err.split())
    assert told.endswith(": its certificate is not accepted: certificate has expired")
    (path.parent / "node.key").chmod(0o644)
    told = " ".join(cli("echo", "pacs", "--config", path).err.split())
    assert told.endswith("node.key: others may read it (chmod 600)")
    assert "TESTPACS" not in told


def test_a_fault_of_tls_that_leaves_the_cause_open_is_told_with_a_guess(by_tls, cli):
    ran = cli("echo", "pacs", "--config", by_tls())
    assert "the TLS port of TESTPACS, and does it trust" in " ".join(ran.err.split())


def test_the_address_to_register_is_the_one_on_the_way_to_the_peer(config):
    path = config(104, own_port=11199)
    path.write_text(path.read_text().replace("[node]", '[node]\nhost = "0.0.0.0"'))
    settings = load(path)

    assert registration(settings, settings.peers[0]).endswith("host 127.0.0.1, port 11199")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--study", "1.2", "--accession", "A"], ["--accession", "*"], ["--accession", ""],
     ["--study", "../x"], ["--study", "1.2", "--to", "A TITLE THAT IS TOO LONG"]],
    ids=str,
)  # fmt: skip
def test_a_move_that_cannot_be_asked_is_a_mistake_of_usage(cli, config, arguments):
    assert cli("move", "pacs", *arguments, "--config", config(free_port())).code == 2


# --- get


def test_get_writes_each_image_once_whatever_it_is_called(cli, config, holds, tmp_path):
    pacs = holds(HEAD)
    out = tmp_path / "out"
    command = ("get", "pacs", "--study", HEAD.study_uid, "--out", out, "--config")

    first = cli(*command, config(pacs.port))
    again = cli(*command, config(pacs.port), "--json")

    fetched = {str(pydicom.dcmread(p).SOPInstanceUID): p for p in out.iterdir()}
    assert (first.code, again.code) == (0, 0)
    assert set(fetched) == {HEAD.instance_uid(k) for k in range(3)}
    assert again.json["files"] == {uid: str(p) for uid, p in fetched.items()}
    assert all(uid not in p.name for uid, p in fetched.items())
    for uid, path in fetched.items():
        assert pydicom.dcmread(path) == pydicom.dcmread(pacs.path_of(uid))


def test_get_of_one_series(cli, config, holds, tmp_path):
    second = Header(accession_number="ACC-1", patient_id="P1", series="second")
    pacs = holds(HEAD, second)

    ran = cli(
        *("get", "pacs", "--study", HEAD.study_uid, "--series", second.series_uid),
        *("--out", tmp_path / "out", "--config", config(pacs.port)),
    )

    assert ran.code == 0
    found = [pydicom.dcmread(p).SeriesInstanceUID for p in (tmp_path / "out").iterdir()]
    assert found == [second.series_uid] * 3


def test_get_of_nothing_is_exit_1(cli, config, holds, tmp_path):
    ran = cli(
        *("get", "pacs", "--study", "1.2.3", "--out", tmp_path / "out"),
        *("--config", config(holds(HEAD).port)),
    )

    assert ran.code == 1
    assert "the peer has no such images" in ran.err


def test_a_file_that_cannot_be_written_fails_the_fetch(cli, config, holds, tmp_path):
    out = tmp_path / "out"
    name = hashlib.sha256(HEAD.instance_uid(1).encode()).hexdigest()[:32]
    (out / f"{name}.part").mkdir(parents=True)  # where the second image would go

    ran = cli(
        *("get", "pacs", "--study", HEAD.study_uid, "--out", out, "--json"),
        *("--config", config(holds(HEAD).port)),
    )

    assert ran.code == 1
    assert len(ran.json["files"]) == 2
    assert "cannot write in" in ran.json["problem"]


def test_no_received_value_becomes_a_path(tmp_path):
    folder = Folder(tmp_path / "out")
    request = StoreRequest(
        association=0, sop_class_uid="1.2", sop_instance_uid="../../evil",
        transfer_syntax_uid="1.2.840.10008.1.2.1", message_id=1, calling_ae="X",
    )  # fmt: skip

    sink = folder.receive(request)

    assert not isinstance(sink, StoreAnswer)
    sink.write((b"bytes",))
    assert sink.finish().status == 0
    assert [p.parent for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "out"]


def test_an_object_that_breaks_off_leaves_no_file(tmp_path):
    folder = Folder(tmp_path / "out")
    request = StoreRequest(
        association=0, sop_class_uid="1.2", sop_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1", message_id=1, calling_ae="X",
    )  # fmt: skip

    sink = folder.receive(request)
    assert not isinstance(sink, StoreAnswer)
    sink.write((b"bytes",))
    sink.abort()

    assert list((tmp_path / "out").iterdir()) == []
    assert folder.files == {}


# --- send


def test_send_stores_folders_and_names_what_is_no_object(cli, config, holds, tmp_path):
    pacs = holds()
    written(tmp_path / "in" / "deep", HEAD)
    written(tmp_path / "in", LATER)
    (tmp_path / "in" / "readme.txt").write_text("not an image")

    ran = cli("send", "pacs", tmp_path / "in", "--config", config(pacs.port))

    assert ran.code == 0
    assert ran.out == "6 objects: 0x0000 success\n"
    assert "readme.txt" in ran.err
    assert len(pacs.instances()) == 6


def test_refused_objects_are_listed_with_the_reason(cli, config, holds, tmp_path):
    paths = written(tmp_path / "in", HEAD)
    status = {HEAD.instance_uid(0): 0xA700, HEAD.instance_uid(1): 0xB000}
    pacs = holds(on_store=lambda attempt: status.get(attempt.sop_instance_uid, 0))
    path = config(pacs.port)

    ran = cli("send", "pacs", *paths, "--json", "--config", path)
    shown = cli("send", "pacs", *paths, "--config", path)

    by_status = {o["status"]: o for o in ran.json["objects"]}
    assert (ran.code, shown.code) == (1, 1)
    assert [by_status[s]["stored"] for s in ("0x0000", "0xA700", "0xB000")] == [True, False, True]
    assert "out of resources" in by_status["0xA700"]["reason"]
    assert "1 object: 0xA700 out of resources" in shown.out
    assert f"{HEAD.instance_uid(0)}.dcm" in shown.err


def test_an_unreachable_peer_is_told_once(cli, config, tmp_path):
    written(tmp_path / "in", HEAD)

    ran = cli("send", "pacs", tmp_path / "in", "--config", config(free_port()))

    assert ran.code == 1
    assert ran.out == "3 objects: no connection\n"
    assert ran.err.count("nobody listens at") == 1


def test_sending_nothing_is_exit_1_and_a_missing_path_exit_2(cli, config, tmp_path):
    (tmp_path / "empty").mkdir()
    path = config(free_port())

    assert cli("send", "pacs", tmp_path / "empty", "--config", path).code == 1
    assert cli("send", "pacs", tmp_path / "missing", "--config", path).code == 2


# --- a PACS of other people


@pytest.fixture
def dcmqrscp(tmp_path) -> Iterator[Callable[[int, int], None]]:
    """dcmqrscp(port, port of DICOMNODE): runs it until the end of the test."""
    program = Path("/usr/bin/dcmqrscp")
    if not program.exists():
        pytest.skip("DCMTK's dcmqrscp is not installed")
    running: list[subprocess.Popen[bytes]] = []

    def start(port: int, own_port: int) -> None:
        store = tmp_path / "dcmqrscp"
        store.mkdir()
        settings = tmp_path / "dcmqrscp.cfg"
        settings.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 8\n"
            f"HostTable BEGIN\nnode = (DICOMNODE, 127.0.0.1, {own_port})\nHostTable END\n"
            f"VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nTESTPACS {store} RW (200, 1024mb) ANY\nAETable END\n"
        )
        running.append(
            subprocess.Popen(
                [program, "-c", settings],
                env={**os.environ, "TCP_NODELAY": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        pytest.fail("dcmqrscp did not start")

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


@pytest.mark.peer
def test_the_commands_work_with_dcmqrscp(cli, start_node, dcmqrscp, tmp_path):
    written(tmp_path / "in", HEAD, LATER)
    port = free_port()
    node = start_node(
        peers=f"[[peer]]\nname = 'pacs'\nae_title = 'TESTPACS'\nhost = '127.0.0.1'\n"
        f"port = {port}\noffers = ['store', 'query', 'retrieve']\n",
    )
    dcmqrscp(port, node.port)
    more = ("--config", node.config_path)

    assert cli("echo", "pacs", *more).code == 0
    sent = cli("send", "pacs", tmp_path / "in", *more)
    found = cli("find", "pacs", "--accession", "ACC-1", "--json", *more)
    moved = cli("move", "pacs", "--accession", "ACC-1", "--json", *more)
    fetched = cli("get", "pacs", "--study", LATER.study_uid, "--out", tmp_path / "out", *more)
    lost = cli("move", "pacs", "--study", HEAD.study_uid, "--to", "FAR", *more)

    assert (sent.code, sent.out) == (0, "6 objects: 0x0000 success\n")
    assert [m["StudyInstanceUID"] for m in found.json["matches"]] == [HEAD.study_uid]
    assert (moved.code, moved.json["completed"]) == (0, 3), moved.err
    assert fetched.code == 0, fetched.err
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert node.running.catalog.views.series(HEAD.series_uid) is not None
    assert lost.code == 1
    assert "does not know AE title FAR" in lost.err
