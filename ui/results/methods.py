"""All methods in one table: quality beside what each costs, and whether it takes new adapters."""

from pathlib import Path

from .files import blocks_of, read
from .scores import Evaluation, label, read_evaluation
from .situations import situations
from .tables import Block, Column, Fold, Section, Table, Unmeasured, tables
from .values import Raw, Span, at, items, number, text

FILE, SCORES, FURTHER = "methods.json", "methods_dev.json", "methods_further_dev.json"
"""What methods need, their scores, and those in situations beyond the rows of one task."""
REFERENCE = "ramole_plus"
"""The method that all others are compared with."""
NEEDS = {
    ("tokens_a_second", "1"): Column("tokens/s alone"),
    ("tokens_a_second", "8"): Column("tokens/s, eight rows"),
    "trained": Column("trained numbers", 0),
    "unseen": Column("takes new adapters", drawn="words"),
}
NOTE = (
    f"Scores are means over all rows, with intervals over rows; the differences to {REFERENCE} are "
    "over tasks. Rates are medians of the passes, with least and most; a method of a fixed pool "
    "mixes all of it, the others what they find."
)


def _table(needs: Raw, found: object) -> list[Table]:
    columns, rows = {}, {name: at(row) for name, row in at(needs, "methods").items()}
    if isinstance(found, Evaluation):
        rows = {name: rows.get(name, {}) for name in [*found.methods, *rows]}
        for setting, cells in found.cells.items():
            columns[setting] = Column(label(setting))
            columns[f"{setting}, ahead"] = Column(f"minus {REFERENCE}", 1, True, "around 0")
            ahead = _ahead(found.raw, setting)
            for name, row in rows.items():
                row |= {setting: cells.get(name), f"{setting}, ahead": ahead.get(name)}
    return tables("All methods", "method", {**columns, **NEEDS}, {"": rows}, NOTE)


def _ahead(raw: Raw, setting: str) -> dict[str, Span]:
    """Each method's lead over the reference, with the interval over tasks."""
    found = {}
    for one in map(at, items(at(raw, "differences").get(setting))):
        ends = [number(one.get(key)) for key in ("mean", "task_high", "task_low")]
        turned = [-end for end in ends if end is not None]
        if len(turned) == 3 and one.get("method") == REFERENCE:
            found[text(one.get("rival"))] = Span(turned[0], turned[1], turned[2])
    return found


def _blocks(folder: Path) -> list[Block]:
    found = read_evaluation(folder, SCORES)
    needs = blocks_of(folder, FILE, lambda raw: _table(raw, None))
    made = [found if isinstance(found, Unmeasured) else found.made, needs[-1]]
    further = blocks_of(folder, FURTHER, situations)
    if len(further) > 1:
        further = [Fold("All methods in situations beyond the rows of one task", further)]
    return [*_table(read(folder, FILE), found), *made, *further]


METHODS = Section(
    "methods",
    "What does each method need?",
    "Every method on the same pool and base: how good its answers are, how fast it writes alone "
    "and with seven others, how many numbers are trained for it, and whether it takes adapters "
    "that came after that.",
    _blocks,
)
