"""LoraHub: one LoRA of all, its weights found by a search on about five examples.

    A = sum_j w_j A_j,   B = sum_j w_j B_j,   y = W x + B A x        (arXiv 2307.13269)

    w* = argmin over |w_j| <= 1.5 of  L(w) + 0.05 * 1/k sum_j |w_j|

L is the mean loss of the examples' target tokens, in nats, without gradients: NGOpt of nevergrad
proposes `steps` weights, beginning at 0 (the base). B A has the cross terms w_i w_j B_i A_j, so w
and -w are the same, and a LoRA alone counts w^2. The sums are those of `fusion`, which takes the
mean: unequal ranks are zero-padded at the end, and the scale of each LoRA is folded into its B.
Where an adapter lacks the module its terms are 0. Given weights are taken as they are. Ours to say:
`best` is the best of those that were tried, and the answer to equal examples is equal (`seed`, 0 if
none; the authors' code takes NGOpt's own recommendation, and divides its loss once more by the
number of examples). Without weights, which no request comes with, `decide` takes 1/k each: where
the search has not begun it is `fusion`.

Trained: nothing. A search of `steps` forced readings of the examples finds k numbers, once for the
same examples and adapters.

Cost: a request like any merge, one LoRA of the largest rank whatever k is. The search before it
makes `steps` merges (210 modules on the default base) and has each example read as often: 0.9 s of
one core a step on the default base (135M, NF4) with k = 3 and five text messages, so 36 s for 40
steps without other requests. Beside rows that decode it reads 4 tokens a step of theirs at most.

Claimed: Flan-T5-large, BIG-Bench Hard, 27 tasks, 5 examples, 20 random LoRAs of about 200: mean
accuracy 34.7 over five runs and 41.2 the best of them, against 27.0 zero-shot and 37.8 with five
examples in the prompt (unsure of the decimals).
"""

import time
import warnings
from collections.abc import Mapping

import numpy as np

from ramole_core.composition.decision import Ask, Decision
from ramole_core.composition.fusion import fused
from ramole_core.composition.method import Composition, Search, Tried, register
from ramole_core.methods import Method, Option, Value

MAX_WEIGHT = 1.5
"""Largest absolute weight."""
PENALTY = 0.05
"""Factor of the mean of |w| in the objective."""
MAX_STEPS = 50
"""Steps an adapter: with more, NGOpt learns a model of the loss, and nevergrad 1.0.12 fails there
under numpy 2.4."""


@register
class LoraHub(Composition):
    row = Method(
        "lorahub",
        "LoraHub, arXiv 2307.13269",
        "one adapter made of all, with weights that a search finds on a few examples",
        options=(Option("steps", 40, 1, 100, "Weights that the search tries"),),
        fits=True,
    )
    merges = True

    def decide(self, ask: Ask) -> Decision:
        return fused(ask)

    def search(self, k: int, options: Mapping[str, Value], *, seed: int) -> Search:
        return WeightSearch(k, steps=int(options["steps"]), seed=seed)


class WeightSearch(Search):
    """NGOpt over k weights."""

    def __init__(self, k: int, *, steps: int, seed: int):
        from nevergrad.common.errors import NevergradWarning  # seconds: only this method needs it
        from nevergrad.optimization.optimizerlib import NGOpt
        from nevergrad.parametrization.data import Array

        # It gives SciPy's COBYLA what COBYLA mends and tells, and says where one has converged.
        warnings.filterwarnings("ignore", "COBYLA: Invalid", UserWarning)
        warnings.filterwarnings("ignore", category=NevergradWarning)
        weights = Array(init=np.zeros(k)).set_bounds(-MAX_WEIGHT, MAX_WEIGHT)
        weights.random_state = np.random.RandomState(seed % 2**32)
        self.steps = min(steps, MAX_STEPS * k)
        self._optimizer = NGOpt(parametrization=weights, budget=self.steps)
        self._asked = None
        self._best: Tried | None = None

    def ask(self) -> tuple[float, ...]:
        assert self._optimizer is not None, "the search was closed"
        _let_end(self._optimizer)
        self._asked = self._optimizer.ask()
        return tuple(float(w) for w in self._asked.value)

    def tell(self, tried: Tried) -> None:
        assert self._optimizer is not None and self._asked is not None, "ask before you tell"
        self._optimizer.tell(self._asked, objective(tried))
        if self._best is None or objective(tried) < objective(self._best):
            self._best = tried

    @property
    def best(self) -> Tried | None:
        return self._best

    def close(self) -> None:
        self._optimizer = self._asked = None  # some of its optimizers have a thread, which ends so


def _let_end(optimizer: object) -> None:
    """Wait until an inner optimizer that has converged is over: nevergrad runs COBYLA in a thread,
    and would wait for ever for one that is about to end (1.0.12, `recaster.py`)."""
    inner = getattr(optimizer, "optim", None)
    thread = getattr(inner, "_messaging_thread", None)
    while thread is not None and thread.output is not None and thread.is_alive():
        time.sleep(0.001)


def objective(tried: Tried) -> float:
    """The search's objective."""
    return tried.loss + PENALTY * sum(map(abs, tried.weights)) / len(tried.weights)
