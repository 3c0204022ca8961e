"""Arrow: route each token to the adapters whose strongest input direction it is aligned with.

    a_j     = top right singular vector of B_j A_j                         (Arrow, arXiv 2405.11157)
    score_j = |<a_j, x>|
    w       = softmax over the top n of score / temperature,   y = W x + sum_j w_j B_j A_j x

The paper's prototype of an expert is our a_j, its router logit our score; a_j is known up to its
sign, hence the absolute value. With orthonormal columns in B the right singular vectors are those
of A alone: where A A^T e = sigma^2 e with the largest sigma, a = A^T e / sigma, and

    <a, x> = <e / sigma, A x>

so the prototype is r numbers, read off A x, which is there anyway, and its eigenproblem is r x r.
PEFT (`tuners/lora/arrow.py`) finds a by 15 steps of power iteration; we find it exactly. Nothing is
trained, and there is no subtraction of general knowledge. An adapter that lacks a module, or whose
B is zero there, has no prototype: its score is 0, and it keeps the share that this gives it (the
paper and PEFT know only adapters of the same modules).

Trained: nothing.

Cost: k LoRAs a token, and k products of r numbers for the scores; an eigenproblem of r x r once an
adapter and module.

Claimed: second-hand (LORAUTER, arXiv 2601.21795), Llama-2-7b, 48 tasks, own adapter masked: Arrow
has 82.0 % of the right adapter's score, LoraRetriever 83.2 %.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition.decision import Adapter, Ask, Decision, Gate, UnitScore, even
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method, Option

TINY = 1e-30
"""Least sigma^2, for a B that is zero."""


@register
class Arrow(Composition):
    row = Method(
        "arrow",
        "Arrow, arXiv 2405.11157",
        "every token goes to the adapters whose strongest input direction it points along",
        options=(
            Option("top", 3, 0, 64, "n, how many adapters share the weight; 0: all"),
            Option("temperature", 1.0, 0.001, 1000.0, "how flat the weights are: large is 1/n"),
        ),
    )

    def decide(self, ask: Ask) -> Decision:
        scale = 1 / float(ask.options["temperature"])
        score = UnitScore("aligned", prototypes(ask), scale=scale)
        return Decision(even(ask.present), gate=Gate(score=score, top=int(ask.options["top"])))


def prototypes(ask: Ask) -> dict[str, list[Float[Tensor, "1 _"]]]:
    """e / sigma of each adapter at each module, a in the basis of its rank units; empty where it
    has no prototype."""
    none = torch.zeros(1, 0)
    every = [right_singular(adapter) for adapter in ask.adapters]
    return {
        path: [bases[path][None, :, -1] if path in bases else none for bases in every]
        for path in ask.sites.paths
    }


def right_singular(adapter: Adapter) -> dict[str, Float[Tensor, "_ _"]]:
    """Of each module that the adapter has, e / sigma of every singular value, one a column, the
    largest last: all right singular vectors in the basis of its rank units. A direction in which
    it does nothing is a column of zeros.

    In float64: in float32 two requests of one adapter came out differently on some CPUs, and what
    differs in float64 is lost where the result is rounded.
    """
    if not adapter.loras:
        return {}
    every = {path: lora.A.double() for path, lora in adapter.loras.items()}
    ranks = [A.shape[0] for A in every.values()]
    first = next(iter(every.values()))
    grams = first.new_zeros(len(every), max(ranks), max(ranks))
    for n, (A, r) in enumerate(zip(every.values(), ranks, strict=True)):
        grams[n, :r, :r] = A @ A.T
    # by numpy: PyTorch's own takes every core for small matrices, and several times as long
    squares, vectors = map(torch.from_numpy, np.linalg.eigh(grams.cpu().numpy()))  # ascending
    least = squares[:, -1:].clamp(min=TINY) * torch.finfo(squares.dtype).eps * 64
    inverse = torch.where(squares > least, squares, torch.inf).rsqrt()
    scaled = vectors * inverse[:, None, :]
    kinds = [torch.promote_types(lora.A.dtype, torch.float32) for lora in adapter.loras.values()]
    return {
        path: e[:r].to(kind) for path, e, r, kind in zip(every, scaled, ranks, kinds, strict=True)
    }
