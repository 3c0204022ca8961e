"""LoGo: the adapters with the largest responses to the prompt's end, weighted by them.

    s_j = |B_j A_j x|   in one projection, x its input at the prompt's last token
    w_j = s_j / sum over the k loudest of s,   y = W x + sum_j w_j B_j A_j x
                                                             (LoGo, arXiv 2511.07129)

The paper's projection is the last block's query, its k is 20 of 260 adapters, and w are the weights
of the whole answer; all three as in the authors' code. It examines the whole pool; ours examines
the EXAMINED nearest, and k is the request's. Their x is the hidden state before the block's norm,
read with all adapters added; ours is what the projection gets, read by the bare base, as for all
methods that examine. Their other signal, 1 / entropy of softmax(B_j A_j x), is not here: responses
are kept as norms. An adapter that lacks the projection says nothing there, s_j = 0: it gets no
weight, and equal ones stand where all lack it.

Trained: nothing.

Cost: of a request, the prompt read once more by the bare base and A_j x of EXAMINED adapters at its
last token; of a token, that of `mixture`: the weights are fixed.

Claimed: on 27 data sets of 5 benchmarks and 3 model families, on some tasks up to 3.6 % above
baselines that are trained, level with them on the others (abstract).
"""

from collections.abc import Mapping, Sequence

import torch

from ramole_core.composition.activation import Response
from ramole_core.composition.decision import Ask, Decision, even
from ramole_core.composition.method import Candidate, Composition, register
from ramole_core.methods import Method, Option, Value

EXAMINED = 32


@register
class LoGo(Composition):
    row = Method(
        "logo",
        "LoGo, arXiv 2511.07129",
        "the adapters that answer loudest to the prompt's end, weighed by how loud",
        options=(
            Option(
                "module",
                -7,
                -100_000,
                100_000,
                "the projection, by its place among all; -7 is the last block's query in a Llama",
            ),
        ),
    )
    examines = EXAMINED

    def rank(
        self, candidates: Sequence[Candidate], options: Mapping[str, Value]
    ) -> Sequence[float]:
        return [loudness(c.response, int(options["module"])) for c in candidates]

    def decide(self, ask: Ask) -> Decision:
        at = int(ask.options["module"])
        loud = torch.tensor([loudness(a.response, at) for a in ask.adapters])
        if not loud.sum():
            return Decision(even(ask.present))
        return Decision(ask.everywhere(loud / loud.sum()))


def loudness(response: Response | None, module: int) -> float:
    """s_j; 0 where the adapter lacks the module, or was not measured. A place beyond the model's
    ends is its first or last module."""
    if response is None:
        return 0.0
    count = len(response.present)
    at = max(-count, min(module, count - 1))
    return float(response.log_norms[at].exp()) if response.present[at] else 0.0
