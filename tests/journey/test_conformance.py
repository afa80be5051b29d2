"""`dicom-node conformance` as a PACS administrator meets it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dicom_node.cli.conformance import conformance
from dicom_node.config.load import FILE_NAME, shipped
from dicom_node.dimse import conformance as tables
from dicom_node.dimse.contexts import acceptor_contexts

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


def test_the_sheet_of_a_node_that_all_hear_names_no_loopback_address(tmp_path: Path):
    page = run("--sheet", "--config", site(tmp_path, ('"127.0.0.1"', '"0.0.0.0"')))

    assert "the address of this machine" in page
    assert "hears this machine alone" not in page


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('networks = ["127.0.0.0/8"]', "Calls from: 127.0.0.0/8."),
        ("networks = []", "Calls from: 127.0.0.1."),
        ('networks = []\nhost = "pacs.site"', "Calls from: any address"),
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
    assert out.read_text("utf-8") == shipped_statement

    facts = json.loads(run("--json", "--config", site(tmp_path)))
    assert facts["ae_title"] == "DICOMNODE"
    assert facts["answers"]["C-STORE"].keys() == {f"{c:04X}" for c in tables.STORE_ANSWERS}
    assert {c["abstract_syntax"] for c in facts["accepted"]} == {
        str(c.abstract_syntax) for c in acceptor_contexts(commitment=True)
    }
    with pytest.raises(click.UsageError):
        run("--json", "--sheet", "--config", site(tmp_path))
