"""MoLE in another form than the product's: each output normalised, the whole e, and masks.

logits = e [v_1/|v_1| ... v_k/|v_k|],   w = softmax(logits / tau),   y = W x + sum_j w_j v_j

Experts that are masked, here those that lack the module, are dropped, and the others share all of
the weight.

Balance: - log prod_j mean(w_j).
"""

import torch

from ramole_core.composition import Decision, FixedPool, Gate, even, register
from ramole_core.methods import Method, Option


@register
class MoLE(FixedPool):
    row = Method(
        "trial_mole",
        "MoLE, arXiv 2404.13628",
        "a gate reads the adapters' normalised outputs side by side",
        options=(Option("heat", 1.0, 0.01, 100.0, "times tau"),),
        weights="_trial_mole",
        training=(Option("balance", 0.1, 0.0, 10.0, "of the balance loss"),),
    )

    def decide(self, ask):
        rows = self.places(ask)
        tensors, read = ask.trained.tensors, {}
        for path in ask.sites.paths:
            e = tensors[f"{path}.e"].float()[rows][:, rows]
            loras = [a.loras.get(path) for a in ask.adapters]
            read[path] = [
                None if lora is None else e[:, j] @ lora.B.float() for j, lora in enumerate(loras)
            ]
        tau = tensors["tau"].float() * ask.options["heat"]

        def score(signal):
            parts = [
                (u / signal.norms[..., j : j + 1]) @ M.T.to(u.dtype)
                for j, (u, M) in enumerate(zip(signal.u, read[signal.path], strict=True))
                if M is not None
            ]
            return sum(parts) / tau

        return Decision(even(ask.present), gate=Gate(score=score, keeps=False))

    def begin(self, sites, adapters, recipe):
        k = len(adapters)
        tensors = {f"{p}.e": torch.randn(k, k, o) * 0.1 for p, (_, o) in sites.shapes.items()}
        return tensors | {"tau": torch.tensor(1.0)}

    def loss(self, watched, recipe):
        mean = torch.stack([a[watched.answers].mean(0) for a in watched.alpha.values()])
        return -recipe["balance"] * (mean + 1e-6).log().sum(-1).mean()
