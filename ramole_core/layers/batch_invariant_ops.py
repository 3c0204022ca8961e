"""Batch-invariant forms of activations, norms and rotary angles.

PyTorch computes a function such as exp in whole vectors and what is left over in another way, so a
number's last bits may follow from its place in the batch. Activations have a kernel of ours, or are
computed token by token where they have none. Angles are computed once for each block of positions,
always in blocks of one size, and looked up; with longrope (arXiv 2402.13753) they follow from the
request too: one set of factors up to the length of the first training, another for requests that
may become longer. All else in a transformer of linear layers is exact operations, or sums along a
row of its own. Not so in a mixture of experts whose router and experts are no linear layers: those
products are PyTorch's, and a token may depend on its batch there within rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import activations

from ramole_core.errors import Unsupported
from ramole_core.kernels.call_args import WATCHING
from ramole_core.kernels.compiled import DTYPES, view
from ramole_core.kernels.elementwise import GELU, GELU_TANH, SILU, activate
from ramole_core.kernels.norm import Norm

NAMES: Mapping[str, int] = {
    "SiLU": SILU,
    "SiLUActivation": SILU,
    "GELU": GELU,
    "GELUActivation": GELU,
    "GELUTanh": GELU_TANH,
    "NewGELUActivation": GELU_TANH,
    "FastGELUActivation": GELU_TANH,
}
"""Classes of `torch.nn` and `transformers.activations`."""
EXACT = ("ReLU", "ReLU6", "LeakyReLU", "ReLUSquaredActivation", "LinearActivation")
"""Activations whose results are exact at any place of a vector."""
ACTIVATIONS = frozenset(
    (nn.GELU, *(one[0] if isinstance(one, tuple) else one for one in activations.ACT2CLS.values()))
)
"""All that a configuration can name, and the classes of some models."""

NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "MixtralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
NORMS += ("GraniteRMSNorm", "Phi3RMSNorm", "SmolLM3RMSNorm")
"""RMSNorms of transformers that are written alike; ours is one call a row, PyTorch's six."""

BLOCK = 64
"""Positions whose angles are computed together."""


class BatchInvariant(nn.Module):
    """A module computed by a batch-invariant form on a CPU, by itself elsewhere."""

    def __init__(self, base: nn.Module, form: Callable[[Tensor], Tensor]):
        super().__init__()
        self.base, self.form = base, form

    @property
    def weight(self) -> Tensor:
        """A norm's weight, which some models read."""
        return self.base.get_parameter("weight")

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype not in DTYPES or x.requires_grad:
            return self.base(x)
        return self.form(x)


def by_token(base: nn.Module, x: Tensor) -> Tensor:
    """An activation without a kernel: PyTorch's, token by token."""
    rows = x.reshape(-1, x.shape[-1])
    return torch.cat([base(row[None].clone()) for row in rows]).view(x.shape)


@dataclass
class LongTokens:
    """The running forward's tokens of long requests."""

    now: Tensor | None = None
    """[1, N] which tokens are of long requests; None: no token is."""


class BatchInvariantRotary(nn.Module):
    """A rotary embedding's cos and sin, looked up in blocks of positions."""

    def __init__(
        self, base: nn.Module, *, short: int | None = None, long: LongTokens | None = None
    ):
        """`short`: see `short_length`."""
        super().__init__()
        self.base = base
        self._short, self._long = short, long or LongTokens()
        dynamic = "dynamic" in str(getattr(base, "rope_type", ""))
        self._most: int | None = getattr(base, "original_max_seq_len", None) if dynamic else None
        """Tokens of the context, past which a dynamic rope has other angles for all of a block."""
        self._blocks: dict[tuple, tuple[Tensor, Tensor]] = {}
        self._kinds: dict[tuple, tuple[Tensor, tuple, dict]] = {}
        """By all but the positions: a tensor of the kind, and what else the model gave."""

    def __getattr__(self, name: str):
        """Attributes of the base module, such as its configuration."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, x: Tensor, position_ids: Tensor, *more, **named) -> tuple[Tensor, Tensor]:
        if position_ids.ndim == 3 and position_ids.stride(0) == 0:
            position_ids = position_ids[0]  # of time, height and width: all alike where all is text
        known = x.device.type == "cpu" or self._short is not None
        if position_ids.ndim != 2 or not known:
            return self.base(x, position_ids, *more, **named)
        if (watcher := WATCHING.one) is None:
            return self._look_up(x, position_ids, more, named)
        with watcher.aside():
            found = self._look_up(x, position_ids, more, named)

        key = x.dtype, *more, *sorted(named.items())
        olds = [view(old.view(-1, old.shape[-1])) for old in found]

        seen: dict[tuple[int, bool], list[np.ndarray]] = {}
        positions = position_ids.numpy()

        def again() -> None:
            long = self._long.now
            for n, position in enumerate(positions.ravel().tolist()):
                number, far = position // BLOCK, long is not None and bool(long[0, n])
                block = seen.get((number, far))
                if block is None:
                    found = self._block(x, number, far, key, more, named)
                    block = seen[number, far] = [view(one) for one in found]
                for old, new in zip(olds, block, strict=True):
                    old[n] = new[position % BLOCK]

        watcher.again(again)
        return found

    def _look_up(self, x: Tensor, position_ids: Tensor, more, named) -> tuple[Tensor, Tensor]:
        key = x.dtype, *more, *sorted(named.items())
        wanted = position_ids.div(BLOCK, rounding_mode="floor")
        if self._long.now is not None and self._short is not None:
            wanted = 2 * wanted + self._long.now.to(wanted.device)
        else:
            wanted = 2 * wanted
        numbers, back = wanted.unique(return_inverse=True)
        blocks = [
            self._block(x, number // 2, number % 2 == 1, key, more, named)
            for number in numbers.tolist()
        ]
        cos, sin = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        at = back * BLOCK + position_ids % BLOCK
        return cos[at], sin[at]

    def differs(self) -> int | None:
        """The length of a request whose angles differ from the base's own; None: none of those
        tried. Tried are a few tokens, and where there is a longrope, both sides of it."""
        short = self._short
        few = min(2 * BLOCK + 2, self._most or 2 * BLOCK + 2)
        lengths = [few] if short is None else [short, short + 2]
        now = self._long.now
        try:
            for x, more, named in list(self._kinds.values()):
                for length in lengths:
                    positions = torch.arange(length, device=x.device)[None]
                    long = short is not None and length > short
                    self._long.now = torch.ones_like(positions, dtype=torch.bool) if long else None
                    own = self.base(x, positions, *more, **named)
                    ours = self._look_up(x, positions, more, named)
                    if not all(
                        torch.allclose(a[0], b[0], rtol=0, atol=2 * torch.finfo(a.dtype).eps)
                        for a, b in zip(own, ours, strict=True)
                    ):
                        return length
        finally:
            self._long.now = now
        return None

    def _block(
        self, x: Tensor, number: int, long: bool, key: tuple, more, named
    ) -> tuple[Tensor, Tensor]:
        found = self._blocks.get((number, long, *key))
        if found is None:
            self._kinds.setdefault(key, (x[..., :1, :1], more, named))
            positions = torch.arange(number * BLOCK, (number + 1) * BLOCK, device=x.device)[None]
            if self._short is not None:  # the largest position decides which factors are taken
                last = torch.full_like(positions[:, :1], self._short)
                positions = (
                    torch.cat([positions, last], -1)
                    if long
                    else positions.clamp(max=self._short - 1)
                )
            elif self._most is not None:
                positions = positions.clamp(max=self._most - 1)
            made = self.base(x, positions, *more, **named)
            if not isinstance(made, tuple) or len(made) != 2 or made[0].ndim != 3:
                raise Unsupported("its rotary embedding gives no cosines and sines")
            cos, sin = made
            found = self._blocks[number, long, *key] = cos[0, :BLOCK], sin[0, :BLOCK]
        return found


def short_length(model: nn.Module) -> int | None:
    """The most tokens of a request with a longrope's short factors; None: there is no longrope."""
    config: Any = getattr(model, "config", None)
    found = getattr(config and config.get_text_config(), "rope_parameters", None) or {}
    every = [found, *(one for one in found.values() if isinstance(one, dict))]
    lengths = [
        int(one["original_max_position_embeddings"])
        for one in every
        if one.get("rope_type") == "longrope"
    ]
    return min(lengths, default=None)


def _is_known(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in DTYPES


def invariant_layers(model: nn.Module, long: LongTokens | None = None) -> dict[str, nn.Module]:
    """Replacements for a model's modules, by path; `long` marks tokens of long requests."""
    found: dict[str, nn.Module] = {}
    short = short_length(model)
    for path, module in model.named_modules():
        name = type(module).__name__
        if type(module) in ACTIVATIONS:
            kind = NAMES.get(name)
            if kind is not None and getattr(module, "approximate", "none") == "none":
                found[path] = BatchInvariant(module, partial(activate, kind=kind))
            elif name not in EXACT:
                found[path] = BatchInvariant(module, partial(by_token, module))
        elif name in NORMS and _is_known(module.get_parameter("weight")):
            epsilon = float(module.variance_epsilon)  # pyright: ignore
            found[path] = BatchInvariant(module, Norm(module.get_parameter("weight"), epsilon).of)
        elif name.endswith("RotaryEmbedding"):
            found[path] = BatchInvariantRotary(module, short=short, long=long)
    return found
