"""What the papers claim of their methods, beside the same comparison here."""

from pathlib import Path

from .files import read
from .scores import label
from .tables import Column, Table, spoken, tables
from .values import Raw, at, items, span_of, text

FILE = "papers.json"
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
    for one in map(at, items(read(folder, FILE).get("claims"))):
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
