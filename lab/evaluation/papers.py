"""What papers claim of their methods, beside the same comparison on this pool.

    python -m lab papers

A claim of `claims.json` says that one system is ahead of another in a situation, behind it, or
level with it. The difference is paired by row, with the 95 % interval of drawing tasks again. A
claim holds (`same`) where the interval is on its side of 0, or, where level is claimed, above
-LEVEL; it does not (`other`) where the interval is on the other side; else this is `unclear`.
Systems are read from the cells of an evaluation (`FILE:SYSTEM`, methods_dev unless said), or a
difference from the table of another measurement.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lab import harness
from lab.evaluation.intervals import Interval, bootstrap_groups
from ramole_core.errors import RamoleError

CLAIMS = Path(__file__).with_name("claims.json")
FILE = "methods_dev"
"""Where a system is read from that names no file."""
LEVEL = 3.0
"""Points of score: a system that is behind by less, whichever tasks are drawn, is level."""
SAME, OTHER, UNCLEAR = "same", "other", "unclear"
Claim = Mapping[str, Any]


def main(out: harness.Out = harness.RESULTS / "papers.json") -> None:
    """Compare each claim with the measured cells."""
    claims = json.loads(CLAIMS.read_text("utf-8"))
    rows = [judged(claim, out.parent) for claim in claims]
    read = sorted({file for claim in claims for file in files_of(claim)})
    held = {
        file: harness.checksum(out.parent / file) for file in read if (out.parent / file).is_file()
    }
    harness.Results(out, level=LEVEL, files=held).write(claims=rows)
    for row in rows:
        print(f"{row['method']:12} {row.get('verdict', 'not measured'):12} {row['says']}")


def judged(claim: Claim, folder: Path) -> dict[str, Any]:
    """The claim with its difference here and a verdict; as it is where a side was not measured."""
    gap = of_table(claim["table"], folder) if "table" in claim else of_cells(claim, folder)
    if gap is None:
        return dict(claim)
    return {**claim, **gap.rounded(2), "verdict": verdict(claim["claimed"], gap)}


def verdict(claimed: str, gap: Interval) -> str:
    """What the interval of a difference says of a claim: `ahead`, `behind` or `level`."""
    if claimed == "level":
        return SAME if gap.low > -LEVEL else OTHER if gap.high < 0 else UNCLEAR
    low, high = (gap.low, gap.high) if claimed == "ahead" else (-gap.high, -gap.low)
    return SAME if low > 0 else OTHER if high < 0 else UNCLEAR


def files_of(claim: Claim) -> list[str]:
    """The files of results that a claim's difference is read from."""
    if "table" in claim:
        return [claim["table"][0]]
    return [archive_of(claim[side]) for side in ("ours", "rival")]


def archive_of(system: str) -> str:
    """The cells' file of `FILE:SYSTEM`, or of a SYSTEM of methods_dev."""
    return f"{system.rpartition(':')[0] or FILE}_cells.json.gz"


def of_cells(claim: Claim, folder: Path) -> Interval | None:
    """Ours minus the rival, over the tasks that both have; None where there is none."""
    ours, rival = (scores(claim[side], claim["situation"], folder) for side in ("ours", "rival"))
    check_alike(*(archive_of(claim[side]) for side in ("ours", "rival")), folder=folder)
    names = [name for name in ours if name in rival]
    if not names:
        return None
    gaps = [np.subtract(ours[name], rival[name]).tolist() for name in names]
    tasks = [name for name, each in zip(names, gaps, strict=True) for _ in each]
    return bootstrap_groups([gap for each in gaps for gap in each], tasks)


def scores(system: str, situation: str, folder: Path) -> dict[str, Sequence[float]]:
    """A system's strict scores by task."""
    name = system.rpartition(":")[2]
    cells = read_archive(folder / archive_of(system)).get("cells", {})
    places = (situation, "alone")  # of a system that retrieves nothing
    found = {
        task: cell["strict"]
        for place in places
        for key, cell in cells.items()
        for where, who, task in [key.split("/")]
        if where == place and who == name
    }
    return dict(sorted(found.items()))


def check_alike(one: str, other: str, *, folder: Path) -> None:
    """Raise RamoleError where two archives are of other rows, weights or code; k may differ."""
    facts = [read_archive(folder / name).get("facts", {}) for name in (one, other)]
    if all(facts) and (
        names := [
            n for n in {**facts[0], **facts[1]} if n != "k" and facts[0].get(n) != facts[1].get(n)
        ]
    ):
        raise RamoleError(
            f"{one} and {other} differ in {', '.join(names)}, so their rows cannot be paired; "
            "measure both alike."
        )


@lru_cache
def read_archive(archive: Path) -> Mapping[str, Any]:
    """The facts and cells of an evaluation; nothing where it is not there."""
    return json.loads(gzip.decompress(archive.read_bytes())) if archive.is_file() else {}


def of_table(path: Sequence[str], folder: Path) -> Interval | None:
    """The difference that stands in a results file below these keys; None where there is none."""
    file, *keys = path
    held = json.loads((folder / file).read_text("utf-8")) if (folder / file).is_file() else {}
    for key in keys:
        held = held.get(key) or {}
    return Interval(held["mean"], held["low"], held["high"]) if held else None
