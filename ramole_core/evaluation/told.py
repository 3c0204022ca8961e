"""The command behind a file of figures, as anyone may type it."""

import shlex
import sys
from pathlib import Path

PLACES = {"--data": "data", "--out": "results", "--work": None}
"""Options that say where something lies: the folder they are told with; None: not told."""


def command_told(module: str) -> str:
    """The running command line of `python -m MODULE`, without where folders lie on this machine.

    `--data` is told as `data`, `--out` as the file's name under `results`; `--work`, which only
    says where to go on from, is left out.
    """
    told, words = ["python", "-m", module], iter(sys.argv[1:])
    for word in words:
        option, joined, value = word.partition("=")
        if option not in PLACES:
            told.append(word)
            continue
        place = PLACES[option]
        value = value if joined else next(words, "")
        if place is not None:
            told += [option, place if option == "--data" else f"{place}/{Path(value).name}"]
    return shlex.join(told)
