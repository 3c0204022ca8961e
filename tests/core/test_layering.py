"""Imports run one way: each part may use only the parts named before it."""

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.support.workers import REPOSITORY, python

CORE = REPOSITORY / "ramole_core"
UI = REPOSITORY / "ui"
LAB = REPOSITORY / "lab"

ORDER = tuple(
    line.split()
    for line in (
        "shapes errors turns whole_file text_file process_memory api_keys settings methods "
        "contribution effects evidence answer request_parts request_fields sampling request_check "
        "request",
        "composition",
        "kernels",
        "base",
        "pool",
        "retrieval",
        "hub",
        "layers",
        "engine",
        "mixes",
        "selection",
        "prepack own_model weights_here explaining opened_pool ramole running_page facts "
        "trace_file trace_check adapter_similarity",
        "terminal",  # what commands read and print; the parts below have commands
        "batch training export serving",
        "cli __main__",
    )
)
"""Of the core: each part may use those of its own line and of earlier ones."""
ROOMS = tuple(
    line.split()
    for line in (
        "gradio_home gradio_import",  # what comes before Gradio
        "watch",  # what happened, logged by every room
        "parts",
        "charts model session",
        "ask compare inspect batch pool results",  # no tab needs another
        "learn",  # but the textbook, which shows what Results has measured
        "api header tabs middleware shutdown",
        "openai",  # another way to ask what `api` takes
        "metrics health",
        "serve",
        "__init__",
        "program mounted",  # the page as a program, and as another server mounts it
    )
)
"""Of the page: each may use itself and the rooms of earlier lines, none beside it."""


def rank(name: str, order: Sequence[list[str]] = ORDER) -> int:
    """The line of a part in ORDER, or of a room in ROOMS; fails for one that has none."""
    for place, names in enumerate(order):
        if name in names:
            return place
    raise AssertionError(f"{name} has no place in ORDER or ROOMS of {__file__}; give it one")


@cache
def nodes(file: Path) -> list[ast.AST]:
    """Everything in a file's syntax tree."""
    return [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]


@cache
def imported(file: Path) -> set[str]:
    """Every dotted name that a file imports, inside functions and for type checking included."""
    package, names = file.relative_to(REPOSITORY).parts[:-1], set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            home = [*package[: len(package) - node.level + 1]] if node.level else []
            home += [node.module] if node.module else []
            names |= {".".join([*home, alias.name]) for alias in node.names}
    return names


def parts_of(file: Path, package: str) -> set[str]:
    """The parts of a package that a file imports."""
    names = [name.split(".") for name in imported(file) if name.startswith(f"{package}.")]
    return {parts[1] for parts in names} - {"__version__"}


def runs(code: str) -> None:
    """Run code in a fresh interpreter; its last lines are the failure's message."""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


CORE_FILES = sorted(CORE.rglob("*.py"))
UI_FILES = sorted(UI.rglob("*.py"))
LAB_FILES = sorted(LAB.rglob("*.py"))


@pytest.mark.parametrize("part", [*sorted({part for names in ORDER for part in names})])
def test_each_part_uses_only_earlier_parts(part: str):
    files = [CORE / f"{part}.py", *sorted((CORE / part).rglob("*.py"))]
    files = [file for file in files if file.is_file()]
    assert files, f"{part} stands in ORDER and is not there"
    for file in files:
        for there in sorted(parts_of(file, "ramole_core")):
            assert rank(there) <= rank(part), f"{file}: {part} may not import {there}; see ORDER"


def test_each_part_has_a_place():
    parts = {file.relative_to(CORE).parts[0].removesuffix(".py") for file in CORE_FILES}
    for part in parts - {"__init__"}:  # the public names come from everywhere; they load on use
        rank(part)


def test_the_core_reads_no_pickle_and_no_page():
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "gradio", "plotly", "ui", "app"}
    for file in CORE_FILES:
        used = {name.split(".")[0] for name in imported(file)} & banned
        assert not used, f"{file} imports {used}"
        for node in nodes(file):
            if isinstance(node, ast.Attribute) and node.attr in ("load", "hub"):
                line = f"{file}: {node.lineno}"
                assert ast.unparse(node) not in ("torch.load", "torch.hub"), line
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
                assert ast.unparse(node.value) == "False", f"{file}: {node.arg} must be False"
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            assert not future, f"{file}: __future__ imports switch the shape checks off"


def test_who_may_import_the_laboratory_and_ray():
    files = [*CORE_FILES, *UI_FILES, REPOSITORY / "app.py"]
    users = {package: set() for package in ("lab", "ray")}
    for file in files:
        for top in {name.split(".")[0] for name in imported(file)} & users.keys():
            users[top].add(file.relative_to(REPOSITORY).as_posix())
    serving = ("app", "running", "ray_fleet", "ray_page", "ray_router")
    assert users["lab"] == {"ramole_core/cli/laboratory.py"}
    assert users["ray"] == {f"ramole_core/serving/{name}.py" for name in serving}


def test_the_page_uses_only_public_names():
    import ramole_core

    for file in UI_FILES:
        for name in imported(file):
            if name.split(".")[0] == "ramole_core":
                wanted = name.removeprefix("ramole_core.")
                assert wanted in ramole_core.__all__, (
                    f"{file} imports {name}; the page takes public names from ramole_core itself"
                )


def test_each_room_of_the_page_uses_only_earlier_rooms():
    for file in UI_FILES:
        here = file.relative_to(UI).parts[0].removesuffix(".py")
        for there in sorted(parts_of(file, "ui") - {here}):
            assert rank(there, ROOMS) < rank(here, ROOMS), (
                f"{file}: {here} may not import {there}; see ROOMS"
            )


def test_the_core_does_not_need_a_page():
    runs(
        """
import sys
sys.modules.update(dict.fromkeys(["gradio", "gradio_client", "plotly", "ui", "app"]))  # None: fails
import ramole_core
for name in ramole_core.__all__:
    getattr(ramole_core, name)
"""
    )


def test_the_first_imports_are_light():
    """Page and command line are there before PyTorch is imported; kernels compile while pip still
    fetches the other packages."""
    runs(
        """
import importlib, sys
heavy = {"ray", "torch", "transformers", "sentence_transformers", "chromadb", "peft"}
from ramole_core.cli import main
assert main(["--help"]) == 0
assert not (heavy | {"gradio", "numba", "pandas", "scipy"}) & set(sys.modules)
for name in "ramole_core.base.fetch", "ramole_core.base.files", "ui", "app":
    importlib.import_module(name)
    assert not heavy & set(sys.modules), (name, heavy & set(sys.modules))
"""
    )
    runs(
        """
import sys
late = ["transformers", "accelerate", "peft", "gradio", "chromadb", "huggingface_hub", "pandas"]
sys.modules.update(dict.fromkeys([*late, "typer", "rich", "httpx", "fastapi"]))  # None: fails
import ramole_core.kernels.all
"""
    )
