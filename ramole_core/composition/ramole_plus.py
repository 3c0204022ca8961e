"""RAMoLE with evidence: who fits is asked twice, and a gate weighs both answers for every token.

    e_j     = SIMILARITY sim_j + SURPRISE z_j                       of the prompt, before any token
    alpha   = softmax_j(e_j + OWN z_jm(t) + BELOW mean_{m' in layers below} z_jm'(t))
    y       = W x + sum_j alpha_j v_j,   v_j = B_j A_j x

sim is the retriever's cosine. z says how much louder than usual adapter j answers: (log |v_j| -
mean) / spread, mean and spread over everyday requests (`engine/reference.py`); z_j is its mean over
modules at the prompt's last token, read by the bare base, and z_jm(t) that of one module at one
token of the mixed model. The k adapters with the largest e are taken from the EXAMINED nearest.

Where the retriever is sure, one e_j stands out and that adapter answers nearly alone; where it is
not, the softmax is flat and the adapters' own responses decide. Nothing is trained, so an adapter
that comes later is weighed like any other. The four numbers were chosen on dev rows (LOG.md).
"""

from collections.abc import Sequence

import torch

from ramole_core.composition.contract import Evidence, Known, register
from ramole_core.composition.ramole import Routed

SIMILARITY, SURPRISE = 10.0, 3.0
OWN, BELOW = 0.0, 1.0
EXAMINED = 32


@register
class RamolePlus(Routed):
    name = "ramole_plus"
    router = "evidence"
    weighs_similarity = True
    examines = EXAMINED

    def rank(self, scores: Sequence[float], surprises: Sequence[float]) -> list[float]:
        """e of each adapter; what nobody asked counts 0."""
        return [
            SIMILARITY * _known(score) + SURPRISE * _known(surprise)
            for score, surprise in zip(scores, surprises, strict=True)
        ]

    def evidence(self, known: Known) -> Evidence:
        e = torch.tensor(self.rank(known.scores, known.surprises))
        return Evidence(e.expand(known.modules, -1).contiguous(), (OWN, BELOW))


def _known(value: float) -> float:
    return 0.0 if value != value else value
