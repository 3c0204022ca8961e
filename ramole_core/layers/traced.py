"""What is kept of a forward for the traces of some of its rows, and what a trace row is made of.

    contribution_j = |alpha_j v_j| / |y|,   v_j = B_j A_j x,   y the layer's output, all added

A weight says what the gate wanted, a contribution what came of it: a loud adapter of little weight
moves the output more than a silent one of much. Where an adapter lacks the module it is 0. B's
columns are orthonormal, so |alpha_j v_j| is the length of its weighted units. A merge is one update
of k adapters, and nobody can say whose part is whose: it is divided by their weights, among those
that have the module.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.kernels.lengths import Lengths
from ramole_core.layers.batch_mix import BatchMix, RowMix

WEIGHT, CONTRIBUTION = 0, 1
"""The two parts of a trace row."""
MOST = 6e4
"""No contribution is larger, though the output may be next to nothing: float16 ends at 65,504."""


class Traced:
    """Weights and contributions of some rows of one forward; nothing is computed for the others."""

    def __init__(
        self, batch: BatchMix, counts: Sequence[int], rows: Sequence[int], *, compiled: bool
    ):
        """`counts` are the tokens of each row; `compiled`: our kernels give the numbers."""
        self.rows = tuple(rows)
        self._batch = batch
        ends = np.cumsum(counts)
        own = [np.arange(ends[n] - counts[n], ends[n], dtype=np.int32) for n in self.rows]
        self.tokens = np.concatenate(own) if own else np.zeros(0, np.int32)
        """[n]: the places of these rows' tokens in the forward."""
        cuts = np.cumsum([0, *map(len, own)])
        self._parts = [slice(*pair) for pair in zip(cuts, cuts[1:], strict=False)]
        self._lengths = Lengths(self.tokens) if compiled else None
        modules, n = len(batch.bank.layout.flat), int(sum(counts))
        self.told = np.zeros((2, modules, n, batch.k), np.float32)
        """Weights, and lengths of the weighted updates, at the traced rows' tokens; 0 elsewhere."""
        self._outputs = np.zeros((modules, len(self.tokens)), np.float32)
        self._told_later: list[tuple[int, Tensor, Tensor]] = []
        self._seen_later: list[tuple[int, Tensor]] = []
        """By module, what the model's device holds until the end."""

    def tell(
        self, module: int, alpha: Float[Tensor, "m n k"], lengths: Float[Tensor, "m n k"]
    ) -> None:
        """Weights at the traced tokens, and the lengths of what came of them, of the modules from
        `module` on. By rows the kernel writes both into `told`."""
        self._told_later.append((module, alpha, lengths))

    def see(self, module: int, y: Float[Tensor, "*b o"]) -> None:
        """The output of a layer, with everything added."""
        y = y.reshape(-1, y.shape[-1])
        if self._lengths is not None:
            self._lengths.of(y, self._outputs[module])
        else:
            at = torch.from_numpy(self.tokens).to(y.device)
            self._seen_later.append((module, y[at].float().norm(dim=-1)))

    def each(self) -> list[Float[Tensor, "l 2 layer module k"]]:
        """Trace rows of every traced row's tokens, float16 on the CPU: weight and contribution."""
        for module, alpha, lengths in self._told_later:
            both = torch.stack([alpha, lengths]).float().cpu().numpy()
            self.told[:, module : module + len(alpha), self.tokens] = both
        for module, lengths in self._seen_later:
            self._outputs[module] = lengths.cpu().numpy()
        alpha, moved = torch.from_numpy(self.told[:, :, self.tokens])
        outputs = torch.from_numpy(self._outputs)[..., None].clamp(min=1e-30)
        moved = (moved / outputs).clamp(max=MOST)
        pairs = zip(self.rows, self._parts, strict=True)
        return [self._row(self._batch.rows[n], alpha[:, part], moved[:, part]) for n, part in pairs]

    def _row(
        self,
        mix: RowMix,
        alpha: Float[Tensor, "modules l _"],
        moved: Float[Tensor, "modules l _"],
    ) -> Float[Tensor, "l 2 layer module k"]:
        """From what the bank holds of a row to its k adapters."""
        slots = len(mix.slots)
        alpha, moved = alpha[..., :slots], moved[..., :slots]
        if mix.gate is None:
            alpha = mix.decision.weights[:, None].expand(-1, alpha.shape[1], -1)
        if mix.decision.merge is not None:
            share = mix.decision.weights.abs() * mix.has
            share = share / share.sum(-1, keepdim=True).clamp(min=1e-30)
            moved = moved * share[:, None]
        layout = self._batch.bank.layout
        both = [layout.as_trace(one.half().transpose(0, 1)) for one in (alpha, moved)]
        return torch.stack(both, dim=1)
