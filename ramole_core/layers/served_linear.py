"""The linear layers of a model that serves many requests: each adds what its row's adapters say.

`Serving` is what all of them share: the forward that runs now. Layers with one input compute its
units once, in the first of them that is called.

The base's own product is taken with the weight laid out once as the CPU's matrix kernels want it:
PyTorch's bfloat16 product brings it into that layout at every call, which costs as much as the
product itself while few tokens are fed. Results differ by rounding at most; the price is a second
copy of the weights.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramole_core.composition import block_of
from ramole_core.layers.batch_mix import BatchMix
from ramole_core.layers.install import Installation, watch_blocks, wrap
from ramole_core.layers.layout import Layout
from ramole_core.layers.mixing import Forward, Way


class Serving:
    """The forward that runs now, for all layers of one model; one at a time."""

    def __init__(self, model: nn.Module, blocks: Iterable[str]):
        """`blocks`: paths of those that hold served layers."""
        self.now: Forward | None = None
        self._model, self._blocks = model, frozenset(blocks)

    @contextmanager
    def mixing(
        self, batch: BatchMix, l: int, *, trace: bool = False, way: Way | None = None
    ) -> Iterator[Forward]:
        """A forward of `l` tokens a row inside this block is mixed so.

        `way` forces one of the two ways of `mixing`; None takes the cheapest.
        """
        forward = Forward.of(batch, l, trace=trace, way=way)
        self.now = forward if batch.mixes else None
        watched = self._blocks if batch.reads_blocks else ()
        handles = watch_blocks(self._model, watched, forward.enter)
        try:
            yield forward
        finally:
            self.now = None
            for handle in handles:
                handle.remove()


class SharedInput:
    """The layers of one group in one block, and the units of the input they have in common."""

    def __init__(self, serving: Serving, g: int, block: int):
        self._serving, self._g, self._block = serving, g, block
        self._x: Tensor | None = None
        self._units: Tensor | np.ndarray | None = None

    def add(self, x: Tensor, y: Tensor, j: int, *, last: bool) -> Tensor:
        """y with the update of the group's layer j added."""
        forward = self._serving.now
        if forward is None:
            return y
        if self._units is None or x is not self._x:
            self._x, self._units = x, forward.units(x, self._g, self._block)
        units = self._units[j]
        if last:
            self._x = self._units = None
        return forward.add(y, units, self._g, self._block, j)


TOKENS = 32
"""Rows that the layout is chosen for; any other number works with it too."""


def fast_product(layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """x -> W x + bias of this layer; None where there is nothing to gain."""
    if (
        type(layer) is not nn.Linear
        or layer.weight.dtype != torch.bfloat16
        or layer.weight.device.type != "cpu"
        or not torch.backends.mkldnn.is_available()
    ):
        return None
    try:
        run = torch.ops.mkldnn._linear_pointwise
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), TOKENS)
        run(layer.weight.new_zeros(1, layer.in_features), weight, layer.bias, "none", [], "")
    except (AttributeError, RuntimeError):  # a build of PyTorch, or a CPU, without them
        return None
    bias = layer.bias
    return lambda x: run(x, weight, bias, "none", [], "")


class ServedLinear(nn.Module):
    """y = W x + sum_k alpha_k B_k A_k x, under `torch.inference_mode`.

    The base layer stays as it is; W x is its own, or `fast_product` of the same weight.
    """

    def __init__(self, base: nn.Module, shared: SharedInput, j: int, *, last: bool):
        super().__init__()
        self.base = base
        self._product = fast_product(base) or base.__call__
        self._shared, self._j, self._last = shared, j, last

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: some models look at its dtype."""
        return self.base.get_parameter("weight")

    def forward(self, x: Float[Tensor, "b l i"]) -> Float[Tensor, "b l o"]:
        return self._shared.add(x, self._product(x), self._j, last=self._last)


class PackedLinear(nn.Module):
    """A linear layer outside the mixing, such as the vocabulary's, with its fast product."""

    def __init__(self, base: nn.Module, product: Callable[[Tensor], Tensor]):
        super().__init__()
        self.base, self._product = base, product

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: some models look at it."""
        return self.base.get_parameter("weight")

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


def install_serving(model: nn.Module, layout: Layout) -> tuple[Installation, Serving]:
    """Put served layers into the model; `Installation.remove()` takes them out again."""
    serving = Serving(model, {block_of(path) for path in layout.flat})
    layers: dict[str, nn.Module] = {}
    for g, group in enumerate(layout.groups):
        for block, paths in enumerate(group.paths):
            shared = SharedInput(serving, g, block)
            for j, path in enumerate(paths):
                base = model.get_submodule(path)
                layers[path] = ServedLinear(base, shared, j, last=j == group.m - 1)
    every = {path for path, module in model.named_modules() if type(module) is nn.Linear}
    return wrap(model, layers | _packed(model, every - layers.keys())), serving


def _packed(model: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """The linear layers that nothing is mixed into, where packing gains."""
    layers = {path: model.get_submodule(path) for path in paths}
    products = {path: fast_product(layer) for path, layer in layers.items()}
    return {path: PackedLinear(layers[path], run) for path, run in products.items() if run}
