"""Train a method's own weights over frozen adapters: the RouterLoRA, and any other gate.

    loss = -log p(answer | prompt) under the method's own decision  +  its auxiliary loss

The method gives the tensors at their start (`begin`), what they stand for (`finish`), the decision
that reads them (`decide`, the same that is served) and its auxiliary loss (`loss`). Each row counts
alike, however long its answer. A row is mixed from the adapters that are found for it, as it is
served, its own hidden half the time; or from all of the training tasks' adapters, whole ones
dropped at random, at least two staying. In both, a gate must also make do without a row's own LoRA
(RAMoLE, arXiv 2406.16989, section 3.3).
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path

import torch
from torch import nn

from ramole_core.base.model import BaseModel
from ramole_core.composition import (
    Composition,
    Router,
    Trained,
    Watched,
    find_method,
    random_router,
)
from ramole_core.errors import RamoleError
from ramole_core.training.checkpoint import Progress
from ramole_core.training.companions import Companions, Near
from ramole_core.training.loop import Report, train
from ramole_core.training.loss import mean_by_row, row_losses, token_losses
from ramole_core.training.mixed_model import Loras, MixedModel, Shapes
from ramole_core.training.mixture import dev_rows, mixed_rows
from ramole_core.training.mole import train_mole
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.recovery import train_recovery
from ramole_core.training.rows import Batch, BatchOrder, Task, TaskRow, collate
from ramole_core.training.weights_file import write_weights


def train_method(
    recipe: MethodRecipe,
    *,
    loras: Loras,
    tasks: Sequence[Task],
    base: BaseModel,
    shapes: Shapes,
    out_dir: Path,
    checksums: Mapping[str, str] | None = None,
    near: Near | None = None,
    command: str = "",
    report: Report = lambda progress, steps: None,
) -> Progress:
    """Train a method over `loras` on the rows of `tasks`, one LoRA a task, and write `out_dir`.

    `near` finds adapters for a text, where the recipe retrieves them. `checksums` of the adapters'
    content go into the record, by which a method that knows a fixed pool knows it again. Until the
    run ends, `out_dir` holds nothing new but `.checkpoint/`; calling again with the same recipe
    goes on from there. Raises RamoleError where too few adapters are given, or `near` is needed and
    missing.
    """
    if (own := OWN.get(recipe.method)) is not None:
        return own(
            recipe,
            loras=loras,
            tasks=tasks,
            base=base,
            shapes=shapes,
            out_dir=out_dir,
            checksums=checksums,
            command=command,
            report=report,
        )
    method = find_method(recipe.method)
    _check_count(method, loras)
    most = len(loras) - (recipe.masked > 0)
    if recipe.retrieved and (method.fixed or method.experts(2) == 1):
        raise RamoleError(
            f"Method {recipe.method} is trained on all adapters that are given; set retrieved=0."
        )
    if recipe.retrieved > most:
        raise RamoleError(
            f"Each row is to be mixed from {recipe.retrieved} adapters that are found, but with "
            f"its own hidden only {most} are left; give more adapters, or retrieve fewer."
        )
    if recipe.retrieved and near is None:
        raise RamoleError(
            f"Each row is to be mixed from {recipe.retrieved} adapters that are found, and nothing "
            "was given to find them with; give `near`, or retrieved=0."
        )
    companions = Companions(recipe, tuple(loras), near)
    model = MixedModel(base, loras=loras, shapes=shapes, checksums=checksums)
    known = [(name, (checksums or {}).get(name, name)) for name in loras]
    if len({checksum for _, checksum in known}) < len(known):
        raise RamoleError(f"Of {', '.join(loras)}, two have the same content; name each once.")
    weights = fresh_weights(method, model, known, recipe)
    schedule = recipe.schedule
    rows = mixed_rows(base, tasks, recipe)
    dev = dev_rows(base, tasks, recipe)
    order = BatchOrder(rows, batch_rows=schedule.batch_rows, seed=schedule.seed)
    rank = None if method.fixed else int(recipe.settings.get("rank", CONTROL_RANK))
    controls = measure_controls(model, dev, companions, rank=rank, seed=schedule.seed)
    watches = type(method).loss is not Composition.loss
    config = {"adapters": [{"name": name, "checksum": checksum} for name, checksum in known]}

    def trained() -> Trained:
        return Trained(method.finish(weights, recipe.settings), config=config)

    def loss_of(step: int) -> torch.Tensor:
        chosen = order(step)
        names = companions.of_step(step, chosen)
        batch = collate(chosen)
        prompts = [row.prompt for row in chosen]
        with model.mixing(method, trained(), names=names, prompts=prompts, watch=watches):
            loss = mean_by_row(token_losses(model.plain, batch), batch)
        if watches:
            seen = watched(model, batch, [row.task for row in chosen], names)
            loss = loss + method.loss(seen, recipe.settings)
        return loss

    def measure() -> dict[str, float]:
        losses = row_losses(
            model.plain,
            dev,
            mixing=lambda rows: model.mixing(
                method,
                trained(),
                names=companions.of_dev(rows),
                prompts=[row.prompt for row in rows],
            ),
        )
        return {recipe.method: losses.mean().item(), **controls}

    try:
        progress = train(
            weights,
            schedule=schedule,
            loss_of=loss_of,
            measure=measure,
            checkpoint=out_dir / ".checkpoint" / "state.safetensors",
            recipe=dumps(
                {
                    **asdict(recipe),
                    "adapters": known,
                    "base": base.checksum,
                    "near": near.checksum if near and recipe.retrieved else "",
                },
                sort_keys=True,
            ),
            report=report,
        )
    finally:
        model.close()
    write_weights(
        out_dir,
        trained(),
        recipe=recipe,
        base=base,
        progress=progress,
        command=command,
    )
    shutil.rmtree(out_dir / ".checkpoint", ignore_errors=True)
    return progress


OWN: dict[str, Callable[..., Progress]] = {
    "ca_lora": train_recovery,
    "llava_mole": train_mole,
}
"""Methods that train adapters themselves, and how."""

CONTROL_RANK = 6
"""Of the random router beside a method that has no rank of its own and weighs any adapters."""


def _check_count(method: Composition, loras: Loras) -> None:
    if not method.row.training:
        raise RamoleError(f"Method {method.row.name} has nothing to train; name another.")
    if method.weighs_similarity:
        raise RamoleError(
            f"Method {method.row.name} weighs each adapter's similarity to a prompt, and training "
            "has none; name another."
        )
    one = method.experts(2) == 1
    if one and len(loras) != 1:
        raise RamoleError(
            f"Method {method.row.name} is trained on one adapter, and {len(loras)} were given; "
            "name one."
        )
    if not one and len(loras) < 2:
        raise RamoleError(
            f"A gate chooses between adapters, and only {len(loras)} was given; name two or more."
        )


def fresh_weights(
    method: Composition,
    model: MixedModel,
    known: Sequence[tuple[str, str]],
    recipe: MethodRecipe,
) -> dict[str, nn.Parameter]:
    """The method's tensors at their start, in float32 on the base's device; the seed decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.schedule.seed)
        tensors = method.begin(model.sites, known, recipe.settings)
    device = model.plain.device
    return {name: nn.Parameter(tensor.float().to(device)) for name, tensor in tensors.items()}


def watched(
    model: MixedModel, batch: Batch, own: Sequence[str], names: Sequence[Sequence[str]]
) -> Watched:
    """What the gates of the last forward did; `names` of each row's adapters, `own` among them."""
    answers = torch.zeros(batch.ids.shape, dtype=torch.bool)
    answers[batch.rows, batch.places] = True
    lengths = torch.zeros(len(batch.ids), dtype=torch.long)
    lengths = lengths.scatter_reduce(0, batch.rows, batch.places + 2, "amax")
    tokens = torch.arange(batch.ids.shape[1]) < lengths[:, None]
    places = [
        list(each).index(name) if name in each else -1
        for name, each in zip(own, names, strict=True)
    ]
    return Watched(
        scores=model.mixer.scores,
        alpha=model.mixer.alpha or {},
        own=torch.tensor(places, device=model.plain.device),
        answers=answers.to(model.plain.device),
        tokens=tokens.to(model.plain.device),
    )


def measure_controls(
    model: MixedModel,
    dev: Sequence[TaskRow],
    companions: Companions,
    *,
    rank: int | None,
    seed: int,
) -> dict[str, float]:
    """Dev losses that a gate is seen beside, of the same adapters: `uniform`, all weights equal;
    `random`, a frozen random router of that rank; without one `own`, each row's adapter alone."""

    def of(names: Callable[[Sequence[TaskRow]], Sequence[Sequence[str]]], router: Router | None):
        def gated(rows: Sequence[TaskRow]):
            return model.gated_by(router, names=names(rows))

        return row_losses(model.plain, dev, mixing=gated).mean().item()

    losses = {"uniform": of(companions.of_dev, None)}
    if rank is None:
        if any(row.task not in model.names for row in dev):
            return losses
        return losses | {"own": of(lambda rows: [(row.task,) for row in rows], None)}
    router = random_router(model.shapes, rank=rank, seed=seed)
    router = router.to(device=model.plain.device, dtype=torch.float32)
    return losses | {"random": of(companions.of_dev, router)}
