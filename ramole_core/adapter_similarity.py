"""The similarity of adapters: the cosine of each two updates, over all modules together.

    cos(j, m) = <B_j A_j, B_m A_m> / (|B_j A_j| |B_m A_m|),
    <B_j A_j, B_m A_m> = sum over modules of sum((B_j^T B_m) * (A_j A_m^T))

The products of o x i numbers are never made. A module that an adapter lacks is an update of 0.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from torch import Tensor

    from ramole_core.pool import AdapterCard, Pool

Modules = Mapping[str, "tuple[Tensor, Tensor]"]
"""A [r, i] and B [o, r], scaling folded in, by module path."""


def update_likeness(pool: "Pool", cards: "Sequence[AdapterCard]") -> Float[np.ndarray, "k k"]:
    """The cosine of each two adapters' updates, -1 to 1; an adapter that changes nothing has 0 with
    every other. Reads their files; raises RamoleError where one was changed."""
    return likeness_of([pool.tensors(card).modules for card in cards])


def likeness_of(adapters: Sequence[Modules]) -> Float[np.ndarray, "k k"]:
    """The cosines of modules that are read already."""
    import torch

    k = len(adapters)
    products = torch.zeros(k, k, dtype=torch.float64)
    for path in sorted({path for one in adapters for path in one}):
        here = [j for j, one in enumerate(adapters) if path in one]
        A = torch.cat([adapters[j][path][0].float() for j in here])
        B = torch.cat([adapters[j][path][1].float() for j in here], dim=1)
        ranks = torch.tensor([len(adapters[j][path][0]) for j in here])
        owner = torch.zeros(k, len(A), dtype=torch.float64)
        owner[torch.tensor(here).repeat_interleave(ranks), torch.arange(len(A))] = 1
        products += owner @ ((A @ A.T) * (B.T @ B)).double() @ owner.T
    lengths = products.diagonal().clamp(min=0).sqrt()
    cosines = products / (lengths[:, None] * lengths).clamp(min=1e-30)
    found = cosines.clamp(-1, 1).fill_diagonal_(1.0)
    return found.numpy()
