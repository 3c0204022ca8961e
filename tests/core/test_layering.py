"""Imports run one way: each part may use only the parts named before it."""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.workers import REPOSITORY, python

CORE = REPOSITORY / "ramole_core"
UI = REPOSITORY / "ui"
LAB = REPOSITORY / "lab"

ORDER = (
    (
        "shapes",
        "errors",
        "turns",
        "whole_file",
        "text_file",
        "process_memory",
        "api_keys",
        "settings",
        "methods",
        "contribution",
        "effects",
        "evidence",
        "answer",
        "request_parts",
        "request_fields",
        "sampling",
        "request_check",
        "request",
    ),
    ("composition",),
    ("kernels",),
    ("base",),
    ("pool",),
    ("retrieval",),
    ("hub",),
    ("layers",),
    ("engine",),
    ("mixes",),
    ("selection",),
    (
        "prepack",
        "own_model",
        "weights_here",
        "explaining",
        "opened_pool",
        "ramole",
        "running_page",
        "facts",
        "trace_file",
        "trace_check",
        "adapter_similarity",
    ),
    ("terminal",),  # what commands read and print; the parts below have commands
    ("batch", "training", "export", "serving"),
    ("cli", "__main__"),
)


ROOMS = (
    ("gradio_home", "gradio_import"),  # what comes before Gradio
    ("watch",),  # what happened, told by every room
    ("parts",),
    ("charts", "model", "session"),
    ("ask", "compare", "inspect", "batch", "pool", "results"),  # no tab needs another
    ("learn",),  # but the textbook, which tells what Results has measured
    ("api", "header", "tabs", "middleware", "shutdown"),
    ("openai",),  # another way to ask what `api` takes
    ("metrics", "health"),
    ("serve",),
    ("__init__",),
    ("program", "mounted"),  # the page as a program, and as another server mounts it
)
"""Of the page: each may use itself and the rooms of earlier lines, none beside it."""


def rank(name: str, order: Sequence[tuple[str, ...]] = ORDER) -> int:
    """The place of a part in ORDER, or of a room in ROOMS; fails for one that has none."""
    for place, names in enumerate(order):
        if name in names:
            return place
    raise AssertionError(f"{name} has no place in ORDER or ROOMS of {__file__}; give it one")


@cache
def nodes(file: Path) -> list[ast.AST]:
    """Everything in a file's syntax tree."""
    return [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]


def imported(file: Path) -> Iterator[str]:
    """Every dotted name that a file imports, inside functions and for type checking included."""
    package = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts[:-1])
    for node in nodes(file):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from names_of(node, package)


def names_of(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """The dotted names that one import statement of a module in `package` names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    home = node.module or ""
    if node.level:
        up = package.split(".")[: len(package.split(".")) - node.level + 1]
        home = ".".join([*up, home] if home else up)
    yield from (f"{home}.{alias.name}" for alias in node.names)


def parts_of(names: Iterator[str]) -> set[str]:
    """The parts of the core among dotted names."""
    parts = {name.split(".")[1] for name in names if name.startswith("ramole_core.")}
    return parts - {"__version__"}


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
        for there in sorted(parts_of(imported(file))):
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


def test_nothing_that_serves_needs_the_laboratory():
    door = CORE / "cli" / "laboratory.py"
    files = [file for file in (*CORE_FILES, *UI_FILES, REPOSITORY / "app.py") if file != door]
    found = {file for file in files if "lab" in {name.split(".")[0] for name in imported(file)}}
    assert not found, f"{found} import lab; only {door} may"


def test_the_laboratory_names_nothing_private():
    """What it takes from the core and the page has a public name."""
    for file in LAB_FILES:
        names = {name for name in imported(file) if name.split(".")[0] in ("ramole_core", "ui")}
        private = {name for name in names if any(part.startswith("_") for part in name.split("."))}
        assert not private, f"{file} imports {private}"
        for node in nodes(file):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                holder, dunder = ast.unparse(node.value), node.attr.startswith("__")
                own = dunder or holder in ("self", "cls")
                assert own, f"{file}: {node.lineno}: {holder}.{node.attr}"


def test_only_the_room_of_many_engines_knows_ray():
    known = {
        file.relative_to(REPOSITORY).as_posix()
        for file in (*CORE_FILES, *UI_FILES, REPOSITORY / "app.py")
        if "ray" in {name.split(".")[0] for name in imported(file)}
    }
    files = ("app", "running", "ray_fleet", "ray_page", "ray_router")
    assert known == {f"ramole_core/serving/{name}.py" for name in files}


def test_the_page_uses_only_public_names():
    import ramole_core

    for file in UI_FILES:
        for name in imported(file):
            if name.split(".")[0] == "ramole_core":
                wanted = name.removeprefix("ramole_core.")
                assert wanted in ramole_core.__all__, (
                    f"{file} imports {name}; the page takes public names from ramole_core itself"
                )


def rooms_of(names: Iterator[str]) -> set[str]:
    """The rooms of the page among dotted names."""
    return {name.split(".")[1] for name in names if name.startswith("ui.")}


def test_each_room_of_the_page_uses_only_earlier_rooms():
    for file in UI_FILES:
        here = file.relative_to(UI).parts[0].removesuffix(".py")
        for there in sorted(rooms_of(imported(file)) - {here}):
            assert rank(there, ROOMS) < rank(here, ROOMS), (
                f"{file}: {here} may not import {there}; see ROOMS"
            )


def imports_at_run_time(tree: ast.AST, package: str) -> Iterator[str]:
    """Every dotted name that a module imports when it is loaded or run, not for type checking."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports_at_run_time(other, package)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from names_of(node, package)
        else:
            yield from imports_at_run_time(node, package)


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports, by dotted name; `sources` also holds packages, by
    `package.__init__`. That a module's own packages are loaded before it is no import."""
    graph = {}
    for module, text in sources.items():
        package = module.rpartition(".")[0]
        found = set()
        for name in imports_at_run_time(ast.parse(text), package):
            near = (name, f"{name}.__init__", name.rpartition(".")[0])
            there = (*near, f"{near[-1]}.__init__")
            found |= {next((n for n in there if n in sources), module)}
        graph[module] = found - {module}
    return graph


def test_no_two_modules_import_each_other():
    """Not even inside a function, by way of a third module."""
    sources = {
        ".".join(file.relative_to(REPOSITORY).with_suffix("").parts): file.read_text("utf-8")
        for file in (*CORE_FILES, *UI_FILES)
    }
    graph = import_graph(sources)
    assert sum(map(len, graph.values())) > 300, "few imports were found"
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules


@pytest.mark.parametrize("way", ["from p.a import x", "import p.a", "from . import a"])
def test_circles_are_seen(way):
    """Inside a function, and by a package's own name; not where types alone are imported."""
    sources = {"p.__init__": "from p.a import x\n", "p.a": "def f():\n    from .b import x\n"}
    types = {**sources, "p.b": f"if TYPE_CHECKING:\n    {way}\n"}
    TopologicalSorter(import_graph(types)).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph({**sources, "p.b": way})).prepare()


def test_the_core_does_not_need_a_page():
    runs(
        """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(["gradio", "gradio_client", "plotly", "ui", "app"]))  # None: fails
import ramole_core
for m in pkgutil.walk_packages(ramole_core.__path__, "ramole_core."):
    if not m.name.endswith("__main__"):
        importlib.import_module(m.name)
for name in ramole_core.__all__:
    getattr(ramole_core, name)
"""
    )


HEAVY = [
    "ray",
    "torch",
    "transformers",
    "sentence_transformers",
    "chromadb",
    "bitsandbytes",
    "peft",
]


LIGHT = (
    "ramole_core.base.fetch",
    "ramole_core.base.files",
    "ramole_core.cli",
    "ui",
    "app",
)


def test_the_door_opens_before_torch_is_imported():
    """One after the other, those that import less first."""
    runs(
        f"""
import importlib, sys
for name in {LIGHT}:
    importlib.import_module(name)
    heavy = set({HEAVY}) & set(sys.modules)
    assert not heavy, (name, heavy)
"""
    )


def test_gradio_is_imported_without_its_stubs_for_editors():
    """A Gradio that writes them elsewhere fails here, or a start would take two seconds more."""
    runs(
        """
import ast, runpy
class Read(Exception): pass
def read(*_): raise Read
ast.get_source_segment = read
import ui
import gradio as gr
written = runpy.run_path(gr.component_meta.__file__)["create_or_modify_pyi"]
try:
    written(gr.Textbox, "Textbox", [])
except Read:
    pass
else:
    raise AssertionError("Gradio reads no sources any more: ui/gradio_import.py can go")
"""
    )


def test_every_file_says_its_idea():
    for file in (*CORE_FILES, *UI_FILES, REPOSITORY / "app.py"):
        words = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        assert words, f"{file} has no docstring"


def test_the_checks_see_what_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = REPOSITORY / "ramole_core" / "pool" / "imagined.py"
    code = "def f():\n    from ..engine import x\n    import ramole_core.pool.card, pickle\n"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: code)
    assert parts_of(imported(file)) == {"engine", "pool"}
    assert "pickle" in set(imported(file))
    nodes.cache_clear()
    code = "from ..session.owner import owner_of\nfrom .form import Form\nfrom .. import serve\n"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: code)
    assert rooms_of(imported(UI / "ask" / "imagined.py")) == {"session", "ask", "serve"}
    for order, names in (
        (ROOMS, ("charts", "ask", "api", "serve")),
        (ORDER, ("base", "pool", "engine", "training", "cli")),
    ):
        places = [rank(name, order) for name in names]
        assert places == sorted(set(places))
        with pytest.raises(AssertionError, match="helpers has no place in ORDER or ROOMS"):
            rank("helpers", order)
    nodes.cache_clear()
