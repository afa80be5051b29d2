"""The documents say what the code does."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

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
