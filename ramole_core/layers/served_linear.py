"""The linear layers of a model that serves many requests: each adds what its row's adapters say.

`Serving` is what all of them share: the forward that runs now. Layers with one input compute its
units once, in the first of them that is called.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from ramole_core.composition import block_of
from ramole_core.layers.batch_mix import BatchMix
from ramole_core.layers.install import Installation, watch_blocks, wrap
from ramole_core.layers.layout import Layout
from ramole_core.layers.mixing import Forward, Way
from ramole_core.layers.packed import PackedLinear, fast_product


class Serving:
    """The forward that runs now, for all layers of one model; one at a time."""

    def __init__(self):
        self.now: Forward | None = None

    @contextmanager
    def mixing(
        self, batch: BatchMix, l: int, *, trace: bool = False, way: Way | None = None
    ) -> Iterator[Forward]:
        """A forward of `l` tokens a row inside this block is mixed so.

        `way` forces one of the two ways of `mixing`; None takes the cheapest.
        """
        forward = Forward.of(batch, l, trace=trace, way=way)
        self.now = forward if batch.mixes else None
        try:
            yield forward
        finally:
            self.now = None

    def enter(self, path: str, x: Tensor) -> None:
        """A block begins with this input."""
        if self.now is not None and self.now.batch.reads_blocks:
            self.now.enter(path, x)


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


class ServedLinear(nn.Module):
    """y = W x + sum_k alpha_k B_k A_k x, under `torch.inference_mode`.

    The base layer stays as it is; W x is its own, or `packed.fast_product` of the same weight.
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


def install_serving(model: nn.Module, layout: Layout) -> tuple[Installation, Serving]:
    """Put served layers into the model; `Installation.remove()` takes them out again."""
    serving = Serving()
    layers: dict[str, nn.Module] = {}
    for g, group in enumerate(layout.groups):
        for block, paths in enumerate(group.paths):
            shared = SharedInput(serving, g, block)
            for j, path in enumerate(paths):
                base = model.get_submodule(path)
                layers[path] = ServedLinear(base, shared, j, last=j == group.m - 1)
    handles = watch_blocks(model, {block_of(path) for path in layout.flat}, serving.enter)
    every = {path for path, module in model.named_modules() if type(module) is nn.Linear}
    return wrap(model, layers | _packed(model, every - layers.keys()), handles), serving


def _packed(model: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """The linear layers that nothing is mixed into, where packing gains."""
    layers = {path: model.get_submodule(path) for path in paths}
    products = {path: fast_product(layer) for path, layer in layers.items()}
    return {path: PackedLinear(layers[path], run) for path, run in products.items() if run}
