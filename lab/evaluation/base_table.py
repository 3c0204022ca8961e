"""How the base competes with adapters: ways to decide, on families they were not fitted on.

    python -m lab.evaluation.base_table --data DATA

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

from lab.evaluation.base_ways import WAYS, Facts, Way, facts_of, fit_way, take
from lab.evaluation.evaluate import read_rows
from lab.evaluation.intervals import bootstrap
from ramole_core.ramole import Ramole
from ramole_core.request import Request
from ramole_core.retrieval.card_vector import adapter_vectors
from ramole_core.retrieval.encoder import Encoder, unit
from ramole_core.retrieval.own_cards import everyday_texts
from ramole_core.settings import REPOSITORY
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.calibrate import Texts, everyday_prompts, phrased_prompts, responses
from ramole_core.training.card import versions
from ramole_core.training.lines import apart, half_of
from ramole_core.training.prompt_sets import read_uploads

MODULE = "lab.evaluation.base_table"


def by_group(values: Float[np.ndarray, "splits n"], groups: Sequence[str]) -> dict[str, float]:
    """Each group's mean over its texts and over the splits that measured it, where one did."""
    names, found = np.array(groups, object), {}
    for name in dict.fromkeys(groups):
        own = values[:, names == name]
        if not np.isnan(own).all():
            found[name] = float(np.nanmean(own))
    return found


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
    kinds = {name: kind for name, kind in kinds.items() if set(way.facts) <= set(kind.facts)}
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


def untuned_margin(
    encoder: Encoder, texts: Sequence[str], examples: Sequence[Sequence[str]]
) -> Float[np.ndarray, "n"]:
    """best - base of each text, by the encoder's own vectors alone."""
    pool = unit(np.stack([encoder.embed(some).mean(0) for some in examples]))
    rows, card = encoder.embed(texts), encoder.embed(everyday_texts())
    return (rows @ pool.T).max(1) - rows @ unit(card.mean(0, keepdims=True))[0]


def as_shipped(ramole: Ramole, texts: Sequence[str], excluded: Sequence[str | None]) -> list[bool]:
    """Which texts the system leaves to the base, response and all; `excluded`: a name for each."""
    base, left, doubtful = ramole.base_expert, [], []
    for n, (text, name) in enumerate(zip(texts, excluded, strict=True)):
        exclude = () if name is None else (name,)
        evidence = base.judge(text, ramole.retrieve(text, k=1, exclude=exclude))
        left.append(evidence.decision == "base")
        if base.doubts(evidence):
            doubtful.append((n, Request(text, method="ramole_plus", exclude=exclude)))
    for (n, _), found in zip(
        doubtful, ramole.prepare([request for _, request in doubtful]), strict=True
    ):
        assert found.evidence is not None and found.evidence.response is not None
        left[n] = found.evidence.decision == "base"
    return left


def measure_shipped(
    ramole: Ramole, everyday: Texts, phrased: Texts, asked: Sequence[tuple[str, str]]
) -> dict[str, object]:
    """The table's row for the system as it is, on families and adapters it was not fitted on."""
    facts = ramole.base_expert.calibration.facts["fitted_on"]
    assert isinstance(facts, dict)
    kinds = {
        "open": [p for p in everyday.pairs if p[1] not in facts["families"]],
        "phrased": [p for p in phrased.pairs if p[1] not in facts["adapters"]],
        "iid": [(text, name) for name, text in asked],
        "ood": [(text, name) for name, text in asked],
    }
    row: dict[str, object] = {"way": "as shipped (on halves it was not fitted on)"}
    for kind, pairs in kinds.items():
        names = [name for _, name in pairs]
        masked = names if kind == "ood" else [None] * len(names)
        left = as_shipped(ramole, [text for text, _ in pairs], masked)
        row[kind] = summary(by_group(np.array([left], float), names))
    return row


def measure_uploads(ramole: Ramole, pool: Float[np.ndarray, "a d"]) -> dict[str, object]:
    """How often the prompts of an upload whose task is talk find it first, and stay with it."""
    threshold = ramole.base_expert.calibration.alone.threshold
    base = ramole.base_expert.calibration.vector("everyday")
    uploads, embed = read_uploads(), ramole.retriever.embed
    cards = unit(np.stack([embed(one.examples).mean(0) for one in uploads]))
    everyone = np.vstack([pool, cards])
    found: dict[str, float] = {}
    card_s: dict[str, float] = {}
    for n, one in enumerate(uploads):
        rows = embed(one.prompts)
        scores = rows @ everyone.T
        first = scores.argmax(1) == len(pool) + n
        found[one.name] = float((first & (scores.max(1) - rows @ base >= threshold)).mean())
        card_s[one.name] = float(((rows @ pool.T).max(1) - rows @ base < threshold).mean())
    return {"found_first": summary(found), "without_it_to_the_base": summary(card_s)}


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
        pool = adapter_vectors(embed, cards)
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
        untuned = Encoder(ramole.settings.encoder, data_dir=ramole.settings.data_dir)
        examples = [card.texts[:20] for card in cards]
        for name, texts in (("open", everyday.texts), ("phrased", phrased.texts)):
            found[name]["untuned"] = untuned_margin(untuned, texts, examples)
        first = found["phrased"]["first"] == [names.index(name) for name in phrased.groups]
        report = {
            "command": recorded_command(MODULE),
            "date": date.today().isoformat(),
            "versions": versions(),
            "encoder": ramole.retriever.encoder_checksum,
            "splits": splits,
            "phrased_first": summary(by_group(first[None].astype(float), phrased.groups)),
            "uploads": measure_uploads(ramole, pool),
            "rows": [],
        }
        if response:
            plus = [Request(text, method="ramole_plus", abstain=False) for text in phrased.texts]
            chosen = [candidates[0].name for candidates in ramole.candidates(plus)]
            good = [[a == b for a, b in zip(chosen, phrased.groups, strict=True)]]
            report["phrased_first_by_ramole_plus"] = summary(
                by_group(np.array(good, float), phrased.groups)
            )
            report["rows"].append(measure_shipped(ramole, everyday, phrased, asked))
            print(line_of(report["rows"][0]), flush=True)
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
        print(line_of(row), flush=True)


def line_of(row: Mapping[str, object]) -> str:
    """One line of the table."""
    cells = []
    for name in ("open", "phrased", "iid", "ood"):
        cell = row.get(name, {"mean": np.nan, "low": np.nan, "high": np.nan})
        assert isinstance(cell, dict)
        cells.append(f"{name} {cell['mean']:5.1f} [{cell['low']:.1f}, {cell['high']:.1f}]")
    return f"{row['way']:46} auroc {row.get('auroc', '')}  left to the base: {'  '.join(cells)}"


if __name__ == "__main__":
    typer.run(main)
