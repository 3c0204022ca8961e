"""`python -m ramole_core train retriever`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.terminal.console import write_json
from ramole_core.training.options import Overwrite, Pace, output_folder, spread
from ramole_core.training.recipe import RetrieverRecipe


@spread("max_tokens", "dev_rows")
def retriever(
    data: Annotated[Path, typer.Option(help="A folder of task folders.")],
    learn: Annotated[
        str,
        typer.Option("--tasks", help="Tasks to learn, comma separated; `a+b` counts as one task."),
    ],
    recipe: RetrieverRecipe,
    pace: Pace,
    unseen: Annotated[
        str, typer.Option(help="Tasks that are only measured, comma separated.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Its folder; by default DATA_DIR/trained/_retriever.")
    ] = None,
    overwrite: Overwrite = False,
    rows: Annotated[int, typer.Option(help="Training inputs of each task.")] = 200,
) -> None:
    """Tune the sentence encoder, so that a prompt lies near its own adapter: a LoRA, a metric."""
    from ramole_core.settings import load_settings
    from ramole_core.training.progress import shown_run
    from ramole_core.training.retriever import measure_tasks, read_texts, train_retriever

    recipe, settings = replace(recipe, schedule=pace.of(recipe.schedule)), load_settings()
    folder = output_folder(out or settings.trained_dir / "_retriever", overwrite=overwrite)
    learnt = read_texts(data, learn, rows=rows, seed=recipe.schedule.seed)
    others = read_texts(data, unseen, rows=rows, seed=recipe.schedule.seed)
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
        write_json({**answer, "seed": recipe.schedule.seed})
