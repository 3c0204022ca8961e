"""Batch-invariant forms of activations, norms and rotary angles.

PyTorch computes a function such as exp in whole vectors and what is left over in another way, so a
number's last bit may follow from its place in the batch. Activations have a kernel of ours, or are
computed token by token where they have none; angles have a file of their own (`angles.py`). All
else in a transformer of linear layers is exact operations, or
sums along a row of its own. Not so in a mixture of experts whose router and experts are no linear
layers: those products are PyTorch's, and a token may depend on its batch there within rounding.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import activations

from ramole_core.kernels.compiled import DTYPES
from ramole_core.kernels.elementwise import GELU, GELU_TANH, SILU, activate
from ramole_core.kernels.norm import Norm
from ramole_core.layers.angles import LongTokens, SteadyAngles, short_length

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
"""Those whose numbers are exact wherever they stand."""
ACTIVATIONS = frozenset(
    (nn.GELU, *(one[0] if isinstance(one, tuple) else one for one in activations.ACT2CLS.values()))
)
"""All that a configuration can name, and what some models name themselves."""

NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "MixtralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
NORMS += ("GraniteRMSNorm", "Phi3RMSNorm", "SmolLM3RMSNorm")
"""Classes of transformers that are written alike."""


class SteadyActivation(nn.Module):
    """A batch-invariant activation of `NAMES`, elementwise."""

    def __init__(self, base: nn.Module, kind: int):
        super().__init__()
        self.base, self._kind = base, kind

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype not in DTYPES or x.requires_grad:
            return self.base(x)
        return activate(x, self._kind)


class ActivationByToken(nn.Module):
    """An activation without a kernel: PyTorch's, token by token."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.requires_grad:
            return self.base(x)
        rows = x.reshape(-1, x.shape[-1])
        return torch.cat([self.base(row[None].clone()) for row in rows]).view(x.shape)


class SteadyNorm(nn.Module):
    """An RMSNorm of `NORMS` in one call a row; PyTorch's is as exact, in six calls."""

    def __init__(self, base: nn.Module, epsilon: float):
        super().__init__()
        self.base = base
        self._norm = Norm(base.get_parameter("weight"), epsilon)

    @property
    def weight(self) -> Tensor:
        """The layer's weight: some models look at it."""
        return self.base.get_parameter("weight")

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype not in DTYPES or x.requires_grad:
            return self.base(x)
        return self._norm.of(x)


def _is_known(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in DTYPES


def steady_layers(model: nn.Module, long: LongTokens | None = None) -> dict[str, nn.Module]:
    """Replacements for a model's modules, by path; `long` says which tokens are of long
    requests."""
    found: dict[str, nn.Module] = {}
    short = short_length(model)
    for path, module in model.named_modules():
        name = type(module).__name__
        if type(module) in ACTIVATIONS:
            kind = NAMES.get(name)
            if kind is not None and getattr(module, "approximate", "none") == "none":
                found[path] = SteadyActivation(module, kind)
            elif name not in EXACT:
                found[path] = ActivationByToken(module)
        elif name in NORMS and _is_known(module.get_parameter("weight")):
            found[path] = SteadyNorm(module, float(module.variance_epsilon))  # pyright: ignore
        elif name.endswith("RotaryEmbedding"):
            found[path] = SteadyAngles(module, short=short, long=long)
    return found
