"""SpectR: route each token to the adapters with the largest response over their whole spectrum.

    B_j A_j = U_j S_j V_j^T                                      (SpectR, arXiv 2504.03454)
    score_j = |S_j V_j^T x| = |B_j A_j x|
    w       = softmax over the top n of score / temperature,   y = W x + sum_j w_j B_j A_j x

The paper keeps an adapter as U_j and S_j V_j^T, and scores by the length of what the latter gives.
Columns of U_j are orthonormal, so this is the length of the adapter's update; ours has orthonormal
columns in B, so it is |A_j x|, which is there anyway, and no decomposition is needed. (That the
score has S_j in it we took from SEQR, arXiv 2509.18093, by the same authors: it finds the adapter
of the largest |B_j A_j x| and says that SpectR finds the same.) `spectrum=false` leaves S_j out:
score_j = |V_j^T x|, how much of x lies in the adapter's input space, however weak it acts there;
Arrow is its first term. Where A A^T = E S^2 E^T, V^T x = S^-1 E^T A x: r x r numbers an adapter.

Scores are not normalised by |x|, since the paper does not mention it (unsure); n and temperature
are those of Arrow here, so that the two can be compared. An adapter that lacks a module scores 0
there and keeps the share that this gives it.

Trained: nothing.

Cost: of a token and module, k norms of r numbers, k r^2 more products without the spectrum; k
adapters are added, as in `mixture`. Of a request nothing; without the spectrum, an r x r
eigenproblem a module and adapter.

Claimed: routing accuracy 4 points above other training-free methods (Arrow) on average, single
tasks up to 15 % better (from a summary of the paper, unsure).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition.arrow import right_singular
from ramole_core.composition.decision import Ask, Decision, Gate, Signal, UnitScore, even
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method, Option


@register
class SpectR(Composition):
    row = Method(
        "spectr",
        "SpectR, arXiv 2504.03454",
        "every token goes to the adapters that answer it loudest",
        options=(
            Option("top", 3, 0, 64, "n, how many adapters share the weight; 0: all"),
            Option("temperature", 1.0, 0.001, 1000.0, "how flat the weights are: large is 1/n"),
            Option("spectrum", True, help="directions count by their singular values"),
        ),
    )

    def decide(self, ask: Ask) -> Decision:
        top, temperature = int(ask.options["top"]), float(ask.options["temperature"])
        if ask.options["spectrum"]:
            loudness = UnitScore("length", scale=1 / temperature)
            return Decision(even(ask.present), gate=Gate(score=loudness, top=top))
        every = [right_singular(adapter) for adapter in ask.adapters]

        def score(signal: Signal) -> Float[Tensor, "*l k"]:
            parts = []
            for u, bases in zip(signal.u, every, strict=True):
                basis = bases.get(signal.path)
                if basis is None:
                    parts.append(u.new_zeros(u.shape[:-1]))
                else:
                    parts.append((u @ basis.to(u)).square().sum(-1).sqrt())
            return torch.stack(parts, dim=-1) / temperature

        return Decision(even(ask.present), gate=Gate(score=score, top=top))
