"""The experts of a mixture as plain linear layers.

transformers keeps all experts of a block in two parameters, `gate_up_proj` [e, 2 m, h] and
`down_proj` [e, h, m], and multiplies them together. Here each expert has linear layers whose
weights are views of the same memory, so that adapters, packing and traces find them at paths such
as `mlp.experts.3.down_proj`:

    y = sum_e w_e down_e(act(gate) * up),    gate, up = gate_up_e(x)

over the experts that a token's router chose. They are added in their order, so that no other token
changes the sum. Only classes that compute just this are taken apart: each is tried on small
numbers.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

PARAMETERS = ("gate_up_proj", "down_proj")
TRIAL = 16
"""Size of the trial's layers."""


class Expert(nn.Module):
    """An expert of two linear layers, called with its own tokens."""

    def __init__(self, gate_up: Float[Tensor, "m2 h"], down: Float[Tensor, "h m"]):
        super().__init__()
        self.gate_up_proj, self.down_proj = linear_of(gate_up), linear_of(down)

    def forward(
        self, x: Float[Tensor, "n h"], tokens: Int[Tensor, "n"], act: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "n h"]:
        """`tokens` are the places of these in the forward, ascending, for the layers that mix."""
        return self.down_proj(self.inner(x, act))

    def inner(self, x: Float[Tensor, "n h"], act: Callable[[Tensor], Tensor]) -> Tensor:
        """The input of the second layer, [n, m]."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return act(gate) * up


class Experts(nn.Module):
    """The experts of a block, in place of two stacked parameters."""

    def __init__(self, whole: nn.Module, *, keep: bool = False):
        """`keep`: the code of transformers is there too, with the same weights."""
        super().__init__()
        self._whole = (whole,) if keep else ()  # no submodule: its weights are these
        self.together = False
        """Whether that code runs, without adapters."""
        gate_up, down = (whole.get_parameter(name) for name in PARAMETERS)
        self.num_experts = gate_up.shape[0]
        self.act_fn = whole.get_submodule("act_fn")
        for e in range(self.num_experts):
            self.add_module(str(e), Expert(gate_up[e], down[e]))

    def each(self) -> list[Expert]:
        """The experts in order."""
        return [one for one in self.children() if isinstance(one, Expert)]

    def forward(
        self,
        hidden_states: Float[Tensor, "n h"],
        top_k_index: Int[Tensor, "n top"],
        top_k_weights: Float[Tensor, "n top"],
    ) -> Float[Tensor, "n h"]:
        if self.together and self._whole:
            return self._whole[0](hidden_states, top_k_index, top_k_weights)
        n, top = top_k_index.shape
        chosen, place = top_k_index.sort(dim=-1)  # a token's outputs are added in this order
        order = chosen.flatten().argsort(stable=True)
        tokens, every = order // top, self.each()
        counts = chosen.flatten().bincount(minlength=len(every)).tolist()[: len(every)]
        xs = hidden_states[tokens]
        y, end = hidden_states.new_zeros(xs.shape), 0  # of a choice that stands for no expert: 0
        for expert, count in zip(every, counts, strict=True):
            if count:
                own, end = slice(end, end + count), end + count
                y[own] = expert(xs[own], tokens[own], self.act_fn)
        back = y.new_empty(y.shape).index_copy(0, order, y).view(n, top, -1)
        parts = back * top_k_weights.gather(-1, place)[..., None]
        out = parts[:, 0].to(torch.promote_types(parts.dtype, torch.float32))
        for rank in range(1, top):
            out = out + parts[:, rank]
        return out.to(hidden_states.dtype)


def experts_in(model: nn.Module) -> list[Experts]:
    """The experts of all blocks."""
    return [one for one in model.modules() if isinstance(one, Experts)]


@contextmanager
def together(every: Sequence[Experts]) -> Iterator[None]:
    """Run these by transformers' code inside, where it was kept."""
    for one in every:
        one.together = True
    try:
        yield
    finally:
        for one in every:
            one.together = False


def computes_so(module: nn.Module) -> bool:
    """Whether a module holds plain 3-D weights alone, and computes as `Experts` does."""
    weights = dict(module.named_parameters())
    if set(weights) != set(PARAMETERS) or any(True for _ in module.buffers()):
        return False
    gate_up, down = (weights[name] for name in PARAMETERS)
    if (
        gate_up.ndim != 3
        or down.ndim != 3
        or not isinstance(getattr(module, "act_fn", None), nn.Module)
    ):
        return False
    e, m2, h = gate_up.shape
    return tuple(down.shape) == (e, h, m2 // 2) and m2 % 2 == 0 and _agree(module, e)


def _agree(module: nn.Module, e: int) -> bool:
    """Whether results agree on a few random tokens and weights, some of them large."""
    pick = torch.Generator().manual_seed(2)
    small = copy.copy(module)
    shapes = {"gate_up_proj": (e, 2 * TRIAL, TRIAL), "down_proj": (e, TRIAL, TRIAL)}
    made = {
        name: nn.Parameter(torch.randn(shape, generator=pick, device="cpu"), requires_grad=False)
        for name, shape in shapes.items()
    }
    small.__dict__["_parameters"] = made
    x = torch.randn(5, TRIAL, generator=pick) * 4
    chosen = torch.rand(5, e, generator=pick).topk(min(2, e)).indices
    weights = torch.rand(chosen.shape, generator=pick)
    try:
        with torch.inference_mode():
            found, said = Experts(small)(x, chosen, weights), small(x, chosen, weights)
    except Exception:  # code of another kind fails in its own way
        return False
    return found.shape == said.shape and torch.allclose(found, said, rtol=1e-3, atol=1e-3)


def linear_of(weight: Float[Tensor, "o i"]) -> nn.Linear:
    """A linear layer that shares the memory of its weight."""
    o, i = weight.shape
    layer = nn.Linear(i, o, bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return layer
