"""Time of one token's products on this CPU, which bounds the tokens a second of one answer."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from ramole_core.base.model import PACKED, pick_device, pick_dtype, pick_quantization
from ramole_core.base.packed import fits
from ramole_core.base.shapes import read_shapes
from ramole_core.kernels.threads import kernels_alone
from ramole_core.kernels.ways import NAMES
from ramole_core.kernels.weight import Input, Weight, way_here
from ramole_core.settings import Settings

COLD_BYTES = 2**25
"""Bytes of weights of one size that are read in turn: more than a core's cache holds."""
PASSES = 4


def speed_of_products(settings: Settings, folder: Path) -> str:
    """Describe this CPU's products and their bound on the base in `folder`; empty where the
    products are a GPU's, or of float32."""
    device = pick_device(settings.device)
    if device.type != "cpu" or pick_dtype(settings.dtype) != torch.bfloat16:
        return ""
    kind = pick_quantization(settings.quantization, device=device, folder=folder)
    shapes = read_shapes(folder).items()  # of a mixture's experts a token needs a few
    seconds = seconds_of_products({p: size for p, size in shapes if ".experts." not in p}, kind)
    return (
        f"by {NAMES[way_here()]}; those of the layers take {seconds * 1e3:.2g} ms a token "
        f"(quantization {kind}), so one answer takes fewer than {1 / seconds:,.0f} steps a second"
    )


@torch.inference_mode()
def seconds_of_products(shapes: Mapping[str, tuple[int, int]], quantization: str) -> float:
    """Least seconds for one token through layers of these shapes (i, o) by path, in bfloat16;
    `quantization` is `none` or one of PACKED. Weights of one size are measured together."""
    total = 0.0
    with kernels_alone():
        for (i, o), count in Counter(shapes.values()).items():
            weights = _weights(i, o, quantization, count)
            x, seconds = Input(torch.ones(1, i, dtype=torch.bfloat16)), []
            for _ in range(PASSES):
                began = time.perf_counter()
                for weight in weights:
                    weight.multiply(x)
                seconds.append(time.perf_counter() - began)
            total += min(seconds) / len(weights) * count
    return total


def _weights(i: int, o: int, quantization: str, count: int) -> list[Weight]:
    """So many weights of a size, or as many as COLD_BYTES hold."""
    plain = torch.ones(o, i, dtype=torch.bfloat16)
    if quantization == "none" or not fits(i, o):
        tensors = [plain]
    else:
        layer = PACKED[quantization][0](plain, None)
        tensors = [layer.weight, layer.scales]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    found = []
    for _ in range(max(1, min(count, COLD_BYTES // size))):
        weight, *scales = (tensor.detach().clone() for tensor in tensors)
        found.append(Weight(weight, (o, i), scales=scales[0] if scales else None))
    return found
