"""RAMoLE with evidence: who fits is asked twice, and a gate weighs both answers for every token.

    e_j     = s z_j - (max_i sim_i - sim_j) / h                     of the prompt, before any token
    alpha   = softmax_j(e_j + own z_jm(t) + below mean_{m' in layers below} z_jm'(t))
    y       = W x + sum_j alpha_j v_j,   v_j = B_j A_j x

sim is the retriever's cosine. z says how much louder than usual adapter j answers: (log |v_j| -
mean) / spread, mean and spread over everyday requests (`engine/reference.py`); z_j is its mean over
modules at the prompt's last token, read by the bare base, and z_jm(t) that of one module at one
token of the mixed model. The k adapters with the largest e are taken from the EXAMINED nearest.

Where the retriever is sure, the others are five h behind and its first answers nearly alone; where
nothing fits, all are within an h or so and the adapters' own responses count as well. So the
strength of the prior follows the confidence of the retriever. With s = own = below = 0 the weights
are softmax(sim / h). Nothing is trained, so an adapter that comes later is weighed like any other.
An adapter that lacks a module keeps its share there, and the base has it: a stranger with more
modules must not fill the gap. The numbers are in `Numbers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ramole_core.composition.contract import Evidence, Known, register
from ramole_core.composition.ramole import Routed

EXAMINED = 32


@dataclass(frozen=True)
class Numbers:
    """What the evidence counts; chosen on dev rows."""

    bandwidth: float = 0.05
    """h: an adapter whose similarity is this much below the best one counts e times less."""
    surprise: float = 1.0
    """s."""
    own: float = 0.3
    below: float = 0.0


@register
class RamolePlus(Routed):
    name = "ramole_plus"
    router = "evidence"
    weighs_similarity = True
    examines = EXAMINED
    numbers = Numbers()

    def rank(self, scores: Sequence[float], surprises: Sequence[float]) -> list[float]:
        """e of each adapter; what nobody asked counts 0."""
        best = max(map(_known, scores), default=0.0)
        return [
            self.numbers.surprise * _known(surprise)
            - (best - _known(score)) / self.numbers.bandwidth
            for score, surprise in zip(scores, surprises, strict=True)
        ]

    def evidence(self, known: Known) -> Evidence:
        e = torch.tensor(self.rank(known.scores, known.surprises))
        return Evidence(
            e.expand(known.modules, -1).contiguous(), (self.numbers.own, self.numbers.below)
        )


def _known(value: float) -> float:
    return 0.0 if value != value else value
