"""The page that runs on a data folder: a small file beside the lock says where it listens.

It is believed while the process that wrote it lives and the folder is locked, so what a kill left
is nothing. Its key lets whoever can read the folder act as the operator: what the command line adds
there stays, as it does where no page runs.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ramole_core.pool.lock import is_locked
from ramole_core.whole_file import replacing

FILE = "page.json"


@dataclass(frozen=True)
class RunningPage:
    """Where a page listens."""

    url: str
    pid: int
    key: str = ""
    """The operator's; empty: there is none."""


def announce_page(data_dir: Path, url: str, key: str = "") -> None:
    """Say that this process has a page on the data folder; its owner alone may read the file.
    Where there is no such folder, nothing is said."""
    if not data_dir.is_dir():
        return
    with replacing(data_dir / FILE) as part:
        part.touch(mode=0o600)
        part.write_text(json.dumps(asdict(RunningPage(url, os.getpid(), key))), encoding="utf-8")


def withdraw_page(data_dir: Path) -> None:
    """The page listens no more."""
    (data_dir / FILE).unlink(missing_ok=True)


def find_page(data_dir: Path) -> RunningPage | None:
    """The page that runs on the data folder; None where none does."""
    try:
        page = RunningPage(**json.loads((data_dir / FILE).read_text(encoding="utf-8")))
        os.kill(page.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return page if is_locked(data_dir) else None
