"""A linear layer that adds, for each request of the batch, the weighted updates of its adapters.

This is the plain form, differentiable, one module at a time: routers are trained through it, and
the served layers are tested against it. `Mixer` is what all mixed layers of a model share: the
stacks of the batch that runs now, and the weights they report.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramole_core.layers.install import Installation, wrap
from ramole_core.layers.places import Places, find_places
from ramole_core.layers.stack import ModuleStack
from ramole_core.layers.surprise import Votes


class Mixer:
    """The stacks in force, by module path, and the trace of the forward that runs."""

    def __init__(self, places: Places):
        self.places = places
        self._stacks: Mapping[str, ModuleStack] = {}
        self._alpha: dict[str, Tensor] | None = None
        self._votes = Votes()

    @contextmanager
    def mixing(self, stacks: Mapping[str, ModuleStack], *, trace: bool = False) -> Iterator[None]:
        """Forwards inside this block mix these stacks; not re-entrant, one batch at a time."""
        self._stacks, self._alpha = stacks, {} if trace else None
        self._votes = Votes()
        try:
            yield
        finally:
            self._stacks = {}

    def votes(self, path: str) -> Votes:
        """The surprises so far, for the module that runs next; a new forward begins anew."""
        layer = self.places.at[path][0]
        if layer < self._votes.layer:
            self._votes = Votes()
        self._votes.enter(layer)
        return self._votes

    def stack(self, path: str) -> ModuleStack | None:
        return self._stacks.get(path)

    def report(self, path: str, alpha: Tensor) -> None:
        """Called by a layer: the weights it has just used, [b, l, k]."""
        if self._alpha is not None:
            self._alpha[path] = alpha

    def weights(self, b: int, l: int, k: int) -> Float[Tensor, "b l layer module k"]:
        """The weights of the last traced forward, float16 on the CPU; 0 where nothing was mixed."""
        layers, modules = len(self.places.layers), len(self.places.modules)
        found = self._alpha or {}
        self._alpha = None
        if not found:
            return torch.zeros(b, l, layers, modules, k, dtype=torch.float16)
        some = next(iter(found.values()))
        every = some.new_zeros(layers * modules, b, l, k)
        index = [row * modules + column for row, column in (self.places.at[p] for p in found)]
        every[index] = torch.stack([alpha.expand(b, l, k) for alpha in found.values()])
        every = every.reshape(layers, modules, b, l, k).permute(2, 3, 0, 1, 4)
        return every.to("cpu", torch.float16)


class MixedLinear(nn.Module):
    """y = W x + sum_k alpha_k B_k A_k x; stands where the base model's linear layer stood."""

    def __init__(self, base: nn.Module, path: str, mixer: Mixer):
        super().__init__()
        self.base = base
        self.path = path
        self.mixer = mixer

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: some models look at its dtype."""
        return self.base.get_parameter("weight")

    def forward(self, x: Float[Tensor, "b l i"]) -> Float[Tensor, "b l o"]:
        y = self.base(x)
        stack = self.mixer.stack(self.path)
        if stack is None:
            return y
        update, alpha = stack(x, self.mixer.votes(self.path))
        self.mixer.report(self.path, alpha.detach())
        return y + update.to(y.dtype)


@dataclass(frozen=True)
class MixedInstallation(Installation):
    """Mixed layers in a model, and what they share."""

    mixer: Mixer


def install(model: nn.Module, paths: Iterable[str]) -> MixedInstallation:
    """Put mixed layers at these module paths; raises ValueError where one stands already."""
    mixer = Mixer(find_places(paths := list(paths)))
    layers = {path: MixedLinear(model.get_submodule(path), path, mixer) for path in paths}
    return MixedInstallation(**vars(wrap(model, layers)), mixer=mixer)
