"""Whether the suite catches faults: each of `faults.toml` is put alone into a copy of the tree.

    python -m tests.campaigns.faults [--only NAME] [--first-only] [--json FILE]

A fault is caught where a test fails that passes in a copy without it. The tests in `first` run
before the rest of `folders`. A fault whose text is not there any more does not apply. The command
ends with 1 where one is not caught or does not apply.

To add a fault, write a table in `faults.toml`: one from which a user would suffer, of one to a few
lines, which still compiles.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTEST = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-o", "timeout=300")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+\.py(?:::.+?)?)(?: - .*)?$", re.MULTILINE)
PASSED, CANNOT_RUN, NO_TESTS = 0, 4, 5
"""Exit codes of pytest."""
PACKAGES = ("ramole_core", "ui", "lab", "tests")


@dataclass(frozen=True)
class Fault:
    """A fault of `faults.toml`."""

    name: str
    file: str
    old: str
    new: str
    folders: Sequence[str]
    first: Sequence[str] = ()

    @property
    def compiles_anew(self) -> bool:
        """Whether kernels are compiled anew: their cache goes by the text of these files."""
        return self.file.startswith(("ramole_core/kernels/", "ramole_core/composition/activation"))

    def applied(self, copy: "Copy") -> bool:
        """Put the fault into a copy; False where its text is not there exactly once."""
        path = copy.root / self.file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.count(self.old) != 1:
            return False
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        return True


@dataclass(frozen=True)
class Copy:
    """A copy of the files that Git tracks or would."""

    root: Path
    cache: Path | None = None
    """A folder for its compiled kernels, so that none of a fault stays in the user's."""

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the copy, with the modules of the copy."""
        env = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        if self.cache is not None:
            env["XDG_CACHE_HOME"] = str(self.cache)
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True)

    def failing(self, tests: Sequence[str], *more: str, without: Iterable[str] = ()) -> list[str]:
        """Those of these tests that fail; `more`: further words for pytest. Raises RuntimeError
        where pytest cannot begin."""
        there = [one for one in tests if (self.root / one.partition("::")[0]).exists()]
        left_out = [word for one in without for word in ("--deselect", one)]
        ran = self.run(*PYTEST, *more, *there, *left_out) if there else None
        if ran is None or ran.returncode in (PASSED, NO_TESTS):
            return []
        if ran.returncode == CANNOT_RUN:
            raise RuntimeError(f"pytest cannot run {', '.join(there)}: {ran.stdout}{ran.stderr}")
        return FAILED.findall(ran.stdout) or [f"pytest, which ended with {ran.returncode}"]


class Trial:
    """Tries faults in copies of one tree."""

    def __init__(self, folder: Path):
        """Raises RuntimeError where a copy would test the modules of another tree."""
        self._folder = folder
        self.sound = self._copied("sound")
        asked = "".join(f"import {name}; print({name}.__path__[0]);" for name in PACKAGES)
        ran = self.sound.run("-c", asked)
        if ran.stdout.split() != [str(self.sound.root / name) for name in PACKAGES]:
            raise RuntimeError(f"not the modules of {self.sound.root}: {ran.stdout} {ran.stderr}")

    def search(
        self, fault: Fault, *, first_only: bool, without: Iterable[str]
    ) -> tuple[str, str | None]:
        """The outcome, and the test that catches the fault; those of `without` do not count."""
        with self._faulty(fault) as copy:
            if copy is None:
                return "does not apply", None
            first = [f"tests/{name}" for name in fault.first]
            rest = [] if first_only else [f"tests/{name}" for name in fault.folders]
            for tests, seen in ((first, []), (rest, first)):
                if failed := copy.failing(tests, "-x", without=[*seen, *without]):
                    return "caught", failed[0]
        return "NOT CAUGHT", None

    @contextmanager
    def _faulty(self, fault: Fault) -> Iterator[Copy | None]:
        copy = self._copied("faulty", own_cache=fault.compiles_anew)
        try:
            yield copy if fault.applied(copy) else None
        finally:
            shutil.rmtree(copy.root.parent)

    def _copied(self, name: str, *, own_cache: bool = False) -> Copy:
        root = self._folder / name / "tree"
        asked = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        listed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        for file in filter(None, listed.stdout.split("\0")):
            if (ROOT / file).is_file():  # one that was deleted is listed until it is committed
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, root / file)
        return Copy(root, self._folder / name / "cache" if own_cache else None)


def read_faults() -> list[Fault]:
    """The faults of `faults.toml`."""
    said = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return [Fault(**one) for one in said["fault"]]


def main(said: list[str] | None = None) -> int:
    """The command; `said`: its words, unsaid those of this process."""
    words = argparse.ArgumentParser(prog="python -m tests.campaigns.faults", description=__doc__)
    words.add_argument("--only", help="of faults whose name has these words alone")
    words.add_argument("--first-only", action="store_true", help="only the tests to try first")
    words.add_argument("--json", type=Path, help="the file that takes the outcomes")
    asked = words.parse_args(said)
    faults = [fault for fault in read_faults() if (asked.only or "") in fault.name]
    rows: dict[str, dict[str, object]] = {}
    unsound: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        trial, left = Trial(Path(folder).resolve()), faults
        while left:
            for fault in left:
                began = time.monotonic()
                outcome, test = trial.search(fault, first_only=asked.first_only, without=unsound)
                seconds = round(time.monotonic() - began)
                by = f" by {test}" if test else ""
                print(f"{outcome}: {fault.name}{by}, {seconds} s", flush=True)
                rows[fault.name] = {"outcome": outcome, "test": test, "seconds": seconds}
                if asked.json:
                    asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            tests = {str(row["test"]) for row in rows.values() if row["test"]} - unsound
            unsound |= (failed := {*trial.sound.failing(sorted(tests))})
            left = [fault for fault in faults if rows[fault.name]["test"] in failed]
            for fault in left:
                print(f"{rows[fault.name]['test']} fails without a fault too")
    caught = sum(row["outcome"] == "caught" for row in rows.values())
    print(f"{caught} of {len(faults)} caught")
    return 0 if caught == len(faults) > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
