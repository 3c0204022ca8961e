"""Retrievers of the table: trained and kept, their parts alone, and the ranks that they give.

A rank is that of a prompt's own adapter, plainly and with twins merged; top-k figures are of ranks.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from lab.evaluation.intervals import bootstrap, bootstrap_groups
from ramole_core.retrieval.encoder import Encoder, unit
from ramole_core.retrieval.tuning import RECORD, read_tuning
from ramole_core.training.loop import TrainingRun
from ramole_core.training.recipe import RetrieverRecipe
from ramole_core.training.retriever import Texts, rank_of_own, train_retriever
from ramole_core.training.retriever_metric import fit_metric

Embed = Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]
"""Texts to vectors of unit length."""

POOL = 48
"""LoRAs of the paper's pool: the first of the release."""
FIRST = (1, 3, 5, 8)
"""k of the top-k figures."""
TWINS = (
    ("mnli_matched", "mnli_mismatched"),
    ("anli_r1", "anli_r2", "anli_r3"),
    ("arc_easy", "arc_challenge"),
    ("squad_v1", "squad_v2"),
)
"""Tasks of the same instructions over other rows."""
SERVED = ""
WAYS = (SERVED, ", the LoRA alone", ", metric and words alone")
"""What of a tuning is used."""


class Remembered:
    """Embeds a text once; every run asks for the same ones, and an encoder is slow."""

    def __init__(self, embed: Embed):
        self._embed = embed
        self.held: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        new = [text for text in dict.fromkeys(texts) if text not in self.held]
        for start in range(0, len(new), 256):
            part = new[start : start + 256]
            self.held.update(zip(part, self._embed(part), strict=True))
        return np.stack([self.held[text] for text in texts])


class Places:
    """For every prompt, how many adapters come before its own; plainly and with twins merged."""

    def __init__(self, plain: Sequence[int], merged: Sequence[int]):
        self.plain, self.merged = np.asarray(plain), np.asarray(merged)

    @classmethod
    def measure(
        cls, embed: Embed, examples: Mapping[str, Sequence[str]], prompts: Sequence[dict]
    ) -> "Places":
        """`prompts` have `inputs` and `task`; an adapter is the mean of its examples' vectors."""
        names = list(examples)
        pool = unit(np.stack([embed(list(rows)).mean(0) for rows in examples.values()]))
        scores = embed([prompt["inputs"] for prompt in prompts]) @ pool.T
        own = [names.index(prompt["task"]) for prompt in prompts]
        first = [names.index(head_of(name, names)) for name in names]
        joined = np.full_like(scores, -np.inf)
        for column, head in enumerate(first):
            joined[:, head] = np.maximum(joined[:, head], scores[:, column])
        return cls(
            rank_of_own(scores, own).tolist(),
            rank_of_own(joined, [first[place] for place in own]).tolist(),
        )

    @classmethod
    def read(cls, held: Mapping[str, str]) -> "Places":
        """From what `write` gave."""
        return cls(*([int(word) for word in held[key].split()] for key in ("plain", "merged")))

    def write(self) -> dict[str, str]:
        """Short enough for a JSON file."""
        return {key: " ".join(map(str, getattr(self, key))) for key in ("plain", "merged")}

    def hits(self, kind: str, k: int) -> Float32[np.ndarray, "prompts"]:
        """100 where the own adapter is among the first k, else 0."""
        return np.float32(100) * (getattr(self, kind) < k).astype(np.float32)


def head_of(name: str, names: Sequence[str]) -> str:
    """The first of a task's twins that is in `names`; itself when it has none."""
    for twins in TWINS:
        if name in twins:
            return next(twin for twin in twins if twin in names)
    return name


@dataclass(frozen=True)
class Tuner:
    """Trains what the work folder does not hold."""

    work: Path
    recipe: RetrieverRecipe
    untuned: Embed
    """The untuned encoder's vectors in the recipe's window."""
    data_dir: Path

    def ways(self, name: str, texts: Texts, *, seed: int) -> dict[str, Embed]:
        """The retriever tuned on `texts`, kept as `name`, by each of WAYS."""
        folder = self.work / name
        schedule = replace(self.recipe.schedule, seed=seed)
        recipe = replace(self.recipe, schedule=schedule)
        if not _holds(folder, recipe, texts):
            train_retriever(recipe, texts=texts, run=TrainingRun(folder), data_dir=self.data_dir)
        tuned = Encoder(data_dir=self.data_dir, adapter=folder)
        tuning = read_tuning(folder)
        assert tuning is not None and tuning.metric is not None
        after = tuning.metric
        dense = Remembered(lambda rows: tuned.dense(rows, window=recipe.window))
        before = fit_metric(self.untuned, texts, recipe.metric)
        embeds: tuple[Embed, ...] = (
            lambda rows: after(dense(rows), rows),  # what `Encoder.embed` of the folder gives
            dense,
            lambda rows: before(self.untuned(rows), rows),
        )
        return dict(zip(WAYS, embeds, strict=True))


def _holds(folder: Path, recipe: RetrieverRecipe, texts: Texts) -> bool:
    """Whether the folder's retriever was trained by this recipe on as many inputs of each."""
    try:
        record: Mapping = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except OSError:
        return False
    asked = json.loads(json.dumps(asdict(recipe)))  # tuples are lists in a file
    counts = {name: len(rows) for name, rows in texts.items()}
    return record["recipe"] == asked and record["trained_on"] == counts


def summarise(
    runs: Sequence[Places],
    masks: Sequence[Bool[np.ndarray, "prompts"]],
    *,
    tasks: Sequence[str],
    against: Places | None = None,
) -> dict:
    """Top-k in percent over the prompts that each run's mask lets through: mean over seeds, its
    interval over prompts, the one over tasks (`tasks` are the prompts' own), the seeds' spread;
    and, against another retriever, the paired gain."""
    table: dict[str, dict] = {}
    seen = np.stack(masks)
    some = seen.any(0)
    own = [tasks[n] for n in np.flatnonzero(some).tolist()]
    for kind in ("plain", "merged"):
        table[kind] = {}
        for k in FIRST:
            hits = np.stack([run.hits(kind, k) for run in runs])
            by_seed = [float(row[mask].mean()) for row, mask in zip(hits, masks, strict=True)]
            prompt = (hits * seen).sum(0)[some] / seen.sum(0)[some]
            spans = bootstrap(prompt.tolist()), bootstrap_groups(prompt.tolist(), own)
            interval, over = ([*span.rounded(2).values()][1:] for span in spans)
            cell: dict[str, object] = {"mean": round(float(np.mean(by_seed)), 2)}
            cell |= {"interval": interval, "tasks": over}
            cell["seeds"] = [round(value, 2) for value in by_seed]
            if against is not None:
                gain = bootstrap((prompt - against.hits(kind, k)[some]).tolist())
                cell["gain"] = list(gain.rounded(2).values())
            table[kind][f"top{k}"] = cell
    return table
