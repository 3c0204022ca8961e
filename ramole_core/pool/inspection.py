"""Inspect an adapter's folder: its facts, or AdapterRefused with the reason.

Uses numpy alone, so that a pool can be filled before torch is imported.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ramole_core.base.hub_name import HUB_ID
from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Limits
from ramole_core.pool.config import CONFIG, LoraScaling, read_config
from ramole_core.pool.header import WEIGHTS, TensorInfo, read_header
from ramole_core.pool.pairs import Pair, Shapes, pair_tensors

MAX_VALUE = 1e4
"""Largest number in A or in the folded B: float16 overflows at 6.5e4."""
MAX_SCALE = 1e4
"""alpha/r; usual ones lie between 0.1 and 64."""
MAX_UPDATE = 10.0
"""Root mean square of B A; the weights of a language model have about 0.02 to 0.2."""

Facts = dict[str, object]
"""Facts that a manifest holds of an adapter's weights and configuration: rank and scale of each
module, dtype, parameters, the base that the configuration names, and a fingerprint of the base's
linear layers that the shapes were checked against."""
_PACKED = re.compile(r"(-unsloth)?(-bnb)?-4bit$|-(gptq|awq|gguf)\b.*$")
"""Suffixes of a base's name for its quantised forms."""


def inspect_folder(folder: Path, *, shapes: Shapes, limits: Limits) -> tuple[Facts, list[str]]:
    """Check `adapter_model.safetensors` and `adapter_config.json` in `folder`; facts and notes."""
    word, pairs = read_pairs(folder, shapes=shapes)
    check_ranks(pairs, limits=limits)
    scales = scales_of(word, pairs)
    zero = check_values(folder / WEIGHTS, pairs, scales=scales)
    notes = list(word.notes)
    said = {path: word.rank_of(pair.said or path) for path, pair in pairs.items()}
    if other := [path for path, pair in pairs.items() if pair.rank != said[path]]:
        notes.append(
            f"{CONFIG} says rank {said[other[0]]} for {other[0]} but its tensors have rank "
            f"{pairs[other[0]].rank}; the tensors decide"
            + (f", there and in {len(other) - 1} more modules." if other[1:] else ".")
        )
    if zero:
        notes.append(f"The update is zero in {zero} of {len(pairs)} modules.")
    entries = [entry for pair in pairs.values() for entry in (pair.A, pair.B)]
    facts = {
        "modules": {path: [pair.rank, scales[path]] for path, pair in pairs.items()},
        "dtype": "+".join(sorted({entry.dtype for entry in entries})),
        "parameters": sum(pair.parameters for pair in pairs.values()),
        "base_model": word.base_model,
        "fits": fingerprint(shapes),
    }
    return facts, notes


def other_base(said: object, base_name: str) -> list[str]:
    """Return a note where an adapter's config names another base than the served one.

    Both must be OWNER/NAME: a path proves nothing. Owners who publish a base again, packed in few
    bits, publish the same base.
    """
    ours, theirs = (HUB_ID.fullmatch(str(name or "")) for name in (base_name, said))
    if ours is None or theirs is None or _model(ours[1]) == _model(theirs[1]):
        return []
    return [f"Made for {said}, not for {base_name}: its shapes fit, its answers may not."]


def _model(name: str) -> str:
    return _PACKED.sub("", name.casefold())


def read_pairs(folder: Path, *, shapes: Shapes) -> tuple[LoraScaling, dict[str, Pair]]:
    """The configuration and the pairs, checked against the base but not yet their values."""
    config = (folder / CONFIG).read_bytes()
    with open(folder / WEIGHTS, "rb") as file:
        return match_pairs(config, file, os.fstat(file.fileno()).st_size, shapes=shapes)


def match_pairs(
    config: bytes, weights: BinaryIO, size: int, *, shapes: Shapes
) -> tuple[LoraScaling, dict[str, Pair]]:
    """The same of files in any folder; only the header of `weights` is read."""
    word = read_config(config)
    pairs = pair_tensors(read_header(weights, size), shapes=shapes)
    for pair in pairs.values():
        if pair.experts > 1 and pair.rank != (said := word.rank_of(pair.said)):
            raise AdapterRefused(
                f"The tensors of {pair.said} have rank {pair.rank} for each of this base's "
                f"{pair.experts} experts, but {CONFIG} says {said}; use an adapter trained on a "
                "base of as many experts."
            )
    return word, pairs


def scales_of(word: LoraScaling, pairs: Mapping[str, Pair]) -> dict[str, float]:
    """The scale, such as alpha/r, of each module."""
    return {path: word.scale_of(pair.said or path, pair.rank) for path, pair in pairs.items()}


def check_ranks(pairs: Mapping[str, Pair], *, limits: Limits) -> int:
    """The largest rank; raises AdapterRefused where it is too large."""
    largest, module = max((pair.rank, path) for path, pair in pairs.items())
    if largest > limits.max_rank:
        raise AdapterRefused(
            f"The module {module} has rank {largest}; at most {limits.max_rank} is served: train "
            "with a smaller rank, or raise RAMOLE_MAX_RANK."
        )
    return largest


def fingerprint(shapes: Shapes) -> str:
    """A fingerprint, equal for two bases that accept the same adapters."""
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()[:16]


def check_values(path: Path, pairs: Mapping[str, Pair], *, scales: Mapping[str, float]) -> int:
    """Raise AdapterRefused for NaN, Inf and absurd norms; returns how many updates are zero."""
    zero, stacked = 0, {}
    with open(path, "rb") as file:
        for module, pair in pairs.items():
            if (scale := scales[module]) > MAX_SCALE:
                raise AdapterRefused(
                    f"lora_alpha over the rank is {scale:.3g} for {module}; expected at most "
                    f"{MAX_SCALE:g}: check lora_alpha and r."
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
            if largest > MAX_VALUE:
                raise AdapterRefused(
                    f"The weights of {module} reach {largest:.3g} (alpha/r included); expected at "
                    f"most {MAX_VALUE:g}: check lora_alpha, r and the training."
                )
            size = _update_size(A, B * np.float32(scale))
            if size > MAX_UPDATE:
                raise AdapterRefused(
                    f"The update of {module} is {size:.3g} an entry in the root mean square; "
                    f"expected at most {MAX_UPDATE:g} (a base's weights have about 0.1): check "
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
