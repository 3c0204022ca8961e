"""Arrow: the direction in which each LoRA acts most is its prototype (arXiv 2405.11157, eq. 3-4).

a_j = the top right singular vector of B_j A_j,   w = softmax over the top n of scale |<a_j, x>|

Nothing is trained in the paper; here the scale may be.
"""

import torch

from ramole_core.composition import Composition, Decision, Gate, even, register
from ramole_core.methods import Method, Option


@register
class Arrow(Composition):
    row = Method(
        "trial_arrow",
        "Arrow, arXiv 2405.11157",
        "each adapter's own strongest direction is compared with the layer's input",
        options=(Option("top", 0, 0, 8, "how many share the weight; 0: all"),),
        weights="_trial_arrow",
        training=(Option("scale", 1.0, 0.01, 100.0, "what the scale starts from"),),
    )

    def decide(self, ask):
        scale = ask.trained.tensors["scale"].float()
        prototypes = {
            path: torch.stack(
                [
                    torch.zeros(i) if lora is None else prototype(lora.A.float())
                    for lora in (a.loras.get(path) for a in ask.adapters)
                ]
            )
            for path, (i, _) in ask.sites.shapes.items()
        }

        def score(signal):
            wide = signal.u[0].dtype
            return scale.to(wide) * (signal.x.to(wide) @ prototypes[signal.path].to(wide).T).abs()

        gate = Gate(score=score, top=ask.options["top"])
        return Decision(even(ask.present), gate=gate)

    def begin(self, sites, adapters, recipe):
        return {"scale": torch.tensor(recipe["scale"])}


def prototype(A):
    """B's columns are orthonormal, so the right singular vectors of B A are those of A."""
    return torch.linalg.svd(A, full_matrices=False).Vh[0]
