"""Find the page that runs on a data folder, by a small file beside the lock.

It is valid while the process that wrote it lives and the folder is locked, so a kill leaves no
valid one. Its key lets a reader of the folder act as the operator: what the command line adds there
stays, as it does where no page runs.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ramole_core.pool.disk import is_locked
from ramole_core.whole_file import replacing

FILE = "page.json"


@dataclass(frozen=True)
class RunningPage:
    """The address of a page."""

    url: str
    pid: int
    key: str = ""
    """The operator's; empty: there is none."""


def announce_page(data_dir: Path, url: str, key: str = "") -> None:
    """Write the address of this process's page into the data folder, readable by its owner alone;
    nothing where there is no such folder."""
    if not data_dir.is_dir():
        return
    with replacing(data_dir / FILE) as part:
        part.touch(mode=0o600)
        part.write_text(json.dumps(asdict(RunningPage(url, os.getpid(), key))), encoding="utf-8")


def withdraw_page(data_dir: Path) -> None:
    """Remove the address of a page that has ended."""
    (data_dir / FILE).unlink(missing_ok=True)


def find_page(data_dir: Path) -> RunningPage | None:
    """The page that runs on the data folder; None where none does."""
    try:
        page = RunningPage(**json.loads((data_dir / FILE).read_text(encoding="utf-8")))
        os.kill(page.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return page if is_locked(data_dir) else None
