"""The verdict on an adapter's folder: its facts, or AdapterRefused with the sentence why not."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Facts, Limits
from ramole_core.pool.config import CONFIG, LoraWord, read_config
from ramole_core.pool.header import read_header
from ramole_core.pool.pairs import Pair, pair_tensors
from ramole_core.pool.values import check_values

WEIGHTS = "adapter_model.safetensors"
Shapes = Mapping[str, tuple[int, int]]
"""(i, o) of every linear layer of the base by module path."""


def inspect_folder(folder: Path, *, shapes: Shapes, limits: Limits) -> Facts:
    """Checks `adapter_model.safetensors` and `adapter_config.json` in `folder`."""
    word, pairs = read_pairs(folder, shapes=shapes)
    check_ranks(pairs, limits=limits)
    scales = {path: word.scale_of(path, pair.rank) for path, pair in pairs.items()}
    zero = check_values(folder / WEIGHTS, pairs, scales=scales)
    notes = list(word.notes)
    if other := [path for path, pair in pairs.items() if pair.rank != word.rank_of(path)]:
        notes.append(
            f"{CONFIG} says rank {word.rank_of(other[0])} for {other[0]} but its tensors have rank "
            f"{pairs[other[0]].rank}; the tensors decide"
            + (f", there and in {len(other) - 1} more modules." if other[1:] else ".")
        )
    if zero:
        notes.append(f"The update is zero in {zero} of {len(pairs)} modules.")
    entries = [entry for pair in pairs.values() for entry in (pair.A, pair.B)]
    return Facts(
        ranks={path: pair.rank for path, pair in pairs.items()},
        scales=scales,
        dtype="+".join(sorted({entry.dtype for entry in entries})),
        parameters=sum(entry.shape[0] * entry.shape[1] for entry in entries),
        base_model=word.base_model,
        notes=tuple(notes),
        fits=fingerprint(shapes),
    )


def read_pairs(folder: Path, *, shapes: Shapes) -> tuple[LoraWord, dict[str, Pair]]:
    """The configuration and the pairs, checked against the base but not yet their values."""
    word = read_config(folder / CONFIG)
    return word, pair_tensors(read_header(folder / WEIGHTS), shapes=shapes)


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
    """Same for two bases that accept the same adapters."""
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()[:16]
