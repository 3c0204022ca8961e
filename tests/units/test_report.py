"""The second try of a browser test that failed: what it forgives, and what stays a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.report import MAX_FLAKY
from tests.support.workers import REPOSITORY

FLAKY = """
from pathlib import Path
def test_{n}():
    mark = Path("mark{n}")
    if not mark.exists():
        mark.touch()
        raise AssertionError("the first time")
"""
BROKEN = "def test_broken():\n    raise AssertionError('each time')\n"


def run(folder: Path, files: dict[str, str]) -> tuple[int, str]:
    """Exit status and output of a small suite with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    words = "-m pytest -p tests.support.report -p no:cacheprovider --second-try tests".split()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({"tests/browser/test_a.py": FLAKY.format(n=1)}, 0, "1 flaky"),
        ({"tests/page/test_a.py": FLAKY.format(n=1)}, 1, "1 failed"),
        ({"tests/browser/test_a.py": BROKEN}, 1, "1 failed"),
        (
            {"tests/browser/test_a.py": FLAKY.format(n=1), "tests/page/test_b.py": BROKEN},
            1,
            "1 failed, 1 flaky",
        ),
        (
            {f"tests/browser/test_{n}.py": FLAKY.format(n=n) for n in range(MAX_FLAKY + 1)},
            1,
            f"more than {MAX_FLAKY} are a failure",
        ),
    ],
    ids=["browser", "page", "twice", "another", "many"],
)
def test_a_second_try_forgives_few_browser_tests_and_nothing_else(tmp_path, files, status, words):
    found, output = run(tmp_path, files)
    assert (found, words in output) == (status, True), output
    assert ("flaky: failed among others" in output) == ("flaky" in words or "more" in words)
