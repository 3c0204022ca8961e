"""The command line that a file of figures records, without this machine's folders."""

import shlex
import sys
from pathlib import Path

PLACES = {"--data": "data", "--out": "results", "--work": None}
"""Options that say where something lies: the folder recorded instead; None: left out."""
PRINTED = ("--json",)
"""Flags that only say what is printed: left out."""


def recorded_command(module: str) -> str:
    """The running command line of `python -m MODULE`, as anyone may type it.

    `--data` is recorded as `data`, `--out` as the file's name under `results`; `--work`, which only
    says where to go on from, is left out.
    """
    recorded, words = ["python", "-m", module], iter(sys.argv[1:])
    for word in words:
        option, joined, value = word.partition("=")
        if word in PRINTED:
            continue
        if option not in PLACES:
            recorded.append(word)
            continue
        place = PLACES[option]
        value = value if joined else next(words, "")
        if place is not None:
            recorded += [option, place if option == "--data" else f"{place}/{Path(value).name}"]
    return shlex.join(recorded)
