"""The index deleted, cut and flipped: it is made anew, finds what it found, and ends no process.

A third of the damage is done to an index that was closed, a third to one that a kill left, and a
third under a process that has it open.
"""

import json
import random
import shutil
import time
from pathlib import Path

import chromadb  # noqa: F401 once, for all children

from ramole_core.retrieval.examination import MARK
from ramole_core.retrieval.index import AdapterIndex
from ramole_core.retrieval.retriever import Retriever
from tests.campaigns.brute_force import nearest
from tests.campaigns.children import awaited, forked
from tests.campaigns.figures import Figures
from tests.retrieval_fakes import FakeCard, FakeEncoder, FakePool

ADAPTERS = 1100
"""So many that Chroma has a graph on disk."""
ASKED = [f"question {n}" for n in range(12)]
K = 7
SECONDS = 300
"""More than a rebuild takes; longer is a hang."""
DAMAGES = ("delete all", "delete one", "cut", "flip one", "flip many", "zeros", "noise")
STATES = ("closed", "killed", "open")


def run(root: Path, *, count: int, seed: int, end: float = float("inf")) -> Figures:
    """`count` damages, each to a copy of one index."""
    figures = Figures(("processes_ended", "exceptions", "hangs", "other_neighbours", "not_mended"))
    child = forked(lambda: Searched(root / "whole").close(), root / "said")
    assert awaited(child, seconds=SECONDS) == 0, (root / "said").read_text()
    expected = [nearest(FakeEncoder(), cards(), text, K) for text in ASKED]
    slowest = 0.0
    for number in range(count):
        if time.monotonic() > end:
            break
        dice = random.Random(f"{seed}.{number}")
        state, damage = STATES[number % 3], dice.choice(DAMAGES)
        folder = root / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / "whole", folder)
        what = f"number {number}, {state}, {damage}"
        began = time.monotonic()
        child = forked(lambda: met(folder, state, damage, dice), root / "said")  # noqa: B023
        status = awaited(child, seconds=SECONDS)
        slowest = max(slowest, time.monotonic() - began)
        figures.counts["mishaps"] += 1
        figures.counts[f"{damage}, {state}"] += 1
        if status is None:
            figures.failed("hangs", what)
        elif status < 0:
            figures.failed("processes_ended", f"{what}: signal {-status}")
        elif status:
            figures.failed("exceptions", f"{what}: {(root / 'said').read_text()}")
        else:
            told = json.loads((root / "said").read_text())
            figures.counts["made anew"] += bool(told["rebuilt"])
            if any(found != expected for found in told["found"]):
                figures.failed("other_neighbours", what)
            if told["again"]:
                figures.failed("not_mended", f"{what}: {told['again']}")
    figures.measures = {"adapters": ADAPTERS, "slowest_seconds": round(slowest, 1)}
    return figures


class Searched:
    """An index over the same adapters each time, checked."""

    def __init__(self, folder: Path):
        self.pool = FakePool()
        self.pool.held = {card.key: card for card in cards()}
        self.retriever = Retriever(
            pool=self.pool, encoder=FakeEncoder(), index=AdapterIndex(data_dir=folder)
        )
        self.pool.listeners.append(self.retriever)
        self.report = self.retriever.check()

    def found(self) -> list[list[str]]:
        return [[hit.name for hit in self.retriever.retrieve(text, K)] for text in ASKED]

    def close(self) -> None:
        self.retriever.close()


def met(folder: Path, state: str, damage: str, dice: random.Random) -> dict[str, object]:
    """What a process finds that meets the damage; afterwards the index is whole again."""
    chroma = folder / "chroma"
    if state == "open":
        searched = Searched(folder)
        spoil(chroma, damage, dice)
        found = [searched.found()]
        more = FakeCard("more", texts=("more of it",))
        searched.pool.put(more)
        searched.pool.take(more)
    else:
        spoil(chroma, damage, dice)
        if state == "killed":
            (chroma / MARK).unlink(missing_ok=True)
        searched = Searched(folder)
        found = []
    found.append(searched.found())
    searched.close()
    again = Searched(folder)
    found.append(again.found())
    rebuilt = searched.report.rebuilt or searched.report.added
    told = [str(again.report)] if state != "open" and again.report.added else []
    again.close()
    return {"found": found, "rebuilt": bool(rebuilt), "again": told}


def spoil(chroma: Path, damage: str, dice: random.Random) -> None:
    """Does the damage to the folder's files, or to one of them."""
    files = [path for path in chroma.rglob("*") if path.is_file() and path.name != MARK]
    file = dice.choice(sorted(files, key=lambda path: path.name))  # its folder's name is random
    size = file.stat().st_size
    if damage == "delete all":
        shutil.rmtree(chroma)
    elif damage == "delete one":
        file.unlink()
    elif damage == "cut":
        with file.open("r+b") as opened:
            opened.truncate(dice.randrange(size))
    elif damage.startswith("flip"):
        with file.open("r+b") as opened:
            for _ in range(1 if damage == "flip one" else 100):
                at = dice.randrange(size)
                opened.seek(at)
                (byte,) = opened.read(1)
                opened.seek(at)
                opened.write(bytes([byte ^ 1 << dice.randrange(8)]))
    else:
        length = min(4096, size)
        with file.open("r+b") as opened:
            opened.seek(dice.randrange(max(size // 4096, 1)) * 4096)
            opened.write(bytes(length) if damage == "zeros" else dice.randbytes(length))


def cards() -> list[FakeCard]:
    """The adapters, the same each time."""
    return [FakeCard(f"a{n}", texts=(f"one {n}", f"two {n}")) for n in range(ADAPTERS)]
