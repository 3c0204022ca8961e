"""Tensor names of a PEFT file -> pairs (A, B) by module path of the base.

PEFT saves `base_model.model.<path>.lora_A.weight` and `.lora_B.weight`, with the adapter's name
before `.weight` when a training loop saved them itself. A is [r, i] and B is [o, r] for Conv1D
(fan_in_fan_out) as for Linear: only the base's weight is stored the other way round.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ramole_core.errors import AdapterRefused
from ramole_core.pool.header import Entry

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
    (".base_layer.", "LoRA on bare parameters; use target_modules, not target_parameters"),
    (".bias", "a bias; train with bias='none' and lora_bias=False"),
)


@dataclass(frozen=True)
class Pair:
    """The two tensors of one module, A [r, i] and B [o, r], in the file."""

    A: Entry
    B: Entry

    @property
    def rank(self) -> int:
        return self.A.shape[0]


def pair_tensors(
    entries: Mapping[str, Entry], *, shapes: Mapping[str, tuple[int, int]]
) -> dict[str, Pair]:
    """By base module path, in the base's order; raises AdapterRefused for anything that is not
    half of a LoRA pair or does not fit `shapes` (`{path: (i, o)}`)."""
    if not entries:
        raise AdapterRefused(
            "The safetensors file holds no tensor; expected LoRA pairs: save the adapter again "
            "after training it."
        )
    halves: dict[str, dict[str, Entry]] = {}
    adapters = set()
    for name, entry in entries.items():
        path, half, adapter = _split(name)
        adapters.add(adapter)
        mine = halves.setdefault(path, {})
        if half in mine or len(adapters) > 1:
            raise AdapterRefused(
                f"The file holds more than one adapter ({_short(name)} is another's); save each in "
                "a folder of its own."
            )
        mine[half] = entry
    for path, mine in halves.items():
        _check_fit(path, mine, shapes)
    return {path: Pair(**halves[path]) for path in shapes if path in halves}


def _split(name: str) -> tuple[str, str, str | None]:
    """Module path, half ("A" or "B") and adapter name of a tensor."""
    found = _LORA.fullmatch(name)
    path = found["path"].removeprefix(PREFIX) if found else ""
    if found is None or ".base_layer" in path:
        for part, what in _REFUSED_TENSORS:
            if part in name:
                raise AdapterRefused(f"The tensor {_short(name)} is {what}.")
        raise AdapterRefused(
            f"The tensor {_short(name)} is no half of a LoRA pair; expected names that end in "
            "lora_A.weight and lora_B.weight: save the adapter with PEFT's save_pretrained."
        )
    return path, found["half"], found["adapter"]


def _check_fit(
    path: str, halves: Mapping[str, Entry], shapes: Mapping[str, tuple[int, int]]
) -> None:
    if path not in shapes:
        short = path.rpartition(".")[2]
        if short in ("lm_head", "embed_tokens", "wte", "embed_out"):
            raise AdapterRefused(
                f"The adapter changes {_short(path)}, which all adapters share; train on the "
                "linear layers of the blocks only."
            )
        near = difflib.get_close_matches(path[:200], list(shapes)[:2000], n=1, cutoff=0.0)
        raise AdapterRefused(
            f"The adapter changes {_short(path)}, which this base does not have (it has "
            f"{near[0] if near else 'no linear layer'}); use an adapter trained on this base."
        )
    if len(halves) < 2:
        there = next(iter(halves))
        missing = "B" if there == "A" else "A"
        raise AdapterRefused(
            f"The module {path} has lora_{there} but no lora_{missing}; save the whole adapter "
            "again."
        )
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


def _short(name: str) -> str:
    return repr(name if len(name) <= 120 else name[:117] + "...")
