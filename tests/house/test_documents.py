"""The documents say what the code does."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from dicom_node.cli.main import root
from dicom_node.config.load import read

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """docs/generate.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_parts_are_fresh(generator: ModuleType):
    assert generator.stale() == [], "run: python docs/generate.py"


def test_every_generated_part_is_used_in_a_document(generator: ModuleType):
    used = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"<!-- generated: ([a-z-]+) -->", path.read_text("utf-8"))
    }

    assert used - {"NAME"} == set(generator.BLOCKS)


@pytest.mark.parametrize("name", NAMES)
def test_links_between_documents_lead_somewhere(name: str):
    path = ROOT / name
    targets = re.findall(r"\]\(([^)#:]+\.(?:md|toml))(?:#[^)]*)?\)", path.read_text("utf-8"))

    assert [t for t in targets if not (path.parent / t).is_file()] == []


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_examples_of_the_configuration_are_valid(name: str):
    blocks = re.findall(r"^ *```toml\n(.*?)^ *```", (ROOT / name).read_text("utf-8"), re.M | re.S)

    assert blocks
    for block in blocks:
        assert read(block, base=Path("/site")).peers


def test_the_example_of_a_model_has_the_keys_of_the_shipped_one():
    text = (ROOT / "docs" / "models.md").read_text("utf-8")
    example = tomllib.loads(re.findall(r"```toml\n(.*?)```", text, re.S)[0])
    shipped = tomllib.loads((ROOT / "models" / "lung-unet" / "model.toml").read_text("utf-8"))

    for table in ("weights", "input"):
        assert example[table].keys() == shipped[table].keys()
    assert example["segment"][0].keys() == shipped["segment"][0].keys()
    assert example.keys() == shipped.keys()


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs" / "decisions"
    listed = set(re.findall(r"^\d{3}-[a-z0-9-]+$", (folder / "index.md").read_text("utf-8"), re.M))

    assert listed == {path.stem for path in folder.glob("0*.md")}


def command_lines(text: str) -> Iterator[str]:
    """Each `dicom-node ...` of a document: in its shell blocks, and inline.

    A bare `dicom-node why` in a sentence is the name of the command: it must exist.
    """
    for block in re.findall(r"```(?:sh|text)\n(.*?)```", text, re.S):
        for line in block.splitlines():
            found = re.match(r"^ *(?:\$ )?(?:\.venv/bin/)?(dicom-node .*)$", line)
            if found:
                yield found[1]
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    for found in re.findall(r"`(dicom-node [^`]+)`", prose):
        words = found.split()
        yield " ".join(words if len(words) > 2 else [*words, "--help"])


def mistake(line: str) -> str:
    """What the command line would object to, "" if nothing."""
    words = [w for w in shlex.split(line, comments=True)[1:] if not w.startswith("...")]
    command: click.Command = root
    context = click.Context(root, info_name="dicom-node")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"there is no command {words[0]}"
        command, words = found, words[1:]
    try:
        _, left, _ = command.make_parser(click.Context(command)).parse_args(list(words))
    except click.UsageError as error:
        return error.format_message()
    wanted = [p for p in command.params if isinstance(p, click.Argument)]
    given = sum(not w.startswith("-") for w in words)
    if any(p.required for p in wanted) and not given and "--help" not in words:
        return f"{command.name} wants {wanted[0].name}"
    return f"too much: {left}" if left and not isinstance(command, click.Group) else ""


@pytest.mark.parametrize("name", NAMES)
def test_every_command_line_in_a_document_can_be_typed(name: str):
    lines = list(command_lines((ROOT / name).read_text("utf-8")))
    bad = {line: found for line in lines if not line.startswith("dicom-node:")
           and (found := mistake(line))}  # fmt: skip

    assert bad == {}


def test_command_lines_are_found_and_wrong_ones_are_told_from_right_ones():
    text = "Use `dicom-node why UID`.\n```sh\n$ dicom-node retry --all  # now\n```\n"
    assert list(command_lines(text)) == ["dicom-node retry --all  # now", "dicom-node why UID"]
    every = itertools.chain.from_iterable(command_lines(p.read_text("utf-8")) for p in DOCUMENTS)
    assert len(set(every)) > 20
    assert mistake("dicom-node retry --all --to pacs  # a comment") == ""
    for wrong in ("dicom-node whi UID", "dicom-node why --every UID", "dicom-node why",
                  "dicom-node routes tset DIR", "dicom-node status UID"):  # fmt: skip
        assert mistake(wrong), wrong


def test_links_to_sections_lead_to_a_section():
    for path in DOCUMENTS:
        for target, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text("utf-8")):
            there = (path.parent / target if target else path).read_text("utf-8")
            heads = re.findall(r"^#+ (.+)$", there, re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}
            assert section in slugs, f"{path.name}: #{section}"
