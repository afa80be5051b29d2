"""Rules of the house that no other program checks: sizes, words, excepts, citations."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "dicom_node"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]

LINES_OF_A_MODULE = 400
LINES_OF_A_FUNCTION = 70
PARAMETERS = 8
BROAD_EXCEPTS = {"dimse": 1, "node": 4, "web": 1}
"""The SCP's answer; the verdict on one Series, the tool call, the step, the stage loop; the error
page."""
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|raise NotImplementedError)\b")
MACHINE_PATH = re.compile(r"/(?:home|root|Users)/[a-z]|/work/(?:main|shared)|/tmp/(?:brief|ctdata)")
FORBIDDEN = re.compile(
    r"(?i)\b(?:pypi\.org|pythonhosted\.org|chatgpt|claude|as an ai|language model|co-authored-by"
    r"|issue #?\d+|this session)\b"
)
CITATION = re.compile(r"PS3\.\d+[^\s)]*(?:\s+(?!§)\S+)?")
GOOD_CITATION = re.compile(
    r"PS3\.(?:[1-9]|1\d|2[0-2])"
    r"(?:$|[.,;:)\"']|\s+(?:§|Annex|Table|CID|TID)?\s?[A-Z0-9][A-Z0-9.\-]*|\s)"
)


def parsed(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text("utf-8"))


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def tracked() -> list[Path]:
    """Every text file that belongs to the project."""
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / line for line in done.stdout.splitlines()]
    return [p for p in paths if p.is_file() and p.suffix not in {".safetensors", ".png", ".gz"}]


@pytest.mark.parametrize("name", NAMES)
def test_a_module_fits_on_a_few_screens(name: str):
    assert len((PACKAGE / name).read_text("utf-8").splitlines()) <= LINES_OF_A_MODULE


@pytest.mark.parametrize("name", NAMES)
def test_a_function_is_short_and_takes_few_things(name: str):
    for function in functions(parsed(name)):
        assert (function.end_lineno or 0) - function.lineno < LINES_OF_A_FUNCTION, function.name
        a = function.args
        taken = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
        own = [x for x in taken if x not in ("self", "cls")]
        assert len(own) <= PARAMETERS, function.name
        assert a.kwarg is None, f"{function.name} takes **{a.kwarg and a.kwarg.arg}"


@pytest.mark.parametrize("name", NAMES)
def test_a_module_changes_no_globals_and_unpickles_nothing(name: str):
    tree = parsed(name)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Global)]
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not imported & {"pickle", "marshal", "shelve", "dill", "joblib"}


@pytest.mark.parametrize("name", NAMES)
def test_only_the_command_line_prints(name: str):
    printed = [
        n
        for n in ast.walk(parsed(name))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"
    ]
    assert not printed or name.startswith("cli/")


def test_everything_is_caught_in_few_places_only():
    found: dict[str, list[str]] = {}
    for name in NAMES:
        for node in ast.walk(parsed(name)):
            if isinstance(node, ast.ExceptHandler) and catches_all(node):
                found.setdefault(name.split("/")[0], []).append(f"{name}:{node.lineno}")
    assert all(len(places) <= BROAD_EXCEPTS.get(room, 0) for room, places in found.items()), found


def catches_all(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
        for kind in kinds
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_unfinished(name: str):
    assert not UNFINISHED.findall((PACKAGE / name).read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_module_says_what_it_is_for(name: str):
    text = (PACKAGE / name).read_text("utf-8")
    assert not text.strip() or ast.get_docstring(parsed(name))


@pytest.mark.parametrize("name", NAMES)
def test_citations_name_a_part_and_a_section(name: str):
    text = (PACKAGE / name).read_text("utf-8")
    bad = [c for c in CITATION.findall(text) if not GOOD_CITATION.match(c)]
    assert not bad
    assert not re.findall(r"\bPS ?3(?!\.\d)", text)


def test_the_citation_rule_knows_good_from_bad():
    for good in ("PS3.4 §CC.1.1", "PS3.5 §6.2", "PS3.3 C.7.6.2.1.1", "PS3.4 Annex J"):
        assert GOOD_CITATION.match(good), good
    for bad in ("PS3.23 §1", "PS3.0 §1", "PS3.4§B", "PS3.99"):
        assert not GOOD_CITATION.match(bad), bad


def test_no_file_names_a_path_of_a_machine():
    here = Path(__file__)
    bad = []
    for path in tracked():
        if path == here:
            continue
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                bad.append(f"{path.relative_to(ROOT)}:{number}")
    assert not bad


def test_the_project_speaks_of_itself_alone():
    here = Path(__file__)
    bad = {
        str(path.relative_to(ROOT)): found
        for path in tracked()
        if path != here and (found := FORBIDDEN.findall(path.read_text("utf-8", "replace")))
    }
    assert not bad


def test_no_large_file_and_no_image_of_a_patient_is_tracked():
    for path in tracked():
        assert path.suffix != ".dcm", path
        assert path.stat().st_size < 2_000_000, path


def test_importing_every_module_does_nothing_but_define(tmp_path: Path):
    modules = [
        "dicom_node." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in NAMES
        if name != "__init__.py"
    ]
    code = (
        "import importlib, threading, warnings\n"
        f"[importlib.import_module(m) for m in {modules!r}]\n"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
