"""Run the long campaigns: `python -m tests.campaigns.long [NAME ...] [--changed]`.

A campaign takes minutes and covers some folders of the product. When it passes, `passed.json` keeps
a digest of the files that it covers; with `--changed`, a campaign whose files have that digest is
not run again.
"""

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.workers import REPOSITORY

PASSED = Path(__file__).with_name("passed.json")
CORE = ("ramole_core/engine", "ramole_core/layers", "ramole_core/kernels")
PAGE = ("ui", "ramole_core/pool")


@dataclass(frozen=True)
class Campaign:
    """What it covers, and the words after `python -m` that run it."""

    covers: tuple[str, ...]
    """Folders and files, from the repository's root."""
    words: str
    variables: tuple[tuple[str, str], ...] = ()


CAMPAIGNS = {
    "schedules": Campaign(
        (*CORE, "ramole_core/composition"),
        "pytest -n 2 --dist loadfile -q tests/laws/test_exact.py tests/laws/test_exact_real.py "
        "tests/laws/test_effects.py",
        (("RAMOLE_SCHEDULES", "1"),),
    ),
    "uploads": Campaign(PAGE, "tests.campaigns uploads --count 2000"),
    "disk": Campaign(("ramole_core/pool",), "tests.campaigns disk --count 40"),
    "siege": Campaign(("ui",), "tests.campaigns siege --page-alone --count 10"),
    "requests": Campaign(("ui", "ramole_core/request.py"), "tests.campaigns requests --count 2000"),
    "load": Campaign((*CORE, "ui"), "tests.campaigns.load --minutes 2"),
    "faults": Campaign(("tests",), "tests.campaigns.faults"),
}


def digest_of(campaign: Campaign) -> str:
    """The digest of the tracked files that a campaign covers."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *campaign.covers],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = hashlib.sha256()
    for name in filter(None, listed.split("\0")):
        if name != str(PASSED.relative_to(REPOSITORY)) and (REPOSITORY / name).is_file():
            found.update(f"{name}\0".encode() + (REPOSITORY / name).read_bytes())
    return found.hexdigest()[:16]


def read_passed() -> dict[str, str]:
    return json.loads(PASSED.read_text()) if PASSED.is_file() else {}


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m tests.campaigns.long", description=__doc__)
    words.add_argument("names", nargs="*", help=f"of {', '.join(CAMPAIGNS)}; all where none is")
    words.add_argument("--changed", action="store_true", help="those whose files have changed")
    given = words.parse_args()
    if unknown := set(given.names) - set(CAMPAIGNS):
        words.error(f"no campaign is named {', '.join(unknown)}; there are {', '.join(CAMPAIGNS)}")
    failed = []
    for name in given.names or CAMPAIGNS:
        campaign, before = CAMPAIGNS[name], read_passed()
        digest = digest_of(campaign)
        if given.changed and before.get(name) == digest:
            print(f"{name}: its files are those that it passed with", flush=True)
            continue
        print(f"{name}: python -m {campaign.words}", flush=True)
        began = time.monotonic()
        status = subprocess.run(
            [sys.executable, "-m", *shlex.split(campaign.words)],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(campaign.variables),
        ).returncode
        print(f"{name}: status {status} after {time.monotonic() - began:.0f} s", flush=True)
        if status:
            failed.append(name)
        else:
            PASSED.write_text(json.dumps(read_passed() | {name: digest}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
