"""Split a model's mixtures of experts, and their routers, into plain linear layers.

Only where that is equivalent. transformers multiplies by the router's weight in the midst of the
router's code. Here the product stands alone, at a path such as `mlp.gate.router_logits`, so that
adapters find it. The router's own code continues from there: it is given the logits, and the
identity as its weight.
"""

import copy
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ramole_core.base import experts
from ramole_core.base.experts import Experts, linear_of
from ramole_core.base.packed import Shapes, takes

TOKENS, WIDTH = 7, 24
"""Sizes of the trial."""


class Router(nn.Module):
    """A router with a plain linear layer, in place of the model's."""

    def __init__(self, whole: nn.Module):
        super().__init__()
        weight = whole.get_parameter("weight")
        self.router_logits = linear_of(weight)
        self.rest = _with_weight(
            whole, torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        )

    def forward(self, hidden_states: Tensor) -> object:
        return self.rest(self.router_logits(hidden_states))


def computes_so(module: nn.Module) -> bool:
    """Whether a module is a router of one weight with logits x W^T in x's own dtype."""
    weights = dict(module.named_parameters())
    if set(weights) != {"weight"} or any(True for _ in module.buffers()):
        return False
    asks = [*inspect.signature(type(module).forward).parameters]
    if weights["weight"].ndim != 2 or len(asks) != 2 or not hasattr(module, "top_k"):
        return False
    pick = torch.Generator().manual_seed(2)
    e = len(weights["weight"])
    made = torch.randn(e, WIDTH, generator=pick, device="cpu").bfloat16()
    x = torch.randn(TOKENS, WIDTH, generator=pick, device="cpu").bfloat16()
    small = _with_weight(module, made)
    try:
        with torch.inference_mode():
            found, said = Router(small)(x), small(x)
    except Exception:  # code of another kind fails in its own way
        return False
    if not isinstance(found, tuple) or not isinstance(said, tuple):
        return False
    return all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(found, said, strict=True))


def _with_weight(module: nn.Module, weight: Tensor) -> nn.Module:
    """Run the same code with another weight, on inputs of its width."""
    other = copy.copy(module)
    other.__dict__["_parameters"] = {"weight": nn.Parameter(weight, requires_grad=False)}
    other.__dict__["training"] = False
    if hasattr(other, "hidden_dim"):
        other.__dict__["hidden_dim"] = weight.shape[1]
    return other


def take_apart(model: nn.Module, *, keep: bool = False) -> None:
    """Replace each module that computes the same; others stay. `keep`: experts can still run by
    transformers' code, which is faster on a GPU."""
    for path, module in list(model.named_modules()):
        if not path or not experts.computes_so(module):
            continue
        model.set_submodule(path, Experts(module, keep=keep))
        beside = model.get_submodule(path.rpartition(".")[0])
        for name, other in list(beside.named_children()):
            if computes_so(other):
                setattr(beside, name, Router(other))


def round_experts(model: nn.Module, shapes: Shapes, rounding: Callable[[Tensor], Tensor]) -> None:
    """Round the experts' layers that fit, in place, since loading packs no such layers."""
    for path, module in model.named_modules():
        if isinstance(module, Experts):
            for name, layer in module.named_modules(prefix=path):
                if name in shapes and takes(name, shapes[name]):
                    weight = layer.get_parameter("weight").data
                    weight.copy_(rounding(weight))
