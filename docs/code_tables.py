"""Tables drawn from the code: rooms, files, methods, settings and commands, in their own words."""

import ast
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import typer

from docs.method_pages import home_of
from ramole_core.cli import app
from ramole_core.methods import METHOD_LIST
from ramole_core.settings import Settings
from tests.support.tiny_bases import BASES, REASONS, SKIPPED
from ui.middleware.routes import listed, rules

ORDER = "base pool retrieval hub composition kernels layers engine selection training batch cli"
"""The rooms of the core in the order in which a request and its makers meet them."""

OTHERS = {
    "adapters/": "the sample pool: a folder an adapter, `_router`, `_retriever`, `_base` beside",
    "docs/": "pages, pictures, and the scripts that make them and their tables",
    "results/": "measured tables",
    "tests/": "oracles, laws, hostile files, the page in a real browser",
    "Makefile": "every task; `make` prints them",
    "requirements.txt": "what running needs, each line with its reason",
    "requirements-dev.txt": "what tests and checks need beside it; `-lab` and `-serve` likewise",
    "constraints.txt": "the versions that the suite passed with, by `make constraints`",
    "setup.py": "what a wheel holds: code, and the sample pool and results as data",
    "pyproject.toml": "the package and its extras; settings of ruff, pyright and pytest",
    "Dockerfile": "the page in a container",
    ".ci/run": "what must pass before a change lands",
    "CONTRIBUTING.md": "how to add a method, and how the house works",
    "LOG.md": "dated experiments with numbers, failures included",
}


def rooms(repository: Path) -> str:
    """One line a room: folder, and the first sentence of its docstring; the small room at the
    terminal stands with the command line."""
    core = repository / "ramole_core"
    known = {folder.parent.name for folder in core.glob("*/__init__.py")}
    order = [name for name in ORDER.split() if name in known]
    folders = [core / name for name in [*order, *sorted(known - set(order) - {"terminal"})]]
    rows = [
        (folder, folder.relative_to(repository))
        for folder in [*folders, repository / "ui", repository / "lab"]
    ]
    text = "\n".join(f"- `{name}/` - {_phrase(folder / '__init__.py')}" for folder, name in rows)
    return text.replace("`ramole_core/cli/`", "`ramole_core/cli/` (and `terminal/`)")


def tree(repository: Path) -> str:
    """Every file of the program with the first sentence of its docstring."""
    rows: list[tuple[str, str]] = [("app.py", _phrase(repository / "app.py"))]
    for package in ("ramole_core", "ui", "lab"):
        rows += _folder(repository / package, depth=0)
    rows += OTHERS.items()
    width = max(len(name) for name, _ in rows)
    return "\n".join(["```", *(f"{name:<{width}}  {phrase}" for name, phrase in rows), "```"])


def methods() -> str:
    """One row a method, linked to the one file that holds its equation."""
    rows = ["| method | from | what it does |", "|---|---|---|"]
    for row in METHOD_LIST:
        link = f"[`{row.name}`](../{home_of(row.name)})"
        rows.append(f"| {link} | {row.paper} | {row.summary} |")
    return "\n".join(rows)


def settings(repository: Path) -> str:
    """One row a setting: variable, default, meaning."""
    meanings = dict(_attribute_docstrings(repository / "ramole_core" / "settings.py", "Settings"))
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{_portable(field.default, repository)}`"
        rows.append(f"| `RAMOLE_{name.upper()}` | {default} | {meanings[name]} |")
    return "\n".join(rows)


def commands() -> str:
    """Each command with its arguments and options, as its `--help` has them."""
    return "\n\n".join(_commands(typer.main.get_command(app), "python -m ramole_core"))


def _commands(command: "typer.core.TyperCommand", words: str) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    for name in sorted(inner):
        yield from _commands(inner[name], f"{words} {name}")
    if not inner:
        rows = [f"#### `{words}`", "", command.help or "", ""]
        rows += ["| argument or option | default | meaning |", "|---|---|---|"]
        for one in command.params:
            if one.name != "help":
                said = ", ".join(f"`{word}`" for word in one.opts)
                meaning = _cell(getattr(one, "help", None) or "")
                rows.append(f"| {said} | {_default(one)} | {meaning} |")
        yield "\n".join(rows)


def _default(one: "typer.core.TyperOption | typer.core.TyperArgument") -> str:
    if one.required:
        return "required"
    return "" if one.default is None or one.default is False else f"`{one.default}`"


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


def _folder(folder: Path, *, depth: int) -> Iterator[tuple[str, str]]:
    yield "  " * depth + folder.name + "/", _phrase(folder / "__init__.py")
    for file in sorted(folder.iterdir()):
        if file.suffix in (".py", ".css", ".js") and file.name != "__init__.py":
            yield "  " * (depth + 1) + file.name, _phrase(file)
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").is_file():
            yield from _folder(inner, depth=depth + 1)


def _phrase(file: Path) -> str:
    """The first sentence of a file's docstring, or of the comment that it begins with."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        words = ast.get_docstring(ast.parse(text)) or ""
    elif file.suffix == ".js":
        lines = takewhile(lambda line: line.startswith("//"), text.splitlines())
        words = " ".join(line.lstrip("/ ") for line in lines)
    else:
        words = text.partition("*/")[0].replace("/*", "")
    paragraph = " ".join(words.strip().partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?]) (?=[A-Z`])", paragraph)[0].rstrip(".")
    if not sentence:
        raise ValueError(f"{file} does not say its idea; begin it with a sentence that does.")
    return sentence


def _attribute_docstrings(file: Path, class_name: str) -> Iterator[tuple[str, str]]:
    """The string under each field of a class, by the field's name."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for field, words in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    assert isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant)
                    yield field.target.id, " ".join(str(words.value.value).split())


def _portable(value: object, repository: Path) -> str:
    """A default without this machine's own folders."""
    if not isinstance(value, Path):
        return str(value)
    if value.is_relative_to(repository):
        return f"{value.relative_to(repository)}/"
    return (
        f"~/{value.relative_to(Path.home())}" if value.is_relative_to(Path.home()) else str(value)
    )


def routes() -> str:
    """Every route that is served, with its limits: the table that the middleware works from."""
    head = ["route", "method", "for", "body", "at once", "without a password", "answers"]
    rows = [head, ["---"] * len(head), *listed(rules(Settings().max_upload_mb))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def bases() -> str:
    """Which families of transformers are served, to the bit or within rounding, and which not."""
    found: dict[str, list[str]] = {"exact": [], "rounded": []}
    refused: dict[str, list[str]] = {}
    for name, row in BASES.items():
        if row.verdict == "refused":
            refused.setdefault(REASONS.get(row.reason, row.reason), []).append(name)
        else:
            found[row.verdict].append(name)
    lines = ["| families (`model_type`) | served |", "|---|---|"]
    lines.append(f"| {_named(found['exact'])} | to the bit what a request gets alone, on a CPU |")
    lines.append(
        f"| {_named(found['rounded'])} | within rounding: PyTorch takes experts together |"
    )
    lines += [f"| {_named(names)} | refused: {reason} |" for reason, names in refused.items()]
    lines += [
        f"| {_named(names)} | not tried here: {what}; decided at a load |"
        for what, names in SKIPPED.items()
    ]
    return "\n".join(lines)


def _named(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names))
