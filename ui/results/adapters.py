"""Each adapter's score against the base, chance and the commonest answer."""

from .files import blocks_of, made_of
from .tables import Column, Made, Section, Table, tables
from .values import Raw, at, span_of, text

FILE = "adapters_dev.json"
COLUMNS = {
    "metric": Column("metric", drawn="words"),
    "rows": Column("rows", 0),
    ("scores", "base", "mean"): Column("base"),
    ("scores", "chance", "mean"): Column("chance"),
    ("scores", "commonest", "mean"): Column("commonest"),
    ("scores", "adapter", "mean"): Column("with it"),
    ("scores", "gain_over", "base"): Column("gain over the base", 1, True, "around 0"),
    ("lenient", "gain_over", "base"): Column("the same, lenient", 1, True, "around 0"),
}
NOTE = (
    "em: exact match; rouge and bleu: overlap with the right answer; each from 0 to 100. Lenient "
    "scoring strips bullets and trailing text from both answers first. Without a chance: the task "
    "lists no options to guess from."
)


def _measured(raw: Raw) -> Raw:
    """The adapters that have a score."""
    found = at(raw, "adapters")
    return {n: row for n, row in found.items() if span_of(at(row, "scores").get("adapter"))}


def _table(raw: Raw) -> list[Table]:
    caption = "Sample adapters on their own dev rows"
    return tables(caption, "adapter", COLUMNS, {"": _measured(raw)}, NOTE)


def _made(raw: Raw, name: str) -> Made:
    """The file has a command for each adapter; without their names they are mostly one."""
    rows = _measured(raw)
    said = {text(at(row).get("command")).removesuffix(f" {one}") for one, row in rows.items()}
    sums = {f"{one}, SHA-256": text(at(row).get("adapter_sha256")) for one, row in rows.items()}
    return made_of({**raw, "command": "\n".join(sorted(said - {""}))}, name, sums)


ADAPTERS = Section(
    "adapters",
    "Do the adapters themselves help?",
    "Each adapter of the sample pool on dev rows of its own task, that it was not trained on, "
    "against the base, a fair guess and always giving the commonest answer.",
    lambda folder: blocks_of(folder, FILE, _table, _made),
)
