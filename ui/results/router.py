"""Trained gates beside others, and the pieces of `ramole_plus`."""

from pathlib import Path

from .files import blocks_of
from .tables import Block, Column, Table, tables
from .values import Raw, at, items, range_of, span_of, text

GROUPS = {
    "iid": "IID: the right adapter may be found",
    "ood": "OOD: the right adapter is hidden",
    "crowded": "Crowded: strangers are in the pool",
    "composite": "Tokens of two tasks in one prompt whose own adapter weighs more, %",
    "likely": "Two tasks in one prompt: how likely a token of the right answers is, %",
}
CLAIM, PIECES = "router_claim.json", "ablations.json"
WORDS = ("better", "worse")


def ablations(caption: str, raw: Raw) -> list[Table]:
    """The rows by group, on one scale."""
    lower = "higher is better" not in text(raw.get("measure"))
    digits, words, groups = (3, WORDS[::-1], {}) if lower else (1, WORDS, {})
    for one in map(at, items(raw.get("rows"))):
        against = at(one, "against")
        kind, *part = text(one.get("group")).split(", ", 1)
        gap = span_of(against)
        groups.setdefault(", ".join([GROUPS.get(kind, kind), *part]), {})[text(one.get("name"))] = {
            "measured": span_of(one),
            "rival": against.get("rival"),
            "gap": gap,
            "so": gap.judged(*words) if gap else None,
        }
    columns = {
        "measured": Column("measured", digits, drawn="free"),
        "rival": Column("rival", drawn="words"),
        "gap": Column("minus the rival", digits, True, "around 0"),
        "so": Column("in words", drawn="words"),
    }
    caption = f"{caption}: {text(raw.get('measure'))}"
    return tables(caption, "what is changed", columns, groups, text(raw.get("notes")))


def claim(raw: Raw) -> list[Table]:
    """A row a trained gate, by situation and part of the tasks, beside each rival."""
    groups: dict[str, dict[str, object]] = {}
    rivals: dict[str, None] = {}
    for one in map(at, items(raw.get("rows"))):
        kind, *part = text(one.get("group")).split(", ", 1)
        seeds = {"seeds": range_of(one.get("seeds"))}
        group = groups.setdefault(", ".join([GROUPS.get(kind, kind), *part]), {})
        group[text(one.get("name"))] = {**one, "measured": span_of(one), **seeds}
        rivals |= dict.fromkeys(at(one, "minus"))
    columns: dict[object, Column] = {
        "measured": Column("measured", drawn="free"),
        "seeds": Column("median of seeds, least, most"),
    }
    columns |= {("minus", rival): Column(f"minus {rival}", 1, True, "around 0") for rival in rivals}
    caption = f"Gates of RouterLoRA: {text(raw.get('measure'))}"
    return tables(caption, "trained on", columns, groups, text(raw.get("notes")))


MADE = {
    CLAIM: claim,
    PIECES: lambda raw: ablations("What each piece of ramole_plus is worth", raw),
}


def blocks(folder: Path, *names: str) -> list[Block]:
    """Of these files, else of all."""
    return [b for name in names or MADE for b in blocks_of(folder, name, MADE[name])]
