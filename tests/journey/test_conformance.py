"""`dicom-node conformance` as a PACS administrator meets it."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dicom_node.cli.conformance import conformance
from dicom_node.cli.sheet import sheet
from dicom_node.cli.statement import document
from dicom_node.config.load import FILE_NAME, load, shipped
from dicom_node.dimse import conformance as tables
from dicom_node.dimse.contexts import acceptor_contexts
from dicom_node.node.statement import Machine, statement

WIDTH = 80


def run(*arguments: object) -> str:
    done = CliRunner().invoke(conformance, [str(a) for a in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def site(folder: Path, *changes: tuple[str, str]) -> Path:
    """The shipped configuration with changes, as a file."""
    text = (shipped() / FILE_NAME).read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "site.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def shipped_statement(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run("--config", site(tmp_path_factory.mktemp("site")))


def test_all_that_the_acceptor_takes_and_answers_is_in_it(shipped_statement: str):
    contexts = acceptor_contexts(commitment=True)
    wanted = {str(c.abstract_syntax) for c in contexts}
    wanted |= {str(uid) for uid in contexts[-1].transfer_syntax}
    assert [uid for uid in sorted(wanted) if f"`{uid}`" not in shipped_statement] == []

    answers = {**tables.STORE_ANSWERS, **tables.COMMITMENT_ANSWERS, **tables.OTHER_ANSWERS}
    assert [c for c in answers if f"- `{c:04X}` " not in shipped_statement] == []
    told = " ".join(shipped_statement.split())
    whens = [*tables.STORE_ANSWERS.values(), *tables.REJECTIONS.values(), *tables.ABORTS.values()]
    assert [when for when in whens if when not in told] == []


def test_it_has_the_sections_of_the_template_and_lists_them(shipped_statement: str):
    heads = [line.lstrip("# ") for line in shipped_statement.splitlines() if line.startswith("##")]
    numbers = [head.split()[0] for head in heads]

    assert [n for n in numbers if n.isdigit()] == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert {"4.1.1", "4.2.1.2", "4.2.1.3", "4.2.1.4", "4.3", "4.4", "8.1.1.1", "8.2"} <= {*numbers}
    assert len(numbers) == len(set(numbers))
    for head in heads:
        if head.split()[0].count(".") < 3:
            assert f"- {head}" in shipped_statement


DATE = re.compile(r"^\| Date +\| (20\d\d-\d\d-\d\d) \|$", re.MULTILINE)


def undated(text: str) -> str:
    found = DATE.search(text)
    assert found is not None
    return text.replace(found[1], "", 1)


def test_the_cover_has_the_date_and_the_edition_whose_template_it_follows(tmp_path: Path):
    facts = statement(load(site(tmp_path)))
    text = document(facts, 86400.0 * 20_000)
    found = DATE.search(text)

    assert found is not None
    assert found[1] == "2024-10-04"
    told = " ".join(text.split())
    assert "numbered as in the template of PS3.2 of 2008" in told
    assert "the template of today, PS3.2 Annex N, is not followed" in told


def test_the_overview_names_the_storage_classes_by_category(shipped_statement: str):
    overview = shipped_statement.split("## 2 ", maxsplit=1)[0]
    counts = dict(re.findall(r"\| Transfer: (.+?) +\| (\d+) SOP Classes \|", overview))

    assert {"images", "structured reports", "waveforms", "presentation states"} <= counts.keys()
    total = len([c for c in acceptor_contexts() if str(c.abstract_syntax) != "1.2.840.10008.1.1"])
    assert sum(map(int, counts.values())) == total


def test_its_character_sets_are_defined_terms(shipped_statement: str):
    section = shipped_statement.split("## 6 ")[1].split("## 7 ", maxsplit=1)[0]

    assert re.search(r"ISO\s2022\sIR\s58\b", section)
    assert not re.search(r"ISO\s2022\s(58|GBK)\b", section)


def test_prose_is_no_wider_than_a_terminal(shipped_statement: str):
    prose = [line for line in shipped_statement.splitlines() if not line.startswith("|")]

    assert [line for line in prose if len(line) > WIDTH] == []


def test_tables_have_as_many_cells_in_every_row(shipped_statement: str):
    for table in shipped_statement.split("\n\n"):
        if table.startswith("|"):
            cells = {line.replace("\\|", "").count("|") for line in table.splitlines()}
            assert len(cells) == 1, table


def test_a_change_of_the_configuration_shows(tmp_path: Path, shipped_statement: str):
    changed = site(
        tmp_path,
        ('ae_title = "DICOMNODE"', 'ae_title = "LUNGS"'),
        ("port = 11112", "port = 4006"),
        ("extra_sop_classes = []", 'extra_sop_classes = ["1.2.3.4"]'),
        ('may = ["store"]', 'may = ["store", "commit"]'),
        ('results = ["seg"]', 'results = ["sc"]'),
    )
    text, page = run("--config", changed), run("--sheet", "--config", changed)

    for told in (text, page):
        assert "LUNGS" in told
        assert "4006" in told
        assert "1.2.3.4" in told
        assert "Secondary Capture Image Storage" in told
        assert "DICOMNODE" not in told.replace("99DICOMNODE", "")
    assert "test-pacs: echo, commit, store" in text
    assert "test-pacs: echo, store" in shipped_statement
    assert "LUNGS" not in shipped_statement


def test_the_sheet_says_what_to_enter_and_fits_on_a_page(tmp_path: Path):
    page = run("--sheet", "--config", site(tmp_path))
    lines = page.splitlines()

    assert [line for line in lines if len(line) > WIDTH] == []
    assert len(lines) <= 66
    for told in ("DICOMNODE", "11112", "TLS", "not configured", "Segmentation Storage",
                 "1.2.840.10008.5.1.4.1.1.66.4", "TESTPACS at 127.0.0.1:11113"):  # fmt: skip
        assert told in page


def test_the_sheet_of_a_node_that_all_hear_names_the_machine_and_no_loopback(tmp_path: Path):
    page = run("--sheet", "--config", site(tmp_path, ('"127.0.0.1"', '"0.0.0.0"')))
    (host,) = [line for line in page.splitlines() if line.startswith("  Host ")]

    assert host.split()[1].rstrip(",") == socket.gethostname()
    assert "127." not in host
    assert f"DICOMNODE, {socket.gethostname()}, port 11112" in " ".join(page.split())
    assert "hears this machine alone" not in page


def test_the_sheet_gives_every_address_that_the_machine_knows_of_itself(tmp_path: Path):
    config = load(site(tmp_path, ('"127.0.0.1"', '"0.0.0.0"')))
    machine = Machine(name="ai-node.test", addresses=("10.1.2.3", "10.9.9.9"))

    assert "ai-node.test, 10.1.2.3, 10.9.9.9 (as the" in sheet(statement(config, machine))


TLS = tuple((f"# {key} = ", f"{key} = ") for key in ("certificate", "key", "ca"))
BY_TLS = """
[[peer]]
name = "ct"
ae_title = "CT1"
host = "10.1.2.3"
port = 2762
may = ["store", "commit"]
offers = ["store"]
tls = true
certificates = ["subject:CN=ct1.test"]
user = "ct"
passcode = "env:CT_PASSCODE"
max_associations = 3
objects_per_minute = 600
in_flight_mib = 64
idle_s = 300
"""


def test_the_sheet_says_what_is_to_be_imported_shown_and_entered_for_tls(
    tmp_path: Path, certificates: Path
):
    certificates.rename(tmp_path / "tls")
    config = site(tmp_path, *TLS)
    config.write_text(config.read_text() + BY_TLS)
    text = run("--sheet", "--config", config)
    page = " ".join(text.split())

    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "tls" / "node.pem").read_text())
    assert hashlib.sha256(der).hexdigest() in page.replace(" ", "")
    for told in (
        "O=FOR TESTS ONLY,CN=node.test, for node.test, localhost, 127.0.0.1; good until 2126-",
        "issued by O=FOR TESTS ONLY,CN=test CA: import that CA",
        "who calls must show a certificate; it must come from one of these CAs",
        "CT1 at 10.1.2.3:2762, called by TLS: it must show a certificate with subject:CN=ct1.test",
        "by TLS alone, with the certificate subject:CN=ct1.test",
        "ct, with its passcode: user identity type 2, which counts over TLS alone",
        "send images to this node; ask this node to keep them (Storage Commitment)",
        "it is asked to store results results by route",
        "3 associations, 600 objects a minute, 64 MiB on the way at a time, 300 s of silence",
    ):
        assert told in page, told


def test_a_certificate_that_cannot_be_used_is_no_obstacle_to_the_sheet(tmp_path: Path):
    config = site(tmp_path, *TLS)
    config.write_text(config.read_text() + BY_TLS)

    assert "it cannot be used: `dicom-node doctor` says why" in run("--sheet", "--config", config)


def test_the_sheet_has_the_uid_of_every_transfer_syntax_and_of_each_class_of_ct(tmp_path: Path):
    page = run("--sheet", "--config", site(tmp_path))
    words = page.replace(",", " ").split()

    syntaxes = [str(uid) for uid in acceptor_contexts()[-1].transfer_syntax]
    short = [uid.removeprefix("1.2.840.10008.1.2.4") for uid in syntaxes]
    assert [uid for uid in short if uid not in words] == []
    assert {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"} <= set(words)
    assert "aborted after 60 s of silence" in page


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('networks = ["127.0.0.0/8"]', "calls from 127.0.0.0/8 it may"),
        ("networks = []", "calls from 127.0.0.1 it may"),
        ('networks = []\nhost = "pacs.site"', "calls from any address"),
    ],
    ids=["networks", "an address", "a name"],
)
def test_the_sheet_tells_from_where_a_peer_may_call(tmp_path: Path, line: str, told: str):
    config = site(
        tmp_path,
        ('host = "127.0.0.1"              # where it listens\n', ""),
        ('networks = ["127.0.0.0/8"]', line if "host" in line else f'{line}\nhost = "127.0.0.1"'),
    )

    assert told in " ".join(run("--sheet", "--config", config).split())


def test_the_sheet_of_a_node_that_takes_from_anybody_says_so(tmp_path: Path):
    page = run("--sheet", "--config", site(tmp_path, ('"echo" ', '"accept" ')))

    assert "test-pacs, anybody else: a destination" in " ".join(page.split())


def test_it_goes_to_a_file_or_as_json_to_a_program(tmp_path: Path, shipped_statement: str):
    out = tmp_path / "statement.md"
    assert run("--out", out, "--config", site(tmp_path)) == ""
    assert undated(out.read_text("utf-8")) == undated(shipped_statement)

    facts = json.loads(run("--json", "--config", site(tmp_path)))
    assert facts["ae_title"] == "DICOMNODE"
    assert facts["answers"]["C-STORE"].keys() == {f"{c:04X}" for c in tables.STORE_ANSWERS}
    assert {c["abstract_syntax"] for c in facts["accepted"]} == {
        str(c.abstract_syntax) for c in acceptor_contexts(commitment=True)
    }
    with pytest.raises(click.UsageError):
        run("--json", "--sheet", "--config", site(tmp_path))
