"""Collect the trace rows of a forward's traced requests.

    contribution_j = |alpha_j v_j| / |y|,   v_j = B_j A_j x,   y the layer's output, all added

A weight is the gate's choice, a contribution its effect: an adapter with large outputs and a small
weight may change the output more than one with small outputs and a large weight. Where an adapter
lacks the module it is 0. B's columns are orthonormal, so |alpha_j v_j| is the length of its
weighted units. A merge is one update of k adapters, and its parts cannot be told apart: it is
divided by their weights, among those that have the module.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ramole_core.kernels.norm import Lengths
from ramole_core.layers.batch_mix import BatchMix, RowMix

TINY = 1e-30
"""Least denominator of a fraction."""
WEIGHT, CONTRIBUTION = 0, 1
"""The two parts of a trace row."""
MAX_SIZE = 6e4
"""No weight or contribution is larger in size, though a request may give such a weight, and the
output may be next to nothing: float16 ends at 65,504."""


class Traced:
    """Weights and contributions of the traced rows of one forward."""

    def __init__(self, batch: BatchMix, counts: Sequence[int], rows: Sequence[int]):
        """`counts` are the tokens of each row."""
        self.rows, self._batch = tuple(rows), batch
        ends = np.cumsum(counts)
        own = [np.arange(ends[n] - counts[n], ends[n], dtype=np.int32) for n in self.rows]
        self.tokens = np.concatenate(own) if own else np.zeros(0, np.int32)
        """[n]: the places of these rows' tokens in the whole forward."""
        self.here, self.at = self.tokens, slice(None)
        """Their places in this forward, and among the traced tokens of the whole one."""
        cuts = np.cumsum([0, *map(len, own)])
        self._parts = [slice(*pair) for pair in pairwise(cuts)]
        self.layout = batch.bank.layout
        modules = len(self.layout.flat)
        self.recorded = np.zeros((2, modules, int(sum(counts)), batch.k), np.float32)
        """Weights, and lengths of the weighted updates, at the traced rows' tokens; 0 elsewhere."""
        self.lengths = Lengths(self.tokens, modules)
        self.compiled = batch.bank.by_rows
        """Whether our kernels compute the numbers."""
        self.pending: list[tuple[int, Tensor, Tensor, np.ndarray]] = []
        """By module: results that stay on the model's device until the end, and their tokens."""
        self.pending_outputs: list[tuple[int, Tensor, np.ndarray | slice]] = []
        """The same of the outputs' lengths, at which of the traced tokens."""

    @cached_property
    def places(self) -> Int[Tensor, "n"]:
        """`here` on the model's device."""
        return torch.from_numpy(self.here).to(self._batch.bank.device)

    def forget(self) -> None:
        """Reset before the forward is run again."""
        self.pending.clear()
        self.pending_outputs.clear()

    def write(
        self, module: int, alpha: Float[Tensor, "m n k"], lengths: Float[Tensor, "m n k"]
    ) -> None:
        """Write weights and lengths of the weighted updates at the traced tokens, of the modules
        from `module` on. By rows the kernel writes both into `room`."""
        self.pending.append((module, alpha, lengths, self.tokens))

    def room(self, module: int, m: int) -> np.ndarray:
        """[2, m, N, k]: where a kernel writes them, of the modules from `module` on."""
        return self.recorded[:, module : module + m]

    def take(self, module: int, recorded: np.ndarray) -> None:
        """Take what a kernel wrote into `room`; it is in place already."""

    def record(self, g: int, block: int, j: int, y: Float[Tensor, "*b o"]) -> None:
        """Record the output of module j of a group in a block, updates included."""
        module = self.layout.first(g, block) + j
        if self.compiled:
            self.measure(module, y)
        else:
            self.pending_outputs.append((module, self._norms(y), self.at))

    def measure(self, module: int, y: Float[Tensor, "*b o"]) -> None:
        """Measure a module's output at once, by a kernel."""
        self.lengths.measure(module, y)

    def _norms(self, y: Float[Tensor, "*b o"]) -> Float[Tensor, "n"]:
        return y.reshape(-1, y.shape[-1])[self.places].float().norm(dim=-1)

    def each(self) -> list[Float[Tensor, "l 2 layer module k"]]:
        """Trace rows of every traced row's tokens, float16 on the CPU: weight and contribution."""
        outputs = self.lengths.found
        for module, alpha, lengths, tokens in self.pending:
            both = torch.stack([alpha, lengths]).float().cpu().numpy()
            self.recorded[:, module : module + len(alpha), tokens] = both
        for module, lengths, at in self.pending_outputs:
            outputs[module, at] = lengths.cpu().numpy()
        recorded = self.recorded[:, :, self.tokens]
        with np.errstate(invalid="ignore"):  # of a request that ends because of it
            recorded[CONTRIBUTION] /= np.maximum(outputs, TINY)[..., None]
        self._leave_experts_out(recorded)
        whole = self._placed(torch.from_numpy(recorded).permute(2, 0, 1, 3))
        pairs = zip(self.rows, self._parts, strict=True)
        return [self._of(self._batch.rows[row], whole[part]) for row, part in pairs]

    def _leave_experts_out(self, recorded: np.ndarray) -> None:
        """Zero the weights where a row's adapter lacks an expert."""
        groups = zip(self.layout.starts, self.layout.groups, strict=True)
        for start, group in groups:
            if group.of_experts:
                own = slice(start, start + len(group.paths) * group.m)
                for row, part in zip(self.rows, self._parts, strict=True):
                    here = self._batch.rows[row].present[own].numpy()
                    recorded[:, own, part, : here.shape[1]] *= here[:, None]

    def _placed(self, flat: Float[Tensor, "n 2 modules k"]) -> Float[Tensor, "n 2 layer module k"]:
        bounded = flat.clamp(-MAX_SIZE, MAX_SIZE).half()
        placed = self.layout.as_trace(bounded.flatten(0, 1))
        return placed.unflatten(0, (-1, 2))

    def _of(
        self, mix: RowMix, recorded: Float[Tensor, "l 2 layer module _"]
    ) -> Float[Tensor, "l 2 layer module k"]:
        """Map a row's slots in the bank to its k adapters."""
        recorded = recorded[..., : len(mix.slots)]
        if mix.decision.merge is None:
            return recorded
        weights = mix.decision.weights
        shares = weights.abs() * mix.has
        shares = shares / shares.sum(-1, keepdim=True).clamp(min=TINY)
        weights, shares = self._placed(torch.stack([weights, shares])[None])[0]
        contribution = recorded[:, CONTRIBUTION] * shares
        return torch.stack([weights.expand_as(contribution), contribution], dim=1)


class TracedPart(Traced):
    """`Traced` of a forward of the tokens at `tokens`, ascending, of the whole one."""

    def __init__(self, whole: Traced, tokens: Sequence[int]):
        every = np.array(tokens, np.int32)
        own = np.isin(every, whole.tokens)
        self.rows, self.layout, self.compiled = whole.rows, whole.layout, whole.compiled
        self._batch, self._every = whole._batch, every
        self.here, self.tokens = np.flatnonzero(own), every[own]
        self.at = np.searchsorted(whole.tokens, self.tokens)
        self.recorded, self.lengths = whole.recorded, whole.lengths
        self.pending, self.pending_outputs = whole.pending, whole.pending_outputs

    def room(self, module: int, m: int) -> np.ndarray:
        return np.zeros((2, m, len(self._every), self.recorded.shape[-1]), np.float32)

    def take(self, module: int, recorded: np.ndarray) -> None:
        self.recorded[:, module : module + recorded.shape[1], self._every] = recorded

    def measure(self, module: int, y: Float[Tensor, "*b o"]) -> None:
        self.lengths.found[module, self.at] = self._norms(y).numpy()
