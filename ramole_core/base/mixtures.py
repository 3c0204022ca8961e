"""Split a model's mixtures of experts into plain linear layers, where that is equivalent."""

from collections.abc import Callable

from torch import Tensor, nn

from ramole_core.base import experts, routers
from ramole_core.base.experts import Experts
from ramole_core.base.packed import Shapes, takes
from ramole_core.base.routers import Router


def take_apart(model: nn.Module, *, keep: bool = False) -> None:
    """Replace each module that computes the same; others stay. `keep`: experts can still run by
    transformers' code, which is faster on a GPU."""
    for path, module in list(model.named_modules()):
        if not path or not experts.computes_so(module):
            continue
        model.set_submodule(path, Experts(module, keep=keep))
        beside = model.get_submodule(path.rpartition(".")[0])
        for name, other in list(beside.named_children()):
            if routers.computes_so(other):
                setattr(beside, name, Router(other))


def round_experts(model: nn.Module, shapes: Shapes, rounding: Callable[[Tensor], Tensor]) -> None:
    """Round the experts' layers that fit, in place, since loading packs no such layers."""
    for path, module in model.named_modules():
        if isinstance(module, Experts):
            for name, layer in module.named_modules(prefix=path):
                if name in shapes and takes(name, shapes[name]):
                    weight = layer.get_parameter("weight").data
                    weight.copy_(rounding(weight))
