"""MeteoRA: a gate in every linear layer chooses of a fixed pool (arXiv 2405.13053, eq. 3-6).

g = x W_g,   w = softmax over the top 2 of g,   y = W x + sum_j w_j B_j A_j x

Beside the language model's loss, the cross-entropy of g to the row's own adapter.
"""

import torch
import torch.nn.functional as F

from ramole_core.composition import Decision, FixedPool, Gate, even, register
from ramole_core.methods import Method, Option


@register
class MeteoRA(FixedPool):
    row = Method(
        "trial_meteora",
        "MeteoRA, arXiv 2405.13053",
        "a gate in every linear layer chooses two of the adapters it was trained on",
        options=(Option("top", 2, 1, 8, "how many share the weight"),),
        weights="_trial_meteora",
        training=(Option("balance", 0.5, 0.0, 100.0, "of the gates' own loss"),),
    )

    def decide(self, ask):
        rows = self.places(ask)
        W = {path: ask.trained.tensors[path][rows].float() for path in ask.sites.paths}
        gate = Gate(linear=W, top=ask.options["top"])
        return Decision(even(ask.present), gate=gate)

    def begin(self, sites, adapters, recipe):
        return {path: torch.randn(len(adapters), i) * 0.02 for path, (i, _) in sites.shapes.items()}

    def loss(self, watched, recipe):
        rows = (watched.own >= 0).nonzero()[:, 0]
        if not len(rows):
            return 0.0
        here = watched.answers[rows]
        target = watched.own[rows][:, None].expand_as(here)[here]
        each = [F.cross_entropy(g[rows][here], target) for g in watched.scores.values()]
        return recipe["balance"] * torch.stack(each).mean()
