"""The served linear layers: each adds the update of its rows' adapters.

`Serving` is what all of them share: the forward that runs now. Layers with one input compute its
units once, in the first of them that is called. On a CPU the base's own product is taken by a
kernel that reads the weight where it lies (`kernels.product`), with the update in the same call.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, activations
from transformers.pytorch_utils import Conv1D

from ramole_core.base.experts import Experts, experts_in, together
from ramole_core.base.kernel_linear import base_weight, kernel_linears
from ramole_core.base.packed import PackedLinear
from ramole_core.kernels.compiled import DTYPES
from ramole_core.kernels.weight import Input, Weight
from ramole_core.layers.batch_invariant_ops import EXACT, LongTokens, invariant_layers
from ramole_core.layers.batch_mix import BatchMix
from ramole_core.layers.fused import Fused, RawUnits
from ramole_core.layers.install import Installation, watch_blocks, wrap
from ramole_core.layers.layout import Layout
from ramole_core.layers.mixing import Forward, Way


class Serving:
    """The running forward, shared by all layers of one model; one at a time."""

    def __init__(self, model: nn.Module, *, fused: Fused | None = None):
        """`fused` mixes few tokens on a GPU; None: PyTorch does."""
        self.now: Forward | None = None
        self.long = LongTokens()
        self.fused = fused
        self._model = model
        self._experts = experts_in(model)

    @contextmanager
    def mixing(
        self,
        batch: BatchMix,
        counts: Sequence[int],
        *,
        starts: Sequence[int] | None = None,
        trace: Sequence[int] = (),
        way: Way | None = None,
    ) -> Iterator[Forward]:
        """Mix the block's forward of `counts[n]` tokens of row n, side by side.

        `starts` are the places of their first tokens; `trace` are the rows to trace; `way` forces
        one of the two ways of `mixing`.
        """
        forward = Forward.of(batch, counts, starts=starts, trace=trace, way=way, fused=self.fused)
        self.now = forward if batch.mixes else None
        whole = batch.bank.device.type != "cpu" and not batch.bank.has_experts
        watched = frozenset[str]().union(*batch.scopes.values())
        handles = watch_blocks(self._model, watched, self._enter)
        try:
            with together(self._experts) if whole else nullcontext():
                yield forward
        finally:
            self.now = None
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, x: Tensor) -> None:
        if self.now is not None:
            self.now.enter(path, x)

    def watch_experts(self) -> list[RemovableHandle]:
        """Narrow the forward to an expert's own tokens while it runs."""
        whole: list[Forward | None] = []

        def begin(expert: nn.Module, args: tuple[Tensor, Tensor, object]) -> None:
            whole.append(self.now)
            now, self.now = self.now, None
            if now is not None and now.batch.bank.has_experts:
                self.now = now.part(args[1])

        def end(expert: nn.Module, args: object, out: object) -> None:
            self.now = whole.pop()

        experts = [one for every in self._experts for one in every.each()]
        handles = [one.register_forward_pre_hook(begin) for one in experts]
        return handles + [one.register_forward_hook(end, always_call=True) for one in experts]


class SharedInput:
    """The layers of one group in one block, with values computed once of their shared input."""

    def __init__(self, serving: Serving, g: int, block: int):
        self._serving, self._g, self._block = serving, g, block
        self._x: Tensor | None = None
        self._given: Input | None = None
        self._units: Tensor | np.ndarray | RawUnits | None = None
        self._draft: RawUnits | None = None
        self._ys: list[Tensor] = []
        """Outputs of the group, by layer."""
        self.layers: list[ServedLinear] = []
        """In the group's order."""

    def product(self, layer: "ServedLinear", x: Tensor, j: int, *, last: bool) -> Tensor:
        """W x of the group's layer j with its update."""
        forward, weight = self._serving.now, layer.weight_in_place
        if x is not self._x:
            self._x, self._units, self._given = x, None, Input(x)
        given, units = self._given, self._units
        assert given is not None
        if forward is not None and units is None and forward.reads(self._g):
            units = self._units = forward.units(x, given, self._g, self._block)
        if last:
            self._x = self._given = self._units = None
        if forward is None or units is None:
            return layer.alone(x, given)
        if isinstance(units, RawUnits):
            return self._together(forward, units, x, given, j, last=last)
        if weight is None or forward.rows is None:
            return forward.add(layer.alone(x, given), units, self._g, self._block, j)
        assert isinstance(units, np.ndarray)
        return weight.multiply(given, forward.update(units, self._g, self._block, j))

    def _together(
        self, forward: Forward, draft: RawUnits, x: Tensor, given: Input, j: int, *, last: bool
    ) -> Tensor:
        """The output of layer j; the first call computes the group's."""
        if draft is not self._draft:
            ys = [one.alone(x, given) for one in self.layers]
            forward.add_all(ys, draft, self._g, self._block)
            self._draft, self._ys = draft, ys
        y = self._ys[j]
        if last:
            self._draft, self._ys = None, []
        return y

    def made(self, y: Tensor, j: int) -> None:
        """The output of the group's layer j, for the traces."""
        forward = self._serving.now
        if forward is not None and forward.traced is not None:
            forward.traced.record(self._g, self._block, j, y)


class ServedLinear(nn.Module):
    """y = W x + sum_k alpha_k B_k A_k x, under `torch.inference_mode`; the base layer stays."""

    def __init__(self, base: nn.Module, shared: SharedInput, j: int, *, last: bool):
        super().__init__()
        self.base = base
        self.weight_in_place: Weight | None = base_weight(base)
        self._shared, self._j, self._last = shared, j, last
        shared.layers.append(self)

    def alone(self, x: Tensor, given: Input) -> Tensor:
        """W x; `given` is x as kernels read it."""
        weight = self.weight_in_place
        return self.base(x) if weight is None else weight.multiply(given)

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: some models read its dtype."""
        return self.base.get_parameter("weight")

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        y = self._shared.product(self, x, self._j, last=self._last)
        self._shared.made(y, self._j)
        return y


def install_serving(
    model: nn.Module, layout: Layout, *, fused: Fused | None = None
) -> tuple[Installation, Serving]:
    """Install served layers; `Installation.remove()` removes them. `fused` mixes few tokens on a
    GPU."""
    serving = Serving(model, fused=fused)
    layers: dict[str, nn.Module] = {}
    for g, group in enumerate(layout.groups):
        for block, paths in enumerate(group.paths):
            shared = SharedInput(serving, g, block)
            for j, path in enumerate(paths):
                base = model.get_submodule(path)
                layers[path] = ServedLinear(base, shared, j, last=j == group.m - 1)
    invariant = invariant_layers(model, serving.long)
    every = kernel_linears(model) | invariant | layers
    return wrap(model, every, serving.watch_experts()), serving


LINEAR = (nn.Linear, Conv1D, PackedLinear)
HOMES = (nn.ReLU.__module__, activations.__name__)
"""Packages whose activation classes are known."""


def is_exact(model: PreTrainedModel) -> bool:
    """Whether a token's bits are independent of the batch once the model is served: it is on a CPU
    in float32 or bfloat16 (or fewer bits), with a kernel for every product."""
    if model.device.type != "cpu" or model.dtype not in DTYPES:
        return False
    invariant = invariant_layers(model)
    for path, module in model.named_modules():
        if isinstance(module, Experts):
            return False  # PyTorch chooses them
        if isinstance(module, LINEAR) and base_weight(module) is None:
            return False
        if not isinstance(module, (*LINEAR, nn.Embedding)) and any(
            weight.ndim > 1 for weight in module.parameters(recurse=False)
        ):
            return False  # such as a mixture of experts, whose products PyTorch takes together
        activates = type(module).__module__ in HOMES and type(module).__name__ not in EXACT
        if activates and path not in invariant:
            return False
    return True
