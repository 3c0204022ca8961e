"""Check an adapter's numbers: finite, and no update out of proportion.

With numpy alone, so that a pool can be filled before torch is there.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ramole_core.errors import AdapterRefused
from ramole_core.pool.header import TensorInfo
from ramole_core.pool.pairs import Pair

LARGEST_VALUE = 1e4
"""In A or in the folded B: float16 overflows at 6.5e4."""
LARGEST_SCALE = 1e4
"""alpha/r; usual ones lie between 0.1 and 64."""
LARGEST_UPDATE = 10.0
"""Root mean square of B A; the weights of a language model have about 0.02 to 0.2."""


def check_values(path: Path, pairs: Mapping[str, Pair], *, scales: Mapping[str, float]) -> int:
    """Raise AdapterRefused for NaN, Inf and absurd norms; returns how many updates are zero."""
    zero, stacked = 0, {}
    with open(path, "rb") as file:
        for module, pair in pairs.items():
            if (scale := scales[module]) > LARGEST_SCALE:
                raise AdapterRefused(
                    f"lora_alpha over the rank is {scale:.3g} for {module}; expected at most "
                    f"{LARGEST_SCALE:g}: check lora_alpha and r."
                )
            A = _read(file, pair.A)
            B = _read_columns(file, pair, stacked)
            for half, values in (("A", A), ("B", B)):
                if not np.isfinite(values).all():
                    raise AdapterRefused(
                        f"lora_{half} of {module} holds NaN or Inf; expected finite numbers: train "
                        "again with a smaller learning rate, or save in a wider dtype."
                    )
            largest = max(_top(A), _top(B) * scale)
            if largest > LARGEST_VALUE:
                raise AdapterRefused(
                    f"The weights of {module} reach {largest:.3g} (alpha/r included); expected at "
                    f"most {LARGEST_VALUE:g}: check lora_alpha, r and the training."
                )
            size = _update_size(A, B * np.float32(scale))
            if size > LARGEST_UPDATE:
                raise AdapterRefused(
                    f"The update of {module} is {size:.3g} an entry in the root mean square; "
                    f"expected at most {LARGEST_UPDATE:g} (a base's weights have about 0.1): check "
                    "lora_alpha, r and the training."
                )
            zero += size == 0
    return zero


def _read_columns(
    file: BinaryIO, pair: Pair, stacked: dict[TensorInfo, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Read B; `stacked` keeps those of all experts read last."""
    if pair.experts == 1:
        return _read(file, pair.B)
    if pair.B not in stacked:
        while len(stacked) > 1:  # both of a block's parameters come in turn
            del stacked[next(iter(stacked))]
        stacked[pair.B] = _read(file, pair.B)
    return stacked[pair.B][:, pair.columns]


def _read(file: BinaryIO, entry: TensorInfo) -> NDArray[np.float32]:
    file.seek(entry.begin)
    data = file.read(entry.end - entry.begin)
    if entry.dtype == "BF16":
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(entry.shape)
    kind = {"F32": "<f4", "F16": "<f2"}[entry.dtype]
    return np.frombuffer(data, kind).astype(np.float32).reshape(entry.shape)


def _top(values: NDArray[np.float32]) -> float:
    return float(np.abs(values).max())


def _update_size(A: NDArray[np.float32], B: NDArray[np.float32]) -> float:
    """Root mean square of B A, by two r x r products: ||B A||^2 = tr((B^T B)(A A^T))."""
    left = (B.T @ B).astype(np.float64)
    right = (A @ A.T).astype(np.float64)
    return math.sqrt(max(float((left * right).sum()), 0.0) / (A.shape[1] * B.shape[0]))
