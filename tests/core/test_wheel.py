"""An installed wheel: every file that the packages read, the console script, the sample pool."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ramole_core import __version__

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("ramole_core", "ui", "lab")
ADAPTER = "sms_spam"
"""The one of the pool that this wheel has, beside what is trained for all."""


def run(*words: str, folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what a wheel is built from."""
    root = tmp_path_factory.mktemp("wheel") / "source"
    made = shutil.ignore_patterns("__pycache__", ".checkpoint")
    pool = [path.name for path in (REPOSITORY / "adapters").iterdir() if path.is_dir()]
    kept = {ADAPTER, *(name for name in pool if name.startswith("_"))}
    for name in (*PACKAGES, "results", *(f"adapters/{name}" for name in kept)):
        shutil.copytree(REPOSITORY / name, root / name, ignore=made)
    for path in REPOSITORY.iterdir():
        if path.suffix in (".py", ".toml", ".md", ".txt") or path.name == "LICENSE":
            shutil.copy(path, root)
    return root


@pytest.fixture(scope="module")
def site(source) -> Path:
    """The folder into which the wheel is installed."""
    root = source.parent
    pip, alone = (sys.executable, "-m", "pip", "-q"), ("--no-deps", "--no-index")
    run(*pip, "wheel", *alone, "--no-build-isolation", "-w", "wheel", str(source), folder=root)
    (wheel,) = (root / "wheel").glob("*.whl")
    run(*pip, "install", *alone, "--no-compile", "--target", "site", str(wheel), folder=root)
    return root / "site"


def test_it_has_every_file_that_a_package_reads(source, site):
    homes = {"adapters": site / "ramole_core" / "adapters", "results": site / "ramole_core/results"}
    kinds = set()
    for name in (*PACKAGES, *homes):
        for file in (source / name).rglob("*"):
            if file.is_file() and (name != "lab" or file.suffix == ".py"):
                there = homes.get(name, site / name) / file.relative_to(source / name)
                assert there.is_file(), f"{file.relative_to(source)} is left out"
                kinds.add(file.suffix)
    assert {".py", ".css", ".js", ".json", ".safetensors"} <= kinds
    assert (site / "ramole_core" / "py.typed").is_file()


def test_its_console_script_finds_the_sample_pool_from_any_folder(site, tmp_path):
    script = site / "bin" / "ramole"
    environment = os.environ | {"PYTHONPATH": str(site), "RAMOLE_DATA_DIR": str(tmp_path / "data")}
    (tmp_path / "empty").mkdir()

    def ramole(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, str(script), *words],
            cwd=tmp_path / "empty",
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert ramole("--version").split()[-1] == __version__
    assert [card["name"] for card in json.loads(ramole("list", "--json"))["adapters"]] == [ADAPTER]
    assert not any((tmp_path / "empty").iterdir())
