"""A model's mixtures of experts taken apart into plain linear layers, where that is the same."""

from torch import nn

from ramole_core.base import experts, routers
from ramole_core.base.experts import Experts
from ramole_core.base.packed import Shapes
from ramole_core.base.routers import Router


def take_apart(model: nn.Module) -> None:
    """Put modules of ours in the place of each that computes the same; others stay as they are."""
    for path, module in list(model.named_modules()):
        if not path or not experts.computes_so(module):
            continue
        model.set_submodule(path, Experts(module))
        beside = model.get_submodule(path.rpartition(".")[0])
        for name, other in list(beside.named_children()):
            if routers.computes_so(other):
                setattr(beside, name, Router(other))


def late_shapes(model: nn.Module, shapes: Shapes) -> Shapes:
    """Those of `shapes` that experts hold: what loads a model does not see them."""
    within = tuple(f"{path}." for path, one in model.named_modules() if isinstance(one, Experts))
    return {path: size for path, size in shapes.items() if path.startswith(within)} if within else {}
