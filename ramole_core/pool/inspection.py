"""Inspect an adapter's folder: its facts, or AdapterRefused with the reason."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ramole_core.base.hub_name import HUB_ID
from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Facts, Limits
from ramole_core.pool.config import CONFIG, LoraWord, read_config
from ramole_core.pool.header import read_header
from ramole_core.pool.pairs import Pair, pair_tensors
from ramole_core.pool.values import check_values

WEIGHTS = "adapter_model.safetensors"
Shapes = Mapping[str, tuple[int, int]]
"""(i, o) of every linear layer of the base by module path."""

_PACKED = re.compile(r"(-unsloth)?(-bnb)?-4bit$|-(gptq|awq|gguf)\b.*$")
"""What the name of a base has more where it is packed in few bits."""


def inspect_folder(folder: Path, *, shapes: Shapes, limits: Limits) -> Facts:
    """Check `adapter_model.safetensors` and `adapter_config.json` in `folder`."""
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
    return Facts(
        ranks={path: pair.rank for path, pair in pairs.items()},
        scales=scales,
        dtype="+".join(sorted({entry.dtype for entry in entries})),
        parameters=sum(pair.parameters for pair in pairs.values()),
        base_model=word.base_model,
        notes=tuple(notes),
        fits=fingerprint(shapes),
    )


def other_base(said: str | None, base_name: str) -> list[str]:
    """A note where an adapter says another base than the one that is served.

    Both must be OWNER/NAME: a path proves nothing. Owners who publish a base again, packed in few
    bits, publish the same base.
    """
    ours, theirs = (HUB_ID.fullmatch(name or "") for name in (base_name, said))
    if ours is None or theirs is None or _model(ours[1]) == _model(theirs[1]):
        return []
    return [f"Made for {said}, not for {base_name}: its shapes fit, its answers may not."]


def _model(name: str) -> str:
    return _PACKED.sub("", name.casefold())


def read_pairs(folder: Path, *, shapes: Shapes) -> tuple[LoraWord, dict[str, Pair]]:
    """The configuration and the pairs, checked against the base but not yet their values."""
    word = read_config(folder / CONFIG)
    pairs = pair_tensors(read_header(folder / WEIGHTS), shapes=shapes)
    for pair in pairs.values():
        if pair.experts > 1 and pair.rank != (said := word.rank_of(pair.said)):
            raise AdapterRefused(
                f"The tensors of {pair.said} have rank {pair.rank} for each of this base's "
                f"{pair.experts} experts, but {CONFIG} says {said}; use an adapter trained on a "
                "base of as many experts."
            )
    return word, pairs


def scales_of(word: LoraWord, pairs: Mapping[str, Pair]) -> dict[str, float]:
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
