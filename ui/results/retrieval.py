"""How often the right adapter is found: each retriever's top-k, plainly and with twins merged."""

from pathlib import Path

from .files import blocks_of
from .scores import Evaluation, evaluation, label
from .tables import Block, Column, Section, Table, tables
from .values import Raw, at, items, span_of, spans_of, text

RUNS, FIRST = ("untuned", "shipped"), ("1", "3", "5", "8")
PROMPTS = {
    "all": "all prompts",
    "tuned": "tasks it was tuned on",
    "unseen": "tasks it never saw",
    "unseen, untuned": "the same tasks, by the untuned one",
}
TOPS = {("plain", f"top{k}"): Column(f"top-{k}", drawn="percent") for k in FIRST}
FURTHER = {
    ("merged", "top1"): Column("top-1, twins merged", drawn="percent"),
    "tasks": Column("top-1, interval over tasks", drawn="percent"),
}
PAPER = "as published: LoraRetriever, arXiv 2402.09997, table 2"


def _tables(raw: Raw) -> list[Table]:
    groups: dict[str, Raw] = {}
    for name, parts in at(raw, "summary").items():
        for part, value in at(parts).items():
            top = at(value, "plain", "top1")
            over = span_of({"mean": top.get("mean"), "interval": top.get("tasks")})
            row = {**at(value), "tasks": over if over and over.low is not None else None}
            groups.setdefault(PROMPTS.get(part, part), {})[name] = row
    if not tables("", "", TOPS, groups):
        return []
    groups[PAPER] = {
        name: {"plain": {f"top{k}": v for k, v in zip(FIRST, items(row), strict=False)}}
        for name, row in at(raw, "published").items()
    }
    size = f"{text(raw.get('pool'))} LoRAs, {text(raw.get('prompts'))} prompts"
    twins = "; ".join(text(one).replace(", ", " and ") for one in items(raw.get("twins")))
    note = f"Twins, whose instructions are the same: {twins}." if twins else ""
    caption = f"By the paper's protocol: {size}"
    paper = tables(caption, "retriever", {**TOPS, **FURTHER}, groups, note)
    runs = {
        f"{name}, {text(at(value).get('prompts'))} prompts": {run: at(value, run) for run in RUNS}
        for name, value in at(raw, "shipped").items()
    }
    shipped = tables("The shipped retriever against the untuned one", "retriever", TOPS, runs)
    return [*paper, *shipped]


def in_evaluation(folder: Path) -> list[Table]:
    """For the prompts of the evaluation; nothing can be found where the right one is hidden."""
    found = evaluation(folder)
    if not isinstance(found, Evaluation):
        return []
    spans = {label(s): spans_of(row) for s, row in at(found.raw, "retrieval").items()}
    rows = {s: row for s, row in spans.items() if any(span.mean > 0 for span in row.values())}
    columns = {"first": Column("found first", drawn="percent")}
    columns["found"] = Column(f"among the first {text(found.raw.get('k')) or 'k'}", drawn="percent")
    return tables("For the prompts of the first section", "setting", columns, {"": rows})


def blocks(folder: Path) -> list[Block]:
    *found, made = blocks_of(folder, "retriever.json", _tables)
    return [*found, *in_evaluation(folder), made]


RETRIEVAL = Section(
    "retrieval",
    "Is the right adapter found?",
    "Percent of prompts whose own adapter is among the first k of the pool, before anything is "
    "mixed; brackets hold the 95 % interval over prompts. Over tasks it is wider: that one says "
    "what to expect of tasks that are not here.",
    blocks,
)
