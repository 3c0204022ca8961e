"""Install layers into a Hugging Face model, and remove them completely."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class Installation:
    """Installed layers; `remove()` restores the original modules."""

    model: nn.Module
    layers: Mapping[str, nn.Module]
    """By module path; each holds the layer that stood there as `base`."""
    handles: list[RemovableHandle] = field(default_factory=list)
    """Handles of the hooks."""

    def remove(self) -> None:
        """Restore the model; its `state_dict()` is bit-identical."""
        for handle in self.handles:
            handle.remove()
        for path, layer in self.layers.items():
            _put(self.model, path, layer.get_submodule("base"))


def wrap(
    model: nn.Module, layers: Mapping[str, nn.Module], handles: Iterable[RemovableHandle] = ()
) -> Installation:
    """Replace each layer's `base` by the layer; raises ValueError where one is installed already.

    Works on `nn.Linear`, layers in 4 bits and GPT-2's Conv1D alike: the base layer is never
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
    return Installation(model, dict(layers), list(handles))


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def watch_blocks(
    model: nn.Module, paths: Iterable[str], see: Callable[[str, Tensor], None]
) -> list[RemovableHandle]:
    """Call `see` with the path and the input of each of these blocks whenever it runs."""

    def hook(path: str):
        def run(module: nn.Module, args: tuple, kwargs: dict) -> None:
            see(path, args[0] if args else kwargs["hidden_states"])

        return run

    return [
        model.get_submodule(path).register_forward_pre_hook(hook(path), with_kwargs=True)
        for path in sorted(paths)
        if path  # a model without blocks has none to watch
    ]
