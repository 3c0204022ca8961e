"""Mixtures of experts of transformers with hooks on products that are no modules there.

A naive twin of what is served: each token by itself, each of its experts by itself.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Hook = Callable[[nn.Module | None, tuple[Tensor, ...], Tensor], Tensor]


@contextmanager
def mixtures_hooked(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[list[str]]:
    """Inside, hooks at paths such as `mlp.experts.3.down_proj` and `mlp.gate.router_logits` change
    those products; gives the paths of the other hooks."""
    modules = dict(model.named_modules())
    with mock.patch.object(F, "linear", new=_linear(modules, hooks)):
        before = {}
        for path, module in modules.items():
            if f"{path}.0.down_proj" in hooks:
                before[path] = module.__dict__.get("forward")
                module.forward = _forward(path, module, hooks)
        yield [path for path in hooks if path in modules]
        for path in before:
            del modules[path].__dict__["forward"]


def _linear(modules: Mapping[str, nn.Module], hooks: Mapping[str, Hook]):
    routers = {
        id(module.weight): hooks[f"{path}.router_logits"]
        for path, module in modules.items()
        if f"{path}.router_logits" in hooks
    }
    plain = F.linear

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = plain(x, weight, bias)
        hook = routers.get(id(weight))
        return y if hook is None else hook(None, (x,), y)

    return linear


def _forward(path: str, module: nn.Module, hooks: Mapping[str, Hook]):
    def forward(x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        out = torch.zeros_like(x, dtype=torch.float64)
        for t in range(len(x)):
            for e, w in zip(chosen[t].tolist(), weights[t], strict=True):
                own = x[t : t + 1]
                both = own @ module.gate_up_proj[e].T
                both = hooks[f"{path}.{e}.gate_up_proj"](None, (own,), both)
                gate, up = both.split(both.shape[-1] // 2, dim=-1)
                inner = module.act_fn(gate) * up
                y = inner @ module.down_proj[e].T
                y = hooks[f"{path}.{e}.down_proj"](None, (inner,), y)
                out[t] += (w * y[0]).double()
        return out.to(x.dtype)

    return forward
