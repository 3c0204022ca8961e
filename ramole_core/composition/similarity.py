"""Similarity-weighted mixture: the retriever's similarity decides, the same for every token.

y = W x + sum_j w_j B_j A_j x,   w = softmax(sim / 0.05)

The control between selection (temperature 0) and mixture (temperature infinite); 0.05 is the
temperature that sentence encoders are usually tuned at. Where an adapter lacks the module, its
share is lost.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition.contract import Composition, register

TEMPERATURE = 0.05


@register
class Similarity(Composition):
    name = "similarity"
    weighs_similarity = True

    def shares(
        self, present: Bool[Tensor, "module k"], scores: Sequence[float]
    ) -> Float[Tensor, "module k"]:
        known = torch.tensor(list(scores), dtype=torch.float32).nan_to_num(0.0)
        return (known / TEMPERATURE).softmax(-1) * present
