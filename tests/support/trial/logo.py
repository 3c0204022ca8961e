"""LoGo: how loud each LoRA answers to the prompt's last token in one module (arXiv 2511.07129).

w = softmax(|v_j| / tau), for the whole request; the loudest of those that were retrieved are taken

Nothing is trained in the paper; here tau may be.
"""

import torch

from ramole_core.composition import Composition, Decision, register
from ramole_core.methods import Method, Option


@register
class LoGo(Composition):
    row = Method(
        "trial_logo",
        "LoGo, arXiv 2511.07129",
        "the adapters that answer loudest to the prompt's end, weighed by that",
        options=(Option("module", -1, -1000, 1000, "the projection, by its place"),),
        weights="_trial_logo",
        training=(Option("tau", 1.0, 0.01, 100.0, "where tau starts"),),
    )
    examines = 8

    def rank(self, candidates, options):
        return [loudness(c.response, int(options["module"])) for c in candidates]

    def decide(self, ask):
        at = int(ask.options["module"])
        loud = torch.tensor([loudness(a.response, at) for a in ask.adapters])
        tau = ask.trained.tensors["tau"].float()
        return Decision((loud / tau).softmax(-1).repeat(len(ask.present), 1))

    def begin(self, sites, adapters, recipe):
        return {"tau": torch.tensor(recipe["tau"])}


def loudness(response, at):
    if response is None or not response.present[at]:
        return 0.0
    return float(response.log_norms[at].exp())
