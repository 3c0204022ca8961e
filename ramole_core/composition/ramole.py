"""RouterLoRA: one more LoRA attends over the outputs of the others, token by token.

    v_i = B_i A_i x,   q = A_r x,   k_i = B_r^T v_i            (RAMoLE, arXiv 2406.16989, eq. 6-8)
    alpha = softmax_i(<q, k_i> / sqrt(s)),  y = W x + sum_i alpha_i v_i          (eq. 9-11)

We compute k_i as (B_r^T B_i)(A_i x), the Gram gate, so no v_i of size o is ever made for the gate.
The divisor is the root of the *router's* rank s; the router's own B_r A_r x is never added. The
softmax runs over all k adapters of the request: one that lacks the module has v = 0, so the score
0, and keeps its share, which the base then has. Training starts from B_r = 0, the uniform gate,
which still has a gradient.

Trained: A_r and B_r of every module, on 12 of the sample pool's 24 tasks (the paper: 40 % of 48);
adapters that come later need no training.

Cost: k LoRAs and the router a token and module: u_i = A_i x is there anyway, the scores are k
products of r by s.

Claimed: Llama-2-7b, 48 tasks, mean of the 56 rows of the paper's table (a task and metric each),
IID / OOD: RAMoLE 51.8 / 47.7, mixture 49.8 / 45.6, selection 51.2 / 43.0; perfect selection 55.4
(as its overall table says; its table by task averages 51.2 / 45.9).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision, Gate, even
from ramole_core.composition.lora import uniform
from ramole_core.composition.method import Composition, Watched, register
from ramole_core.composition.router import Router, read_router
from ramole_core.composition.sites import Sites
from ramole_core.composition.trained import Trained, scaled
from ramole_core.methods import Method, Option, Value


@register
class Ramole(Composition):
    row = Method(
        "ramole",
        "RAMoLE, arXiv 2406.16989",
        "a trained RouterLoRA weighs the adapters for every token and layer",
        weights="_router",
        training=(
            Option("rank", 6, 1, 64, "s, the rank of A_r and B_r"),
            Option("alpha", 12.0, 1e-3, 1e3, "alpha/s is folded into B_r when it is written"),
            Option("own", 0.0, 0.0, 100.0, "beta, of the cross-entropy with the row's adapter"),
        ),
    )

    def __init__(self):
        self._read: dict[tuple[str, Sites], Router] = {}

    def decide(self, ask: Ask) -> Decision:
        assert ask.trained is not None  # the row names them
        return Decision(even(ask.present), gate=Gate(router=self._router(ask.trained, ask.sites)))

    def _router(self, trained: Trained, sites: Sites) -> Router:
        """The router of a file and a model, cached, so that the engine may compare by identity."""
        key = trained.checksum, sites
        read = self._read  # once: another thread may replace it
        if not trained.checksum or key not in read:
            self._read = read = {key: read_router(trained, shapes=sites.shapes)}
        return read[key]

    def begin(
        self, sites: Sites, adapters: Sequence[tuple[str, str]], recipe: Mapping[str, Value]
    ) -> dict[str, Tensor]:
        """A_r uniform as PEFT initialises A, B_r zero; one for any pool."""
        rank, tensors = int(recipe["rank"]), {}
        for path, (i, o) in sites.shapes.items():
            tensors[f"{path}.A_r"] = uniform(rank, i)
            tensors[f"{path}.B_r"] = torch.zeros(o, rank)
        return tensors

    def loss(self, watched: Watched, recipe: Mapping[str, Value]) -> Tensor | float:
        """Not in the paper, which has the language model's loss alone (`own` = 0)."""
        return recipe["own"] * watched.own_cross_entropy()

    def has_loss(self, recipe: Mapping[str, Value]) -> bool:
        return recipe["own"] > 0

    def finish(
        self, tensors: Mapping[str, Tensor], recipe: Mapping[str, Value]
    ) -> Mapping[str, Tensor]:
        """alpha/s folded into B_r."""
        return scaled(tensors, ".B_r", recipe["alpha"] / recipe["rank"])

    def resume(
        self, tensors: Mapping[str, Tensor], recipe: Mapping[str, Value]
    ) -> Mapping[str, Tensor]:
        scale = recipe["alpha"] / recipe["rank"]
        return {n: t / scale if n.endswith(".B_r") else t for n, t in tensors.items()}
