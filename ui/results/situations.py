"""Claims of papers beside the same comparison here; situations beyond the rows of one task, and
single papers' own cases: a table each.
"""

from collections.abc import Callable
from pathlib import Path

from .files import blocks_of, read
from .scores import evaluation_of, label
from .tables import Column, Section, Table, spoken, tables
from .values import Raw, at, items, number, span_of, text

VERDICTS = {"same": "as claimed", "other": "not so here", "unclear": "cannot be told"}
GAP = Column("ours minus the rival", 1, True, "around 0")
COLUMNS = {
    "where": Column("situation", drawn="words"),
    "sides": Column("here", drawn="words"),
    "paper": Column("in the paper", drawn="words"),
    "gap": GAP,
    "verdict": Column("in words", drawn="words"),
}


def papers(raw: Raw) -> list[Table]:
    """A row a claim, by method."""
    groups: dict[str, dict[str, object]] = {}
    for one in map(at, items(raw.get("claims"))):
        groups.setdefault(text(one.get("method")), {})[text(one.get("says"))] = {
            "where": label(text(one.get("situation"))),
            "sides": _sides(one),
            "paper": text(one.get("paper")),
            "gap": span_of(one),
            "verdict": VERDICTS.get(text(one.get("verdict"))),
        }
    note = f"Level is what is behind by less than {text(raw.get('level'))} points, whichever tasks."
    return tables("Claims and the same comparison here", "the claim", COLUMNS, groups, note)


def claims_of(method: str, folder: Path) -> list[str]:
    """A line for each claim of a method: what it is, the difference here, the verdict."""
    found = []
    for one in map(at, items(read(folder, "papers.json").get("claims"))):
        gap = span_of(one)
        if text(one.get("method")) == method and gap:
            where = text(one.get("situation"))
            mean, ends = spoken(gap, GAP)
            here = f"{_sides(one)}{f', {label(where)}' if where else ''}: {mean} {ends}"
            verdict = VERDICTS.get(text(one.get("verdict")), "")
            found.append(
                f"{text(one.get('says'))} (in the paper: {text(one.get('paper'))}). "
                f"{here}: {verdict}."
            )
    return found


def _sides(claim: Raw) -> str:
    return " minus ".join(text(claim.get(side)).rpartition(":")[2] for side in ("ours", "rival"))


MEASURES = {
    "score": "score",
    "lenient": "score, lenient",
    "right": "right one answers, %",
    "left": "left to the base, %",
    "likeness": "ROUGE-L to the base's answer",
    "same": "token for token the base's, %",
    "words": "words",
    "loss": "loss, nats a token",
    "first loss": "of the first part",
    "second loss": "of the second part",
    "ahead": "right adapter ahead, % of tokens",
    "leads": "ahead by contribution, % of tokens",
    "found": "right adapters found, %",
    "written": "questions answered at all, %",
}
"""Names in the file, and in words; an unknown one stands last, as it is."""
WAYS = {"3bit": "rounded to 3 bits", "nf4": "NF4, the control"}
SEVERAL = "composite-"
"""How entries of prompts with several tasks begin."""
WHOLE = {
    "base": "the base alone",
    "whole": "as one prompt",
    "parts": "cut into its parts, the default",
    "turns": "task by task, as turns of a chat",
}
SYSTEMS = {
    "uncompressed": "uncompressed base, its adapter",
    "inherited": "the same adapter",
    "trained_there": "a new adapter, trained there",
    "trained_on": "the adapter, trained on there",
    "one_lora": "one LoRA",
    "one_lora_twice": "one LoRA, twice the rows",
    "apart": "a LoRA for each task",
    "in_context": "the base, five rows before the question",
    "few_rows": "a LoRA of the five rows",
    "adapter 1": "the first adapter alone",
    "adapter 2": "the second adapter alone",
}


def situations(raw: Raw) -> list[Table]:
    """A table for each situation of a file: all units, then each part of them."""
    return [one for name in at(raw, "situations") for one in _situation(name, raw)]


def _situation(name: str, raw: Raw) -> list[Table]:
    told = at(raw, "situations", name)
    way, bound = at(told, "way", "percent"), text(at(told, "way").get("to"))
    whole = {name: {**at(row), "way": way.get(name)} for name, row in at(told, "systems").items()}
    parts = {part: at(told, "parts", part, "systems") for part in at(told, "parts")}
    groups = {"": whole, **parts}
    held = [key for rows in groups.values() for row in rows.values() for key in at(row)]
    names = {key: MEASURES.get(key, key) for key in [*MEASURES, *held] if key != "way"}
    names["way"] = f"way from mixture to {bound}, %"
    columns = {key: Column(words, 2 if "loss" in key else 1) for key, words in names.items()}
    questions, units, unit = (text(told.get(key)) for key in ("questions", "units", "unit"))
    note = f"{questions} questions; intervals are over {units} units (unit: {unit})."
    found = tables(f"{name}: {text(told.get('what'))}", "method", columns, groups, note)
    return [one for one in found if "" in one.groups]


def several_tasks(raw: Raw) -> list[Table]:
    """Prompts with two and three tasks: scores of each way to answer them."""
    counts = {name: f"{name.rpartition('-')[2]} tasks" for name in raw if name.startswith(SEVERAL)}
    rows = {
        words: {name: at(raw, name).get(way) for name in counts} for way, words in WHOLE.items()
    }
    columns = {name: Column(words, drawn="from 0") for name, words in counts.items()}
    ordinary, cut = at(raw, "ordinary"), number(at(raw, "ordinary", "cut").get("mean"))
    right = [number(at(raw, name, "right_cut").get("mean")) for name in counts]
    told = [
        f"{one:.0f} % of those with {counts[n]}"
        for n, one in zip(counts, right, strict=True)
        if one
    ]
    note = f"Cut between their tasks: {', '.join(told)}. " if told else ""
    if cut is not None:
        note += f"Of {text(ordinary.get('prompts'))} prompts with one task {cut:.1f} % were cut. "
    note += "Intervals are over sets of tasks."
    return tables("Several tasks in one prompt", "asked", columns, {"": rows}, note)


def _paired(caption: str, systems: Raw, *, ours: str) -> list[Table]:
    """Each system's score and loss, and our lead over it."""
    columns = {
        "score": Column("score"),
        "ahead": Column(f"{ours} minus it", signed=True),
        "loss": Column("loss, nats a token", 3),
    }
    count = max((len(at(row, "score", "by_task")) for row in systems.values()), default=0)
    rows = {
        SYSTEMS.get(name, name): {**at(row), "ahead": at(row, "score").get(f"{ours}_minus")}
        for name, row in systems.items()
        if name != ours
    }
    rows[ours] = at(systems, ours)
    return tables(caption, "system", columns, {"": rows}, f"Intervals are over {count} tasks.")


def _recovery(raw: Raw) -> list[Table]:
    found = []
    for how, rows in at(raw, "tables").items():
        found += _paired(f"CA-LoRA, the base {WAYS.get(how, how)}", at(rows), ours="ca_lora")
    return found


def _table_of(ours: str, title: str) -> Callable[[Raw], list[Table]]:
    """A reader of a file with one table of systems; TASKS in the title: how many, if known."""
    return lambda raw: _paired(
        title.replace("TASKS", text(raw.get("tasks")) or "tasks"), at(raw, "table"), ours=ours
    )


def other_base(raw: Raw) -> list[Table]:
    """The methods on another base, with adapters of its own."""
    found = evaluation_of(raw, "other_base.json")
    if found is None:
        return []
    columns, rows = found.compared()
    title = f"On another base: {text(raw.get('base_model'))}"
    note = f"{len(at(raw, 'tasks'))} tasks; intervals of differences are over tasks."
    return tables(title, "method", columns, {"": rows}, note)


CASES = {
    "papers.json": papers,
    "composite_n.json": situations,
    "ca_lora.json": _recovery,
    "llava_mole.json": _table_of("llava_mole", "LLaVA-MoLE, trained on a mixture of TASKS"),
    "lora_flow.json": _table_of("lora_flow", "LoRA-Flow, answers that need two adapters"),
    "lora_hub.json": _table_of(
        "lorahub", "LoraHub, twenty random adapters and five rows of a new task"
    ),
    "other_base.json": other_base,
}


STRESSES = Section(
    "stresses",
    "Do the papers' claims hold here?",
    "A claim compares two systems. The same two are compared here, on a small model and this pool, "
    "in points of score, with the interval of drawing tasks again; another outcome does not refute "
    "a paper, which measured on another model. Below are the papers' own cases: several questions "
    "in one prompt (MeteoRA), a base that was compressed harder (CA-LoRA), tasks that disagree "
    "(LLaVA-MoLE), answers that need two adapters (LoRA-Flow), five rows of a new task (LoraHub); "
    "last, the methods on another base.",
    lambda folder: [one for name, make in CASES.items() for one in blocks_of(folder, name, make)],
)
