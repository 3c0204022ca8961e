"""How the base competes with adapters: ways to decide, on families they were not fitted on.

    python -m ramole_core.evaluation.base_table --data DATA

Each way is fitted on a half of the everyday families and of the adapters with prompts in people's
own words, drawn anew for each split, and measured on the other half; then on dev rows as they are
(IID), and with their own adapter masked (OOD). A family, an adapter or a task counts as one in an
interval. Every text is embedded once; where the adapters' responses count, the base model reads it
too, and what came is kept in the work folder.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Float

from ramole_core.evaluation.calibrate import (
    DOUBT,
    everyday_prompts,
    phrased_prompts,
    responses,
)
from ramole_core.evaluation.evaluate import read_rows
from ramole_core.evaluation.intervals import bootstrap
from ramole_core.evaluation.lines import Line, apart, fit_line, half_of
from ramole_core.evaluation.recorded_command import recorded_command
from ramole_core.ramole import Ramole
from ramole_core.retrieval.encoder import unit
from ramole_core.retrieval.own_cards import everyday_texts
from ramole_core.settings import REPOSITORY
from ramole_core.training.card import versions

MODULE = "ramole_core.evaluation.base_table"
Facts = Mapping[str, Float[np.ndarray, "n"]]
"""What is known of each text, by name."""


@dataclass(frozen=True)
class Way:
    """One way to decide: a line over these facts, or fixed weights for them."""

    name: str
    facts: tuple[str, ...]
    fixed: tuple[float, ...] = ()
    """Weights of the facts; only the threshold is fitted. Empty: the weights are fitted too."""
    fitted: bool = True
    """False: nothing is fitted, the threshold is 0."""
    doubtful: tuple[str, ...] = ()
    """Facts that count beside the others where the line is in doubt."""
    everywhere: bool = False
    """They count for every text."""


WAYS = (
    Way("constant threshold on the best similarity", ("best",)),
    Way("the base's card, nearest wins (nothing fitted)", ("best", "base"), (1, -1), False),
    Way("the base's card, fitted threshold", ("best", "base"), (1, -1)),
    Way("the base's card, fitted slope and threshold", ("best", "base")),
    Way("nearest prompt of the base's card", ("best", "nearest")),
    Way("mean of its three nearest prompts", ("best", "nearest3")),
    Way("z-score of each adapter over everyday prompts", ("z",)),
    Way("z-score, beside the base's card", ("z", "base")),
    Way("best, base's card and gap to the second", ("best", "base", "gap")),
    Way("response in doubt", ("best", "base"), (1, -1), doubtful=("own", "all")),
    Way("response everywhere", ("best", "base"), (1, -1), doubtful=("own", "all"), everywhere=True),
)


@dataclass(frozen=True)
class Decider:
    """A fitted way: positive where adapters answer."""

    way: Way
    line: Line
    heard: Line | None

    def __call__(self, facts: Facts) -> Float[np.ndarray, "n"]:
        x = _columns(self.way, facts)
        worth = self.line(x)
        if self.heard is None or any(name not in facts for name in self.way.doubtful):
            return worth
        heard = self.heard(np.column_stack([x, *(facts[name] for name in self.way.doubtful)]))
        return heard if self.way.everywhere else np.where(np.abs(worth) < DOUBT, heard, worth)


def fit_way(way: Way, wanted: Facts, other: Facts) -> Decider:
    """The way, fitted on texts for the adapters and texts for the base."""
    high, low = _columns(way, wanted), _columns(way, other)
    line = fit_line(high, low) if way.fitted else Line(np.ones(high.shape[1]), 0.0)
    heard = None
    if way.doubtful:
        high, low = (
            np.column_stack([x, *(facts[name] for name in way.doubtful)])
            for x, facts in ((high, wanted), (low, other))
        )
        heard = fit_line(high, low)
    return Decider(way, line, heard)


def _columns(way: Way, facts: Facts) -> Float[np.ndarray, "n f"]:
    columns = [facts[name] for name in way.facts]
    if way.fixed:
        columns = [sum(w * column for w, column in zip(way.fixed, columns, strict=True))]
    return np.column_stack(columns)


def facts_of(
    rows: Float[np.ndarray, "n d"],
    pool: Float[np.ndarray, "a d"],
    card: Float[np.ndarray, "c d"],
    *,
    masked: Sequence[int] | None = None,
) -> dict[str, Float[np.ndarray, "n"]]:
    """What similarities say of each text; `masked`: the adapter that is left out for each."""
    scores = rows @ pool.T
    usual = card @ pool.T
    z = (scores - usual.mean(0)) / usual.std(0)
    if masked is not None:
        scores[np.arange(len(rows)), list(masked)] = -np.inf
        z[np.arange(len(rows)), list(masked)] = -np.inf
    order = np.sort(scores, axis=1)[:, ::-1]
    near = np.sort(rows @ card.T, axis=1)[:, ::-1]
    return {
        "best": order[:, 0],
        "gap": order[:, 0] - order[:, 1],
        "z": z.max(1),
        "base": rows @ unit(card.mean(0, keepdims=True))[0],
        "nearest": near[:, 0],
        "nearest3": near[:, :3].mean(1),
        "first": scores.argmax(1).astype(np.float64),
    }


def take(facts: Facts, rows: Float[np.ndarray, "n"]) -> Facts:
    """The facts of some of the texts."""
    return {name: values[rows] for name, values in facts.items()}


def by_group(values: Float[np.ndarray, "splits n"], groups: Sequence[str]) -> dict[str, float]:
    """Each group's mean over its texts and over the splits that measured it; nan: not measured."""
    names = np.array(groups, object)
    return {name: float(np.nanmean(values[:, names == name])) for name in dict.fromkeys(groups)}


def summary(found: Mapping[str, float]) -> dict[str, object]:
    """Percent with the 95 % interval over the groups, and each group's."""
    interval = asdict(bootstrap([100 * value for value in found.values()]))
    return {
        **{name: round(value, 2) for name, value in interval.items()},
        "by_group": {name: round(100 * value, 1) for name, value in found.items()},
    }


@dataclass(frozen=True)
class Measured:
    """Facts and groups of a kind of texts."""

    facts: Facts
    groups: tuple[str, ...]


def measure_way(
    way: Way, everyday: Measured, phrased: Measured, others: Mapping[str, Measured], *, splits: int
) -> dict[str, object]:
    """Shares left to the base, and how far the kinds are apart, over the splits."""
    random = np.random.default_rng(0)
    kinds = {"open": everyday, "phrased": phrased, **others}
    left = {name: np.full((splits, len(kind.groups)), np.nan) for name, kind in kinds.items()}
    far = []
    for split in range(splits):
        halves = {
            name: np.isin(kind.groups, half_of(kind.groups, random=random))
            for name, kind in (("open", everyday), ("phrased", phrased))
        }
        decide = fit_way(
            way,
            take(phrased.facts, halves["phrased"]),
            take(everyday.facts, halves["open"]),
        )
        worth = {name: decide(kind.facts) for name, kind in kinds.items()}
        for name, values in worth.items():
            seen = halves.get(name, np.zeros(len(values), bool))
            left[name][split] = np.where(seen, np.nan, values < 0)
        far.append(apart(worth["phrased"][~halves["phrased"]], worth["open"][~halves["open"]]))
    return {
        "way": way.name,
        "auroc": round(float(np.mean(far)), 4),
        **{name: summary(by_group(left[name], kinds[name].groups)) for name in kinds},
    }


def kept_responses(
    work: Path, key: object, make: Callable[[], Float[np.ndarray, "n 2"]]
) -> Float[np.ndarray, "n 2"]:
    """What the adapters answered, made once for everything that it hangs on."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    file = work / f"responses-{name}.json"
    if not file.is_file():
        work.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(make().tolist()), "utf-8")
    return np.array(json.loads(file.read_text("utf-8")), np.float64)


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders.")] = Path("data"),
    rows: Annotated[int, typer.Option(help="Dev rows of each task.")] = 40,
    splits: Annotated[int, typer.Option(help="Halves that are drawn.")] = 100,
    response: Annotated[bool, typer.Option(help="Hear the adapters too (loads the base).")] = True,
    work: Annotated[Path, typer.Option(help="Where what was heard is kept.")] = Path("work"),
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "base_expert.json"
    ),
) -> None:
    """Compare the ways, and write the table."""
    with Ramole() as ramole:
        cards = ramole.pool.cards()
        names = [card.name for card in cards]
        embed = ramole.retriever.embed
        pool = unit(np.stack([embed(card.texts[:20]).mean(0) for card in cards]))
        card = embed(everyday_texts())
        everyday, phrased = everyday_prompts(), phrased_prompts(ramole)
        tasks = read_rows(data, names, split="dev", count=rows)
        asked = [(task.task, row.inputs) for task in tasks for row in task.rows]
        own = [names.index(name) for name, _ in asked]
        vectors = embed([text for _, text in asked])
        found = {
            "open": facts_of(embed(everyday.texts), pool, card),
            "phrased": facts_of(embed(phrased.texts), pool, card),
        }
        if response:
            for name, kind in (("open", everyday), ("phrased", phrased)):
                key = [ramole.retriever.encoder_checksum, ramole.settings.base_model]
                key += [[one.content for one in cards], kind.texts]
                heard = kept_responses(work, key, lambda kind=kind: responses(ramole, kind.texts))
                found[name] |= {"own": heard[:, 0], "all": heard[:, 1]}
        groups = tuple(name for name, _ in asked)
        others = {
            "iid": Measured(facts_of(vectors, pool, card), groups),
            "ood": Measured(facts_of(vectors, pool, card, masked=own), groups),
        }
        first = found["phrased"]["first"] == [names.index(name) for name in phrased.groups]
        report = {
            "command": recorded_command(MODULE),
            "date": date.today().isoformat(),
            "versions": versions(),
            "encoder": ramole.retriever.encoder_checksum,
            "splits": splits,
            "phrased_first": summary(by_group(first[None].astype(float), phrased.groups)),
            "rows": [],
        }
    for way in WAYS:
        if way.doubtful and not response:
            continue
        row = measure_way(
            way,
            Measured(found["open"], everyday.groups),
            Measured(found["phrased"], phrased.groups),
            others,
            splits=splits,
        )
        report["rows"].append(row)
        out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        print(line_of(row))


def line_of(row: Mapping[str, object]) -> str:
    """One line of the table."""
    cells = []
    for name in ("open", "phrased", "iid", "ood"):
        cell = row[name]
        assert isinstance(cell, dict)
        cells.append(f"{name} {cell['mean']:5.1f} [{cell['low']:.1f}, {cell['high']:.1f}]")
    return f"{row['way']:46} auroc {row['auroc']:.3f}  left to the base: {'  '.join(cells)}"


if __name__ == "__main__":
    typer.run(main)
