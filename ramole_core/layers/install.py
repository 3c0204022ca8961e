"""Put mixed layers into a Hugging Face model, and take them out without a trace."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ramole_core.layers.mixed_linear import MixedLinear, Mixer
from ramole_core.layers.places import find_places


@dataclass(frozen=True)
class Installation:
    """Mixed layers in a model; `remove()` puts the very modules back that stood there before."""

    model: nn.Module
    mixer: Mixer
    layers: dict[str, MixedLinear]

    def remove(self) -> None:
        """Leave the model as it was found: its `state_dict()` is bit-identical."""
        for path, layer in self.layers.items():
            _put(self.model, path, layer.base)


def install(model: nn.Module, paths: Iterable[str]) -> Installation:
    """Wrap the linear layers at these module paths; raises ValueError where one is wrapped already.

    Works on `nn.Linear`, bitsandbytes' layers and GPT-2's Conv1D alike: the base layer is only
    called, never opened.
    """
    paths = list(paths)
    mixer = Mixer(find_places(paths))
    layers = {}
    for path in paths:
        base = model.get_submodule(path)
        if isinstance(base, MixedLinear):
            raise ValueError(
                f"{path} is a mixed layer already; remove the other installation first"
            )
        layers[path] = MixedLinear(base, path, mixer)
    for path, layer in layers.items():
        _put(model, path, layer)
    return Installation(model, mixer, layers)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
