"""The merge of sparse task vectors in TIES and DARE, of A's and B's apart or of products.

    apart:     A = merge of the A_j by sign(w) sqrt|w|,   B = merge of the B_j by sqrt|w|
    products:  B A = the nearest of rank r to the merge of the B_j A_j by w

In the papers a task vector is all that fine-tuning changed, so for a LoRA it is B A. PEFT merges
so where the name ends in `_svd`; otherwise A's and B's on their own, as is usual for LoRAs: cheap,
and the rank stays, but then (merge B)(merge A) has the products of one adapter's B with another's
A, and ranks are zero-padded at the end. Both are here. A's and B's apart depend on how a scale is
split between them: ours is folded into B, PEFT's is sqrt(alpha/r) on both, which is the same LoRA
where all adapters have one scale.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from ramole_core.composition.decision import Ask, Decision, Merge
from ramole_core.composition.lora import Lora, widened

Sparsify = Callable[[Tensor, Lora, str], Tensor]
"""What is left of one task vector; with the LoRA that it is of, and `A`, `B` or `BA`."""
Combine = Callable[[Tensor, Tensor, float], Tensor]
"""One tensor of [k, ...] and k weights; with what the weights of the whole request sum to in size,
adapters that lack the module included (of halves: its root)."""


def merge_decided(ask: Ask, *, sparsify: Sparsify, combine: Combine) -> Decision:
    """The merge of a method whose options are `scale`, `products` and `rank` (of the products); the
    request's weights weigh the task vectors. An adapter alone is kept whole."""
    scale, rank = ask.options["scale"], int(ask.options["rank"]) or ask.rank
    total = sum(map(abs, ask.shares))

    def make(path: str, loras: Sequence[Lora | None]) -> Lora | None:
        pairs = zip(ask.shares, loras, strict=True)
        here = [(w, widened(lora)) for w, lora in pairs if lora is not None]
        if not here:
            return None
        if len(loras) == 1:
            (share, lora), *_ = here
            return Lora(A=lora.A, B=scale * share * lora.B)
        every = [trimmed(lora) for _, lora in here]
        w = torch.tensor([share for share, _ in here], dtype=every[0].A.dtype)
        if ask.options["products"]:
            left = [sparsify(lora.B @ lora.A, lora, "BA") for lora in every]
            return nearest_lora(scale * combine(torch.stack(left), w, total), rank)
        r = max(lora.A.shape[0] for lora in every)
        A = [pad(sparsify(m.A, m, "A"), (0, 0, 0, r - m.A.shape[0])) for m in every]
        B = [pad(sparsify(m.B, m, "B"), (0, r - m.B.shape[1])) for m in every]
        root = w.abs().sqrt()
        return Lora(
            A=combine(torch.stack(A), root * w.sign(), total**0.5),
            B=scale * combine(torch.stack(B), root, total**0.5),
        )

    return Decision(ask.everywhere(ask.shares), merge=Merge(make, max(rank, ask.rank)))


def trimmed(lora: Lora) -> Lora:
    """The LoRA without zero units of padding at the end."""
    here = (lora.A.any(1) | lora.B.any(0)).nonzero()
    r = int(here[-1]) + 1 if len(here) else 1
    return Lora(A=lora.A[:r], B=lora.B[:, :r])


def nearest_lora(product: Float[Tensor, "o i"], rank: int) -> Lora:
    """The LoRA of at most that rank whose B A is nearest (Eckart and Young); B's columns are
    orthonormal. From the smaller Gram matrix, in float64."""
    D = product.double()
    o, i = D.shape
    vectors = torch.linalg.eigh(D @ D.T if o <= i else D.T @ D).eigenvectors  # ascending
    top = vectors[:, -min(rank, o, i) :].flip(1)
    if o <= i:
        A, B = top.T @ D, top
    else:
        B, R = torch.linalg.qr(D @ top)
        A = R @ top.T
    return Lora(A=A.to(product.dtype), B=B.to(product.dtype))
