"""LORAUTER: find the nearest tasks, and take the adapter measured best on each.

    a(t) = argmin_a losses[t, a]                                (LORAUTER, arXiv 2601.21795)
    p    = softmax over the k nearest tasks of cos(prompt, t) / temperature
    y    = W x + sum_t p_t v_a(t),   v_a = B_a A_a x

The paper's task is a small validation set, its vector the mean over its inputs; ours is the task
that an adapter was made for, its vector the adapter's own, the mean over the examples that it
shows. Several tasks may bring the same adapter, which then has the sum of their weights, so k tasks
are at most k adapters. The paper finds a(t) by successive halving over a large pool; our pool is
measured in full (`training/task_table.py`), by the loss of the right answer. That the weights are a
softmax of the similarities we took from descriptions of the paper, not from its text (unsure), as
the temperature of 0.2; large is its variant of equal weights.

What nobody measured is not guessed: an adapter that came later, or that is not in the table in this
content, is taken for its own task alone, and its own task brings it alone. A task whose adapter the
request excludes is unknown too, for that is what an unseen task is; `masked_tasks=true` reads it
all the same, the paper's case of a task that has a validation set and no adapter. Where adapters
are named, each task brings the best of those.

Trained: nothing; a table of losses, task by adapter, is measured by `train method lorauter`.

Cost: of a request, its cosine to every adapter's vector; of a token, that of `mixture`: the weights
are fixed, and k adapters of rank r are added. The table is n^2 small forwards, once.

Claimed: on Llama-2-7b and 48 tasks, 101.2 % of the right adapter's score where the task's own
adapter is in the pool, and 5.2 points over the best other routing on unseen tasks (abstract; base
model unsure); own adapter masked, 88.4 % against LoraRetriever's 83.2 %, Arrow's 82.0 % and
SpectR's 66.3 %, and 89.9 % with equal weights (second-hand, unsure).
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision, even
from ramole_core.composition.method import Composition, VisibleAdapter, register
from ramole_core.composition.trained import Trained
from ramole_core.methods import Method, Option, Value


@register
class Lorauter(Composition):
    row = Method(
        "lorauter",
        "LORAUTER, arXiv 2601.21795",
        "the nearest tasks bring the adapters that measured best on them",
        options=(
            Option("temperature", 0.2, 0.001, 1e3, "how flat the weights are: large is equal"),
            Option("masked_tasks", False, help="read tasks whose own adapter is excluded"),
        ),
        weights="_lorauter",
        training=(Option("rows", 8, 1, 1000, "how many rows of each task are measured"),),
    )
    weighs_similarity = True
    measures = True
    chooses = True

    def choose(
        self,
        known: Sequence[VisibleAdapter],
        k: int,
        *,
        options: Mapping[str, Value],
        trained: Trained | None,
    ) -> Mapping[int, float]:
        brings = best_on(known, trained)
        seen = [n for n in brings if options["masked_tasks"] or not known[n].excluded]
        nearest = sorted(seen, key=lambda n: -known[n].score)[:k]
        scores = torch.tensor([known[n].score for n in nearest], dtype=torch.float64)
        shares = (scores / options["temperature"]).softmax(-1).tolist()
        found: dict[int, float] = {}
        for task, share in zip(nearest, shares, strict=True):
            found[brings[task]] = found.get(brings[task], 0.0) + share
        return found

    def decide(self, ask: Ask) -> Decision:
        """Use the shares of `choose`; equal ones where that did not run."""
        shares = torch.tensor([adapter.share for adapter in ask.adapters], dtype=torch.float32)
        if not (shares >= 0).all() or not shares.sum():
            return Decision(even(ask.present))
        return Decision(ask.everywhere(shares / shares.sum()))


def best_on(known: Sequence[VisibleAdapter], trained: Trained | None) -> dict[int, int]:
    """The place of each task's best adapter, by the place of the task's own; tasks without one are
    left out."""
    places = {} if trained is None else {c: n for n, c in enumerate(trained.adapters)}
    losses = None if trained is None else trained.tensors["losses"]
    found: dict[int, int] = {}
    for n, task in enumerate(known):
        measured = places.get(task.checksum)
        if measured is None or losses is None:
            if task.open:
                found[n] = n
            continue
        row: Float[Tensor, " adapter"] = losses[measured]
        open_ = [j for j, one in enumerate(known) if one.open and one.checksum in places]
        if open_:
            found[n] = min(open_, key=lambda j: float(row[places[known[j].checksum]]))
    return found
