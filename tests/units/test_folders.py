"""What each folder of tests holds on to: behaviour by public names, or one module's internals.

Tests outside `units/` and `campaigns/` use what users have: the names of `ramole_core`, the
contract of composition, HTTP, the command line and files on disk. `private_imports.txt` lists the
files that still import more, each with the number of its imports that do. The list may only become
shorter.
"""

import ast
from pathlib import Path

from tests.conftest import LONGEST, SLOW
from tests.support.workers import REPOSITORY

TESTS = REPOSITORY / "tests"
LISTED = TESTS / "private_imports.txt"
INSIDE = ("units", "campaigns", "clients")
"""Folders that may import internals, or that import nothing of the project."""
PUBLIC = {"ramole_core", "ramole_core.composition", "ui", "lab"}
MAX_UNITS = 40
MAX_LISTED = 182


def private_imports(file: Path) -> int:
    """How many imports of a test file name a module that is not public."""
    count = 0
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        count += sum(
            name.split(".")[0] in ("ramole_core", "ui", "lab") and name not in PUBLIC
            for name in names
        )
    return count


def found() -> dict[str, int]:
    """The files that import internals, by their path in tests/."""
    files = [file.relative_to(TESTS) for file in sorted(TESTS.rglob("*.py"))]
    counts = {str(one): private_imports(TESTS / one) for one in files if one.parts[0] not in INSIDE}
    return {name: count for name, count in counts.items() if count}


def test_only_the_listed_files_import_internals():
    lines = [line.split() for line in LISTED.read_text(encoding="utf-8").splitlines()]
    listed = {name: int(count) for count, name in lines}
    now = found()
    more = {name: count for name, count in now.items() if count > listed.get(name, 0)}
    assert not more, f"these import internals, and more of them than listed: {more}"
    fewer = {name for name, count in listed.items() if count > now.get(name, 0)}
    assert not fewer, f"these import fewer now; shorten {LISTED.name}: {fewer}"
    assert len(listed) <= MAX_LISTED, "the list may only become shorter"


def test_few_files_are_of_internals():
    units = [*(TESTS / "units").glob("test_*.py")]
    assert 10 < len(units) <= MAX_UNITS


def test_the_files_that_take_long_are_there():
    names = (*LONGEST, *SLOW)
    assert len(set(names)) == len(names)
    assert [name for name in names if not (TESTS / f"{name}.py").is_file()] == []


def test_an_internal_import_is_seen(tmp_path):
    file = tmp_path / "test_x.py"
    file.write_text(
        "from ramole_core import Request\nimport ramole_core.pool.card\n"
        "def f():\n    from ui.serve import serve\n    from ramole_core.composition import Gate\n"
    )
    assert private_imports(file) == 2
