"""LoRA-LEGO: the rank units of all adapters, clustered; each cluster is one unit of one LoRA.

    m_j = [a_j ; b_j],   B A = sum_j b_j a_j                          (LoRA-LEGO, arXiv 2409.16167)
    C_1 ... C_k = k-means of the m_j of all adapters,   c_n = mean of C_n
    c_n <- c_n * (mean over C_n of |m|_inf) / |c_n|_inf         (parameter reweighting)
    y = W x + sqrt(r/k) sum_n b(c_n) a(c_n) x                   (output reweighting)

a_j is row j of an A, b_j column j of its B, m_j the paper's minimal semantic unit; k is the merged
rank, r the rank that went in. Adapters of unequal rank pool what they have: r is then the largest
number of units that one of them has in the module, and k is r unless the option `rank` is set; it
is never more than there are units. Ours:

- k-means starts from the loudest unit, then each time from the one that is farthest from those
  chosen, not from random ones: the order of the adapters does not count, and the same request is
  the same bits. On the sample pool the clusters are within 2 % as tight as the best of ten random
  starts. It needs the units' inner products alone, n x n of them for n = sum r units;
  scikit-learn's, which the tests compare with, takes ten times as long for a few dozen points.
- Each adapter's scale is folded into B, so it takes part in what is near to what.
- Units without effect (a or b is 0) are left out first.
- A weight w of a request makes its adapter's units k w times as large, with w = 1/k as without.
- `align` (no part of the paper): b a is also (-b)(-a), and (b/c)(c a); units are first brought to
  |a| = |b|, and to the sign in which they are nearest to their cluster's first unit.

Trained: nothing.

Cost: of a token that of one adapter of rank k. Of a request's first token, in every module, the
inner products of its n = sum r units, n^2 (i + o), and n^2 k for a round of k-means: for three
adapters of rank 8 and 180 modules of a 135M model 0.14 s of one core. The merge is kept for later.

Claimed: better than averaging and task arithmetic for Llama-2-7b and 13b merges over seven tasks,
and half of an adapter's rank cut away at nearly no loss (figures unsure: no source at hand).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision, Merge
from ramole_core.composition.lora import Lora, wide
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method, Option

MIN_DISTANCE = 1e-6
"""Squared distance below which units are one, as a share of the largest unit's square."""
MAX_ROUNDS = 300
"""Most rounds of k-means."""


@register
class Lego(Composition):
    row = Method(
        "lego",
        "LoRA-LEGO, arXiv 2409.16167",
        "the rank units of all adapters are clustered, each cluster is one unit of one adapter",
        options=(
            Option("rank", 0, 0, 256, "of the merged adapter; 0: the adapters' own, the largest"),
            Option("align", False, help="first balance |a| and |b|, and align signs: not in paper"),
        ),
    )
    merges = True

    def decide(self, ask: Ask) -> Decision:
        sizes = [ask.k * share for share in ask.shares]
        rank, align = int(ask.options["rank"]), bool(ask.options["align"])
        return Decision(
            ask.everywhere(ask.shares),
            merge=Merge(
                lambda _, loras: assemble(loras, sizes, rank=rank, align=align), rank or ask.rank
            ),
        )


def assemble(
    loras: Sequence[Lora | None], sizes: Sequence[float], *, rank: int, align: bool
) -> Lora | None:
    """The LoRA of the clusters' centres; None where no adapter has the module, or all are 0."""
    units = []
    for lora, size in zip(loras, sizes, strict=True):
        if lora is not None:
            A, B = wide(lora.A), wide(lora.B.T) * size
            units.append(torch.cat([A, B], dim=1)[A.any(1) & B.any(1)])
    if not any(map(len, units)):
        return None
    i = next(lora.A.shape[1] for lora in loras if lora is not None)
    pool, r = torch.cat(units), max(map(len, units))
    k = min(rank or r, len(pool))
    if k < len(pool):
        if align:
            pool = balanced(pool, i)
        labels, signs = cluster(pool, k, align=align)
        pool = centres(pool * signs[:, None], labels)
    scale = (r / k) ** 0.5
    return Lora(A=pool[:, :i].contiguous(), B=scale * pool[:, i:].T)


def balanced(units: Float[Tensor, "n d"], i: int) -> Float[Tensor, "n d"]:
    """The same units with |a| = |b|."""
    a, b = units[:, :i], units[:, i:]
    c = (b.norm(dim=1, keepdim=True) / a.norm(dim=1, keepdim=True)).sqrt()
    return torch.cat([a * c, b / c], dim=1)


def cluster(
    units: Float[Tensor, "n d"], k: int, *, align: bool
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """The cluster of each unit, and its sign (1 unless they are aligned); at most k, fewer where
    units are the same."""
    gram = (units @ units.T).double().numpy()
    squares = gram.diagonal()
    apart = squares[:, None] + squares - 2 * (abs(gram) if align else gram)
    starts = [int(squares.argmax())]
    nearest = apart[starts[0]]
    while len(starts) < k and nearest.max() > MIN_DISTANCE * squares.max():
        starts.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, apart[starts[-1]])
    labels = apart[:, starts].argmin(1)
    signs = np.ones(len(units))
    if align:
        signs[gram[np.arange(len(units)), np.array(starts)[labels]] < 0] = -1
    labels = k_means(gram * signs * signs[:, None], labels)
    return torch.from_numpy(labels), torch.from_numpy(signs).to(units)


def k_means(gram: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Lloyd's rounds from these clusters until none changes, by inner products [n, n] alone:
    |m - c|^2 = |m|^2 - 2 mean <m, C> + mean <C, C>. Label by point; one that loses all its points
    is gone."""
    for _ in range(MAX_ROUNDS):
        member = labels[:, None] == np.unique(labels)
        mean = member / member.sum(0)
        cross = gram @ mean
        new = ((mean * cross).sum(0) - 2 * cross).argmin(1)
        if (member[np.arange(len(new)), new]).all():
            break
        labels = new
    return labels


def centres(units: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> Float[Tensor, "_ d"]:
    """The mean of each cluster, as large in the infinity norm as its units are on average."""
    member = (labels[:, None] == labels.unique()).to(units)
    share = (member / member.sum(0)).T
    mean = share @ units
    largest = mean.abs().amax(1)
    size = share @ units.abs().amax(1)
    return mean * torch.where(largest > 0, size / largest, 1.0)[:, None]
