"""Train a gate's weights over frozen adapters: the RouterLoRA, and any other gate.

    loss = -log p(answer | prompt) under the method's own decision  +  its auxiliary loss

The method gives the tensors at their start (`begin`), what they stand for (`finish`), the decision
that reads them (`decide`, the same that is served) and its auxiliary loss (`loss`). Each row counts
alike, however long its answer. A row is mixed from the adapters that are found for it, as it is
served, its own hidden half the time; or from all of the training tasks' adapters, whole ones
dropped at random, at least two staying. In both, a gate must also make do without a row's own LoRA
(RAMoLE, arXiv 2406.16989, section 3.3).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

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
from ramole_core.training.loop import Trainable, TrainingRun, train
from ramole_core.training.loss import mean_by_row, row_losses, token_losses
from ramole_core.training.material import Material, dev_rows, identity, mixed_rows
from ramole_core.training.mixed_model import MixedModel
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import Batch, BatchOrder, Encoded, collate
from ramole_core.training.sampled_adapters import SampledAdapters
from ramole_core.training.weights_folder import write_weights

OTHER_START = (
    "The weights to begin with are of another base or other settings than those to be trained; "
    "leave --start out."
)
CONTROL_RANK = 6
"""Rank of the random router beside a gate for any adapters without a rank of its own."""


def train_gate(recipe: MethodRecipe, given: Material, run: TrainingRun) -> Progress:
    """Train the gate of a method and write its folder. Raises RamoleError where it cannot be."""
    method, base, schedule = find_method(recipe.method), given.base, recipe.schedule
    _check(method, recipe, given)
    checksums = dict(given.known)
    with closing(
        MixedModel(base, loras=given.loras, shapes=given.shapes, checksums=checksums)
    ) as model:
        weights = first_weights(method, model, recipe, given)
        dev = dev_rows(base, given.tasks, schedule)
        order = BatchOrder(mixed_rows(base, given.tasks, schedule), schedule)
        companions = SampledAdapters(recipe, tuple(given.loras), given.near)
        rank = None if method.fixed else int(recipe.settings.get("rank", CONTROL_RANK))
        controls = measure_controls(model, dev, companions, rank=rank, seed=schedule.seed)
        watches = method.has_loss(recipe.settings)

        def trained() -> Trained:
            return Trained(method.finish(weights, recipe.settings), config=given.config)

        def loss_of(step: int) -> Tensor:
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

        def mixed(rows: Sequence[Encoded]):
            prompts = [row.prompt for row in rows]
            return model.mixing(method, trained(), names=companions.of_dev(rows), prompts=prompts)

        def save(folder: Path, progress: Progress) -> None:
            write_weights(folder, trained(), recipe, base=base, progress=progress, run=run)

        one = Trainable(
            name=recipe.method,
            parameters=weights,
            loss=loss_of,
            dev_loss=lambda: {
                recipe.method: row_losses(model.plain, dev, mixing=mixed).mean().item(),
                **controls,
            },
            facts={
                "recipe": asdict(recipe),
                "adapters": given.known,
                "near": given.near.checksum if given.near and recipe.retrieved else "",
                **({"start": given.start.checksum} if given.start else {}),
                **identity(base, given.tasks),
            },
            epoch=order.epoch,
            save=save,
        )
        return train(one, schedule, run)


def _check(method: Composition, recipe: MethodRecipe, given: Material) -> None:
    """Raise RamoleError where the method is not trained, or not on so many adapters."""
    name, count, one = method.row.name, len(given.loras), method.experts(2) == 1
    if not method.row.training:
        raise RamoleError(f"Method {name} has nothing to train; name another.")
    if method.weighs_similarity:
        raise RamoleError(
            f"Method {name} weighs each adapter's similarity to a prompt, and training "
            "has none; name another."
        )
    if one and count != 1:
        raise RamoleError(
            f"Method {name} is trained on one adapter, and {count} were given; name one."
        )
    if not one and count < 2:
        raise RamoleError(
            f"A gate chooses between adapters, and only {count} was given; name two or more."
        )
    if not recipe.retrieved:
        return
    each = f"Each row is to be mixed from {recipe.retrieved} adapters that are found"
    if method.fixed or one:
        raise RamoleError(
            f"Method {name} is trained on all adapters that are given; set retrieved=0."
        )
    if recipe.retrieved > (most := count - (recipe.masked > 0)):
        raise RamoleError(
            f"{each}, but with its own hidden only {most} are left; give more adapters, or "
            "retrieve fewer."
        )
    if given.near is None:
        raise RamoleError(
            f"{each}, and nothing was given to find them with; give `near`, or retrieved=0."
        )


def fresh_weights(
    method: Composition,
    model: MixedModel,
    known: Sequence[tuple[str, str]],
    recipe: MethodRecipe,
) -> dict[str, nn.Parameter]:
    """The method's tensors at their start; the seed decides."""
    begin = method.begin
    return model.drawn(
        lambda: begin(model.sites, known, recipe.settings), seed=recipe.schedule.seed
    )


def first_weights(
    method: Composition, model: MixedModel, recipe: MethodRecipe, given: Material
) -> dict[str, nn.Parameter]:
    """The tensors of a run's first step: fresh, or those of `given.start`, adapter by adapter."""
    weights = fresh_weights(method, model, given.known, recipe)
    if given.start is None:
        return weights
    pooled = {}
    if method.fixed:
        larger = fresh_weights(method, model, [*given.known, ("one more", "one more")], recipe)
        pooled = grown_dimensions(weights, larger)
    start = method.resume(given.start.tensors, recipe.settings)
    fill(weights, start, pooled, names=tuple(given.loras), known=[*given.start.adapters.values()])
    return weights


def grown_dimensions(
    weights: Mapping[str, Tensor], larger: Mapping[str, Tensor]
) -> dict[str, list[int]]:
    """The dimensions with a place for each adapter: those that one adapter more makes larger."""
    return {
        name: [n for n, size in enumerate(tensor.shape) if larger[name].shape[n] != size]
        for name, tensor in weights.items()
    }


@torch.no_grad()
def fill(
    weights: Mapping[str, nn.Parameter],
    start: Mapping[str, Tensor],
    pooled: Mapping[str, Sequence[int]],
    *,
    names: Sequence[str],
    known: Sequence[str],
) -> None:
    """Begin with weights that were trained over the same adapters or others, in any order.

    Along the `pooled` dimensions of each tensor, the places of those of the `names` that are
    `known` to the weights are taken, by name; the others stay as they are. Raises RamoleError
    where sizes differ.
    """
    both = [name for name in names if name in known]
    mine, theirs = [names.index(one) for one in both], [known.index(one) for one in both]
    if weights.keys() != start.keys():
        raise RamoleError(OTHER_START)
    for name, tensor in weights.items():
        places = pooled.get(name, ())
        needed = [len(known) if n in places else size for n, size in enumerate(tensor.shape)]
        if list(start[name].shape) != needed:
            raise RamoleError(OTHER_START)
        into = [mine if n in places else range(size) for n, size in enumerate(tensor.shape)]
        of = [theirs if n in places else range(size) for n, size in enumerate(tensor.shape)]
        tensor[np.ix_(*into)] = start[name][np.ix_(*of)].to(tensor)


def watched(
    model: MixedModel, batch: Batch, own: Sequence[str], names: Sequence[Sequence[str]]
) -> Watched:
    """The gates of the last forward; `names` of each row's adapters, `own` among them."""
    device, pairs = model.plain.device, zip(own, names, strict=True)
    answers = torch.zeros(batch.ids.shape, dtype=torch.bool)
    answers[batch.rows, batch.places] = True
    places = [list(each).index(name) if name in each else -1 for name, each in pairs]
    return Watched(
        scores=model.mixer.scores,
        alpha=model.mixer.alpha or {},
        own=torch.tensor(places, device=device),
        answers=answers.to(device),
        tokens=batch.real.to(device),
    )


def measure_controls(
    model: MixedModel,
    dev: Sequence[Encoded],
    companions: SampledAdapters,
    *,
    rank: int | None,
    seed: int,
) -> dict[str, float]:
    """Dev losses to compare a gate with, of the same adapters: `uniform`, all weights equal;
    `random`, a frozen random router of that rank; without one `own`, each row's adapter alone."""

    def of(names: Callable[[Sequence[Encoded]], Sequence[Sequence[str]]], router: Router | None):
        def gated(rows: Sequence[Encoded]):
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
