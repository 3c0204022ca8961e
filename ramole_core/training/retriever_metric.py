"""Fit the retriever's metric: no steps, one eigendecomposition.

What differs between two inputs of one task is noise to the retriever. With the scatter of the tuned
tasks' inputs around their means,

    S = mean_t mean_i (e(x_ti) - mean_i e(x_ti)) (...)',   S_l = (1 - l) S + l tr(S)/d I,

M = S_l^(-1/2) makes that noise alike in every direction (within-class covariance normalisation,
Hatch et al. 2006). It holds nothing of the tasks' means, so tasks that were not tuned on gain too;
and twins do no harm, as no two tasks are pushed apart. The words' document frequencies come from
the same inputs.

    python -m ramole_core.training.retriever_metric --data DATA --tasks sst2,rte --out FOLDER
"""

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Float32

from ramole_core.errors import RamoleError
from ramole_core.retrieval.encoder import Encoder
from ramole_core.retrieval.metric import Metric
from ramole_core.retrieval.model_files import PACKAGED
from ramole_core.retrieval.tuning import RECORD, Window
from ramole_core.retrieval.words import inverse_frequencies
from ramole_core.settings import load_settings
from ramole_core.training.card import versions
from ramole_core.training.retriever_data import EXAMPLES
from ramole_core.training.rows import read_task

MODULE = "ramole_core.training.retriever_metric"

Dense = Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]
"""The encoder's own vectors, of unit length."""


@dataclass(frozen=True)
class MetricRecipe:
    """Chosen on the sample inputs of the LoraRetriever pool, each left out of its own mean."""

    shrink: float = 0.7
    """l: 1 leaves the encoder as it is."""
    share: float = 0.6
    """s of `Metric`."""
    words: int = 1024
    """Dimensions of the words."""
    window: Window = field(default=Window(40, 40))
    """Tokens that the encoder reads; the words are those of the whole text."""


def fit_metric(dense: Dense, texts: Mapping[str, Sequence[str]], recipe: MetricRecipe) -> Metric:
    """Fit on example inputs by task. Raises RamoleError where no task has two."""
    usable = [list(rows) for rows in texts.values() if len(set(rows)) > 1]
    if not usable:
        raise RamoleError("No task has two inputs, so none shows how inputs vary; name one.")
    groups = [dense(rows) for rows in usable]
    scatter = np.mean([np.cov(group, rowvar=False, bias=True) for group in groups], axis=0)
    d = len(scatter)
    even = np.trace(scatter) / d * np.eye(d)
    scatter = (1 - recipe.shrink) * scatter + recipe.shrink * even
    values, vectors = np.linalg.eigh(scatter)
    matrix = (vectors / np.sqrt(values / values.mean())) @ vectors.T
    idf = inverse_frequencies(text for rows in usable for text in rows)
    return Metric(matrix.astype(np.float32), idf, recipe.share, recipe.words)


def train_metric(
    recipe: MetricRecipe,
    *,
    texts: Mapping[str, Sequence[str]],
    out_dir: Path,
    encoder: Encoder,
    dense: Dense | None = None,
    command: str = "",
) -> None:
    """Fit on `texts`, and write `out_dir`, which the `Encoder` of the same files reads.

    `encoder` is untuned; `dense` are its vectors in the recipe's window where they are known.
    """
    if encoder.tuned:
        raise RamoleError("A metric is fitted on an untuned encoder, and this one has a tuning.")
    metric = fit_metric(
        dense or (lambda rows: encoder.dense(rows, window=recipe.window)), texts, recipe
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    metric.save(out_dir)
    known = encoder.source in PACKAGED
    record = {
        "schema": 1,
        "encoder": f"sentence-transformers/{PACKAGED[0]}" if known else encoder.source,
        "encoder_checksum": encoder.checksum,
        "window": asdict(recipe.window),
        "metric": {"share": recipe.share, "words": recipe.words},
        "recipe": asdict(recipe),
        "trained_on": {name: len(rows) for name, rows in texts.items()},
        "command": command,
        "versions": versions(),
    }
    (out_dir / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main(
    data: Annotated[Path, typer.Option(help="A folder of task folders.")],
    tasks: Annotated[str, typer.Option(help="Tasks to fit on, comma separated.")],
    out: Annotated[Path | None, typer.Option(help="By default the sample pool's.")] = None,
    rows: Annotated[int, typer.Option(help="First training inputs of each task.")] = EXAMPLES,
) -> None:
    """Fit the retriever's metric on training inputs, in a minute on a CPU."""
    settings = load_settings()
    train_metric(
        MetricRecipe(),
        texts={
            name: [row.inputs for row in read_task(data / name).train[:rows]]
            for name in tasks.split(",")
        },
        out_dir=out or settings.adapters_dir / "_retriever",
        encoder=Encoder(settings.encoder, data_dir=settings.data_dir),
        command=shlex.join(
            ["python", "-m", "ramole_core.training.retriever_metric", *sys.argv[1:]]
        ),
    )


if __name__ == "__main__":
    typer.run(main)
