"""All methods in one table: quality beside what each costs, and whether it takes new adapters."""

from pathlib import Path

from ramole_core import DEFAULT_METHOD

from .files import blocks_of, read
from .scores import Evaluation, read_evaluation
from .tables import Block, Column, Section, Table, Unmeasured, tables
from .values import Raw, at

FILE, SCORES, HIDDEN = "method_speed.json", "methods_dev.json", "methods_ood_dev.json"
"""What methods need, their scores, and those of rows whose own adapter is hidden."""
NEEDS = {
    ("tokens_a_second", "1"): Column("tokens/s alone"),
    ("tokens_a_second", "8"): Column("tokens/s, eight rows"),
    ("tokens_a_second", "prompt"): Column("tokens/s of a prompt"),
    "used": Column("adapters used", 0),
    "trained": Column("trained numbers", 0),
    "unseen": Column("takes new adapters", drawn="words"),
}
NOTE = (
    "Scores are means over all rows, with intervals over rows; the differences to "
    f"{DEFAULT_METHOD} are over tasks. Rates are medians of the passes, with least and most; a "
    "method of a fixed pool mixes all of it, the others what they find; adapters are used where "
    "their weight is not 0. A dash was not measured; "
    "the best is the best of those that were."
)


def _table(needs: Raw, *found: object) -> list[Table]:
    columns: dict[str, Column] = {}
    measured = [one for one in found if isinstance(one, Evaluation)]
    names = dict.fromkeys(
        [*(name for one in measured for name in one.methods), *at(needs, "methods")]
    )
    rows = {name: dict(at(needs, "methods", name)) for name in names}
    for one in measured:
        more, scores = one.compared()
        columns |= more
        rows = {name: {**row, **scores.get(name, {})} for name, row in rows.items()}
    return tables("All methods", "method", {**columns, **NEEDS}, {"": rows}, NOTE)


def _blocks(folder: Path) -> list[Block]:
    found = [read_evaluation(folder, name) for name in (SCORES, HIDDEN)]
    needs = blocks_of(folder, FILE, lambda raw: _table(raw))
    made = [one if isinstance(one, Unmeasured) else one.made for one in found]
    return [*_table(read(folder, FILE), *found), *made, needs[-1]]


METHODS = Section(
    "methods",
    "What does each method need?",
    "Every method on the same pool and base: how good its answers are, how fast it writes alone "
    "and with seven others and reads prompts, how many numbers are trained for it, and whether it "
    "takes adapters that came after that.",
    _blocks,
)
