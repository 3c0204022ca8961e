"""Put layers of ours into a Hugging Face model, and take them out without a trace."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Installation:
    """Our layers in a model; `remove()` puts the very modules back that stood there before."""

    model: nn.Module
    layers: Mapping[str, nn.Module]
    """By module path; each holds the layer that stood there as `base`."""

    def remove(self) -> None:
        """Leave the model as it was found: its `state_dict()` is bit-identical."""
        for path, layer in self.layers.items():
            _put(self.model, path, layer.get_submodule("base"))


def wrap(model: nn.Module, layers: Mapping[str, nn.Module]) -> Installation:
    """Put each layer in the place of its own `base`; raises ValueError where one of ours stands.

    Works on `nn.Linear`, bitsandbytes' layers and GPT-2's Conv1D alike: the base layer is never
    changed.
    """
    for path, layer in layers.items():
        base = layer.get_submodule("base")
        if base is not model.get_submodule(path) or isinstance(base, type(layer)):
            raise ValueError(
                f"{path} is a mixed layer already; remove the other installation first"
            )
    for path, layer in layers.items():
        _put(model, path, layer)
    return Installation(model, dict(layers))


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
