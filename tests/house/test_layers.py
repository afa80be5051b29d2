"""The contracts of pyproject.toml hold, and each of them can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
    "contracts"
]
LAYERS = "Rooms import only lower ones, and rooms of one layer do not import one another"
CYCLES = "No cycles inside a room"
PURE = "domain and decide are pure"

pytestmark = pytest.mark.skipif(not LINTER.exists(), reason="import-linter is not installed")

PLANTED = [
    (LAYERS, "domain/planted.py", "from dicom_node.decide import retry\n"),
    (LAYERS, "catalog/planted.py", "import dicom_node.spool.store\n"),
    (LAYERS, "node/planted.py", "import dicom_node.testing.phantom\n"),
    (LAYERS, "audit/planted.py", "from dicom_node.catalog import trail\n"),
    (LAYERS, "tools/planted.py", "def late():\n    from dicom_node.iod import seg\n"),
    (PURE, "domain/planted.py", "import os\n"),
    (PURE, "decide/planted.py", "def late():\n    import time\n"),
    (PURE, "decide/planted.py", "from pathlib import Path\n"),
    (PURE, "domain/planted.py", "import pydicom.dataset\n"),
    (
        "pynetdicom in dimse only",
        "node/planted.py",
        "from pynetdicom.sop_class import CTImageStorage\n",
    ),
    ("pydicom in dimse and iod only", "tools/planted.py", "import pydicom.dataset\n"),
    ("highdicom in iod only", "cli/planted.py", "def late():\n    import highdicom.seg\n"),
    ("pillow in iod only", "cli/planted.py", "from PIL import Image\n"),
    ("torch and OpenVINO in tools only", "dimse/planted.py", "def late():\n    import torch\n"),
    ("torch and OpenVINO in tools only", "node/planted.py", "import openvino\n"),
    (
        "torch and OpenVINO in tools only",
        "iod/planted.py",
        "from safetensors.numpy import load_file\n",
    ),
    ("SimpleITK in tools and iod.resample only", "iod/planted.py", "import SimpleITK\n"),
    ("SQL in catalog only", "node/planted.py", "def late():\n    import sqlite3\n"),
    ("pydantic in config only", "domain/planted.py", "from pydantic import BaseModel\n"),
    ("tomllib in config, and in tools for model.toml only", "node/planted.py", "import tomllib\n"),
    ("click and rich in cli only", "node/planted.py", "import rich.table\n"),
    ("structlog in node only", "spool/planted.py", "import structlog\n"),
    ("httpx in web only", "node/planted.py", "def late():\n    import httpx\n"),
    ("numpy where voxels are only", "decide/planted.py", "import numpy as np\n"),
]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package, with its contracts, to be spoilt."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(house: Path) -> tuple[int, str]:
    done = subprocess.run(
        [LINTER, "--no-cache", "--config", house / "pyproject.toml"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house / "src"), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def plant(house: Path, where: str, what: str) -> None:
    with (house / "src" / "dicom_node" / where).open("a") as file:
        file.write(what)


def test_the_house_is_in_order(house: Path):
    code, told = lint(house)
    assert code == 0, told


@pytest.mark.parametrize(("contract", "where", "what"), PLANTED)
def test_a_planted_import_breaks_its_contract(house: Path, contract: str, where: str, what: str):
    plant(house, where, what)
    code, told = lint(house)
    assert code != 0
    assert f"{contract} BROKEN" in told


def test_a_cycle_inside_a_room_breaks_the_build(house: Path):
    plant(house, "spool/egg.py", "import dicom_node.spool.hen\n")
    plant(house, "spool/hen.py", "import dicom_node.spool.egg\n")
    code, told = lint(house)
    assert code != 0
    assert f"{CYCLES} BROKEN" in told


def test_a_room_that_no_layer_lists_breaks_the_build(house: Path):
    (house / "src" / "dicom_node" / "shed").mkdir()
    plant(house, "shed/__init__.py", "")
    code, told = lint(house)
    assert code != 0
    assert "dicom_node.shed" in told


def test_every_contract_has_a_planted_violation():
    planted = {contract for contract, _, _ in PLANTED} | {CYCLES}
    assert {c["name"] for c in CONTRACTS} == planted


def test_importing_the_package_needs_no_outside_library():
    code = (
        "import sys, dicom_node, dicom_node.domain.records, dicom_node.domain.states;"
        "print([m for m in ('numpy', 'torch', 'pydicom', 'click') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["status", "--help"]])
def test_the_command_line_answers_without_loading_torch(words: list[str]):
    code = (
        "import sys\n"
        f"sys.argv = ['dicom-node', *{words!r}]\n"
        "from dicom_node.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print('loaded', [m for m in ('torch', 'SimpleITK') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().endswith("loaded []")
