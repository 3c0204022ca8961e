"""Tensor names of a PEFT file -> pairs (A, B) by module path of the base.

PEFT saves `base_model.model.<path>.lora_A.weight` and `.lora_B.weight`, with the adapter's name
before `.weight` when a training loop saved them itself. A is [r, i] and B is [o, r] for Conv1D
(fan_in_fan_out) as for Linear: only the base's weight is stored the other way round.

LoRA on bare parameters (`target_parameters`) is taken where the base has plain linear layers for
them: a router's weight, and the experts of a mixture, whose pairs are cut out of what PEFT stacks
(`expert_pairs.py`). Any other parameter is refused.
"""

import difflib
import re
from collections.abc import Mapping

from ramole_core.errors import AdapterRefused
from ramole_core.pool.expert_pairs import cut, experts_at, router_at, router_pair
from ramole_core.pool.header import TensorInfo
from ramole_core.pool.pair import Pair

Shapes = Mapping[str, tuple[int, int]]
"""(i, o) by module path."""
PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<path>.+)\.lora_(?P<half>[AB])(\.(?P<adapter>[^.]+))?\.weight")
_SHARED = (
    "of the base's embedding or output layer, which all adapters share; train on the linear layers "
    "of the blocks only, and save with save_embedding_layers=False"
)
_REFUSED_TENSORS = (
    ("lora_magnitude_vector", "a DoRA magnitude; train without DoRA"),
    ("lora_embedding_", "LoRA on an embedding; train on the linear layers of the blocks only"),
    ("trainable_tokens", "trained tokens of the vocabulary; train without trainable_token_indices"),
    ("token_adapter", "trained tokens of the vocabulary; train without trainable_token_indices"),
    ("modules_to_save", "a whole module of the base; train without modules_to_save"),
    ("lora_E", "AdaLoRA's singular values; only plain LoRA can be mixed"),
    ("lora_diag", "KaSA's singular values; only plain LoRA can be mixed"),
    ("embed", _SHARED),
    ("wte.", _SHARED),
    ("lm_head", _SHARED),
    (".bias", "a bias; train with bias='none' and lora_bias=False"),
)


def pair_tensors(entries: Mapping[str, TensorInfo], *, shapes: Shapes) -> dict[str, Pair]:
    """By base module path, in the base's order; raises AdapterRefused for anything that is not
    half of a LoRA pair or does not fit `shapes` (`{path: (i, o)}`)."""
    if not entries:
        raise AdapterRefused(
            "The safetensors file holds no tensor; expected LoRA pairs: save the adapter again "
            "after training it."
        )
    halves: dict[str, dict[str, TensorInfo]] = {}
    adapters = set()
    for name, entry in entries.items():
        path, half, adapter = _split(name, shapes)
        adapters.add(adapter)
        mine = halves.setdefault(path, {})
        if half in mine or len(adapters) > 1:
            raise AdapterRefused(
                f"The file holds more than one adapter ({_short(name)} is another's); save each in "
                "a folder of its own."
            )
        mine[half] = entry
    pairs: dict[str, Pair] = {}
    for path, mine in halves.items():
        for module, pair in _pairs_at(path, mine, shapes):
            if module in pairs:
                raise AdapterRefused(
                    f"The file changes {module} twice; save the adapter again with PEFT's "
                    "save_pretrained."
                )
            pairs[module] = pair
    return {path: pairs[path] for path in shapes if path in pairs}


def _pairs_at(
    path: str, halves: Mapping[str, TensorInfo], shapes: Shapes
) -> list[tuple[str, Pair]]:
    """Module path and pair of all that the two tensors at `path` change."""
    if experts := experts_at(path, shapes):
        _check_whole(path, halves)
        return list(cut(experts, path, halves, shapes))
    if router := router_at(path, shapes):
        _check_fit(router, halves, shapes)
        return [(router, router_pair(path, halves))]
    _check_fit(path, halves, shapes)
    return [(path, Pair(halves["A"], halves["B"]))]


def _split(name: str, shapes: Shapes) -> tuple[str, str, str | None]:
    """Module path, half ("A" or "B") and adapter name of a tensor."""
    found = _LORA.fullmatch(name)
    path = found["path"].removeprefix(PREFIX) if found else ""
    if ".base_layer" in path and not experts_at(path, shapes):
        raise _bare(path.partition(".base_layer")[0])
    if found is None:
        for part, what in _REFUSED_TENSORS:
            if part in name:
                raise AdapterRefused(f"The tensor {_short(name)} is {what}.")
        raise AdapterRefused(
            f"The tensor {_short(name)} is no half of a LoRA pair; expected names that end in "
            "lora_A.weight and lora_B.weight: save the adapter with PEFT's save_pretrained."
        )
    return path, found["half"], found["adapter"]


def _bare(path: str) -> AdapterRefused:
    return AdapterRefused(
        f"The adapter changes bare parameters of {_short(path)} (target_parameters), which are "
        "mixed only where this base's experts are plain 3-D weights without biases and its code is "
        "the usual one; train on its linear layers with target_modules."
    )


def _check_fit(path: str, halves: Mapping[str, TensorInfo], shapes: Shapes) -> None:
    if path not in shapes:
        short = path.rpartition(".")[2]
        if short in ("lm_head", "embed_tokens", "wte", "embed_out"):
            raise AdapterRefused(
                f"The adapter changes {_short(path)}, which all adapters share; train on the "
                "linear layers of the blocks only."
            )
        if short == "experts":
            raise _bare(path)
        near = difflib.get_close_matches(path[:200], list(shapes)[:2000], n=1, cutoff=0.0)
        raise AdapterRefused(
            f"The adapter changes {_short(path)}, which this base does not have (it has "
            f"{near[0] if near else 'no linear layer'}); use an adapter trained on this base."
        )
    _check_whole(path, halves)
    A, B = halves["A"], halves["B"]
    i, o = shapes[path]
    fits = len(A.shape) == len(B.shape) == 2 and A.shape[1] == i and B.shape[0] == o
    if not fits:
        raise AdapterRefused(
            f"The tensors of {path} have the shapes A {list(A.shape)} and B {list(B.shape)}; this "
            f"base expects A [r, {i}] and B [{o}, r]: use an adapter trained on this base."
        )
    if A.shape[0] != B.shape[1] or A.shape[0] == 0:
        raise AdapterRefused(
            f"The tensors of {path} have ranks {A.shape[0]} (A) and {B.shape[1]} (B); expected one "
            "rank of at least 1: save the adapter again."
        )


def _check_whole(path: str, halves: Mapping[str, TensorInfo]) -> None:
    if len(halves) < 2:
        there = next(iter(halves))
        missing = "B" if there == "A" else "A"
        raise AdapterRefused(
            f"The module {path} has lora_{there} but no lora_{missing}; save the whole adapter "
            "again."
        )


def _short(name: str) -> str:
    return repr(name if len(name) <= 120 else name[:117] + "...")
