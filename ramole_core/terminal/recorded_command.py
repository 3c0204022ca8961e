"""The command line as recorded in result files, without this machine's folders."""

import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

PLACES = {"--data": "", "--out": "results", "--work": None}
"""Options that are paths: the folder recorded instead; empty: none, None: left out altogether."""
PRINTED = ("--json", "--overwrite")
"""Flags that change no number, and are left out."""


def recorded_command(module: str) -> str:
    """The running command line of `python -m MODULE`, portable.

    `--data` is recorded by the folder's own name, one task's rows as `FOLDER/TASK`, `--out` as the
    file's name under `results`; `--work`, which only continues a run, is left out.
    """
    return shlex.join(["python", "-m", module, *as_typed(sys.argv[1:])])


def as_typed(given: Iterable[str], places: Mapping[str, str | None] = PLACES) -> list[str]:
    """The words with this machine's folders replaced by `places`."""
    recorded, words = list[str](), iter(given)
    for word in words:
        option, joined, value = word.partition("=")
        if word in PRINTED:
            continue
        if option not in places:
            recorded.append(word)
            continue
        place = places[option]
        value = value if joined else next(words, "")
        if place is not None:
            path = Path(value)
            parent = place or (path.absolute().parent.name if _is_task(path) else "")
            recorded += [option, f"{parent}/{path.name}".lstrip("/")]
    return recorded


def _is_task(data: Path) -> bool:
    """Whether it is one task's rows, and not the folder of all tasks."""
    return data.suffix == ".jsonl" or (data / "train.jsonl").is_file()
