"""`python -m ramole_core train retriever`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.retrieval.tuning import Window
from ramole_core.training.options import Overwrite, Pace, output_folder, spread
from ramole_core.training.recipe import MetricRecipe, RetrieverRecipe

RETRIEVER = RetrieverRecipe()
METRIC, WINDOW, SCHEDULE = RETRIEVER.metric, RETRIEVER.window, RETRIEVER.schedule
PACE = Pace(
    steps=SCHEDULE.steps, batch_rows=SCHEDULE.batch_rows, learning_rate=SCHEDULE.learning_rate
)


@dataclass(frozen=True)
class Learning:
    """The retriever's training; each field is an option."""

    rank: Annotated[int, typer.Option(help="r of the LoRA.")] = RETRIEVER.rank
    alpha: Annotated[float, typer.Option(help="alpha of the LoRA.")] = RETRIEVER.alpha
    head: Annotated[int, typer.Option(help="Tokens read at a text's start.")] = WINDOW.head
    tail: Annotated[int, typer.Option(help="Tokens read at its end.")] = WINDOW.tail
    temperature: Annotated[float, typer.Option(help="tau of the loss.")] = RETRIEVER.temperature
    tasks_a_step: Annotated[int, typer.Option(help="Tasks in one step.")] = RETRIEVER.tasks
    shrink: Annotated[
        float, typer.Option(help="Of the metric; 1 leaves the encoder's vectors alone.")
    ] = METRIC.shrink
    share: Annotated[float, typer.Option(help="Of the hashed words in a vector; 0 is none.")] = (
        METRIC.share
    )

    def recipe(self, pace: Pace) -> RetrieverRecipe:
        """The retriever's recipe."""
        return RetrieverRecipe(
            rank=self.rank,
            alpha=self.alpha,
            window=Window(self.head, self.tail),
            temperature=self.temperature,
            tasks=self.tasks_a_step,
            metric=MetricRecipe(self.shrink, self.share),
            schedule=pace.schedule(SCHEDULE),
        )


@spread
def retriever(
    data: Annotated[Path, typer.Option(help="A folder of task folders.")],
    tasks: Annotated[
        str, typer.Option(help="Tasks to learn, comma separated; `a+b` counts as one task.")
    ],
    learning: Learning,
    unseen: Annotated[
        str, typer.Option(help="Tasks that are only measured, comma separated.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Its folder; by default DATA_DIR/trained/_retriever.")
    ] = None,
    overwrite: Overwrite = False,
    rows: Annotated[int, typer.Option(help="Training inputs of each task.")] = 200,
    pace: Pace = PACE,
) -> None:
    """Tune the sentence encoder, so that a prompt lies near its own adapter: a LoRA, a metric."""
    from ramole_core.settings import load_settings
    from ramole_core.training.progress import shown_run
    from ramole_core.training.retriever import measure_tasks, read_texts, train_retriever

    recipe, settings = learning.recipe(pace), load_settings()
    folder = output_folder(out or settings.trained_dir / "_retriever", overwrite=overwrite)
    learnt = read_texts(data, tasks, rows=rows, seed=pace.seed)
    others = read_texts(data, unseen, rows=rows, seed=pace.seed)
    examples, prompts = {**learnt.examples, **others.examples}, {**learnt.dev, **others.dev}
    with shown_run("retriever", folder, pace) as run:
        progress = train_retriever(
            recipe,
            texts=learnt.train,
            run=run,
            measure=lambda embed: measure_tasks(
                embed,
                examples=examples,
                prompts=prompts,
                tuned=tuple(learnt.train),
                temperature=recipe.temperature,
            ),
            measured=(examples, prompts),
            source=settings.encoder,
            data_dir=settings.data_dir,
        )
    if pace.as_json:
        answer = {"folder": str(folder), "tasks": list(learnt.train), "dev": progress.dev_losses}
        print(json.dumps({**answer, "seed": pace.seed}))
