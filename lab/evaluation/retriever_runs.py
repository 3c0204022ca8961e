"""Retrievers trained for the table, each kept in a folder, and what their parts find alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from lab.evaluation.retriever_places import Embed, Remembered
from ramole_core.retrieval.encoder import Encoder
from ramole_core.retrieval.tuning import RECORD, read_tuning
from ramole_core.training.loop import Run
from ramole_core.training.retriever import Texts, train_retriever
from ramole_core.training.retriever_metric import fit_metric
from ramole_core.training.retriever_recipe import RetrieverRecipe

SERVED = ""
WAYS = (SERVED, ", the LoRA alone", ", metric and words alone")
"""What of a tuning is used."""


class Tuner:
    """Trains what the work folder does not hold."""

    def __init__(self, work: Path, *, recipe: RetrieverRecipe, untuned: Embed, data_dir: Path):
        """`untuned` gives the untuned encoder's vectors in the recipe's window."""
        self._work, self._recipe, self._untuned = work, recipe, untuned
        self._data_dir = data_dir

    def ways(self, name: str, texts: Texts, *, seed: int) -> dict[str, Embed]:
        """The retriever tuned on `texts`, kept as `name`, by each of WAYS."""
        folder = self._work / name
        schedule = replace(self._recipe.schedule, seed=seed)
        recipe = replace(self._recipe, schedule=schedule)
        if not _holds(folder, recipe, texts):
            train_retriever(recipe, texts=texts, run=Run(folder), data_dir=self._data_dir)
        tuned = Encoder(data_dir=self._data_dir, adapter=folder)
        tuning = read_tuning(folder)
        assert tuning is not None and tuning.metric is not None
        after = tuning.metric
        dense = Remembered(lambda rows: tuned.dense(rows, window=recipe.window))
        before = fit_metric(self._untuned, texts, recipe.metric)
        embeds: tuple[Embed, ...] = (
            lambda rows: after(dense(rows), rows),  # what `Encoder.embed` of the folder gives
            dense,
            lambda rows: before(self._untuned(rows), rows),
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
