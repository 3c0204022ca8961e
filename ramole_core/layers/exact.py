"""Whether a served model is batch-invariant."""

from torch import nn
from transformers import PreTrainedModel, activations
from transformers.pytorch_utils import Conv1D

from ramole_core.base.experts import Experts
from ramole_core.base.kernel_linear import base_weight
from ramole_core.base.packed import PackedLinear
from ramole_core.kernels.compiled import DTYPES
from ramole_core.layers.batch_invariant_ops import EXACT, steady_layers

LINEAR = (nn.Linear, Conv1D, PackedLinear)
HOMES = (nn.ReLU.__module__, activations.__name__)
"""Where activations come from."""


def is_exact(model: PreTrainedModel) -> bool:
    """Whether a token's bits are independent of the batch once the model is served: it is on a CPU
    in float32 or bfloat16 (or fewer bits), with a kernel for every product."""
    if model.device.type != "cpu" or model.dtype not in DTYPES:
        return False
    steady = steady_layers(model)
    for path, module in model.named_modules():
        if isinstance(module, Experts):
            return False  # who chooses them is PyTorch's
        if isinstance(module, LINEAR) and base_weight(module) is None:
            return False
        if not isinstance(module, (*LINEAR, nn.Embedding)) and any(
            weight.ndim > 1 for weight in module.parameters(recurse=False)
        ):
            return False  # such as a mixture of experts, whose products PyTorch takes together
        activates = type(module).__module__ in HOMES and type(module).__name__ not in EXACT
        if activates and path not in steady:
            return False
    return True
