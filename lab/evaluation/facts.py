"""What decides the numbers of an evaluation, as checksums; and who may ask test rows, once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from lab import harness
from ramole_core.errors import RamoleError
from ramole_core.methods import complete_options
from ramole_core.settings import load_settings

if TYPE_CHECKING:
    from lab.evaluation.evaluate import Rows
    from lab.evaluation.situations import Crowd
    from ramole_core.ramole import Ramole

CODE = ("lab/evaluation/metrics.py", "ramole_core/selection/parts.py")
"""Files whose rules stand in no option: a change of one makes other cells."""
LIKE = {"random_router": "ramole"}
"""A method without weights of its own that is drawn like another one's."""


def shared_facts(
    ramole: "Ramole", crowd: "Crowd", *, quantization: str = "int4", head: str = "full"
) -> dict[str, object]:
    """Checksums of everything that decides the answers of every system."""
    from ramole_core.base.files import weights_checksum
    from ramole_core.settings import REPOSITORY
    from ramole_core.training.card import versions

    usual = load_settings()
    cards = {card.name: card for card in ramole.pool.cards()}
    code = {name: harness.checksum(REPOSITORY / name) for name in CODE}
    return {
        "base_model": harness.base_name(),
        "base_checksum": weights_checksum(harness.base_folder(), data_dir=usual.data_dir),
        "quantization": f"{quantization}, computed in bfloat16",
        **({} if head == "full" else {"head": head}),
        **harness.retrieval_facts(ramole),
        "adapters": {name: cards[name].sha256 for name in cards if name not in crowd.distractors},
        "distractors": len(crowd.distractors),
        "code": harness.digest(code, 16),
        "versions": versions(),
    }


def own_facts(ramole: "Ramole", system: str) -> dict[str, object]:
    """What decides the answers of one system beside what all share: the options of its method and
    its trained weights; nothing where neither is there."""
    from lab.evaluation.systems import BOUNDS, RANDOM, read_way
    from ramole_core.composition.ramole_plus import EXAMINED, FITS, TENTH
    from ramole_core.selection import parts

    if system in (*BOUNDS, RANDOM):
        return {}
    way = read_way(system)
    options = complete_options(way.method, dict(way.options or {}))
    weights = ramole.weights_checksums().get(LIKE.get(way.method, way.method))
    found: dict[str, object] = {"options": options} if options else {}
    found |= {"weights": weights} if weights else {}
    if way.method == "ramole_plus":
        cuts = (parts.PLAIN, parts.BOTH_ASK, parts.JOINED, parts.PLACES, parts.MIN_FIT)
        found |= {"examined": EXAMINED, "fits": (FITS, TENTH), "cuts": cuts}
    return found


def rows_digest(tasks: Sequence["Rows"]) -> str:
    """Of the rows that are asked, their metrics, and the examples beside them."""
    return harness.digest({task.task: astuple(task) for task in tasks}, 16)


def clean_commit() -> str:
    """The commit that is checked out; raises RamoleError where files differ from it."""
    from lab.benchmarks.machine import commit

    head = commit()
    if head is None or head.endswith("+"):
        raise RamoleError("Test rows are asked by a commit as it is; commit first, in a clone.")
    return head


def ask_once(split: str, facts: Mapping[str, object], command: str, folder: Path) -> None:
    """Write down in `asked_SPLIT.json` that these rows are asked, and by what; raises RamoleError
    where they were asked otherwise."""
    file = folder / f"asked_{split}.json"
    mine = {"facts": harness.digest(facts, 16), "command": command}
    if file.is_file():
        before = json.loads(file.read_text("utf-8"))
        if before["facts"] != mine["facts"]:
            raise RamoleError(
                f"Rows of {split} were asked before, by other weights, rows or code "
                f"({before['command']}): they are asked once. {file} says so."
            )
        return
    harness.write_report(file, mine)
