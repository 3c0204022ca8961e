"""Tensor names of a PEFT file -> pairs (A, B) by module path of the base.

PEFT saves `base_model.model.<path>.lora_A.weight` and `.lora_B.weight`, with the adapter's name
before `.weight` when a training loop saved them itself. A is [r, i] and B is [o, r] for Conv1D
(fan_in_fan_out) as for Linear: only the base's weight is stored the other way round.

LoRA on bare parameters (`target_parameters`) is taken where the base has plain linear layers for
them: a router's weight, and the experts of a mixture. Any other parameter is refused. Of experts,
`target_parameters` on `mlp.experts` gives A [e r, i], an expert's r rows together, and B [o, e r],
an expert's columns e apart: update_n = B[:, n::e] A[n r : (n + 1) r]. Two parameters of one module
are nested, the inner at `mlp.experts.base_layer`; shapes distinguish them. (peft 0.21,
`tuners/lora/layer.py`, ParamWrapper.)
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ramole_core.errors import AdapterRefused
from ramole_core.pool.header import ITEM_BYTES, TensorInfo


@dataclass(frozen=True)
class Pair:
    """A [r, i] and B [o, r], or B [o, e r] of all e experts together."""

    A: TensorInfo
    B: TensorInfo
    said: str = ""
    """What PEFT calls it in patterns; empty: the module's path."""
    expert: int = 0
    experts: int = 1
    """B's columns are every `experts`-th from `expert` on."""

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    @property
    def columns(self) -> slice:
        """The columns of B."""
        return slice(self.expert, None, self.experts)

    @property
    def parameters(self) -> int:
        return self.rank * (self.A.shape[1] + self.B.shape[0])


Shapes = Mapping[str, tuple[int, int]]
"""(i, o) by module path."""
PREFIX = "base_model.model."
PARAMETERS = ("gate_up_proj", "down_proj")
ROUTER = "router_logits"
"""Of the base's names (`base/experts.py`, `base/routers.py`)."""
_INNER = re.compile(r"(\.base_layer)+$")
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
    module, said = path, ""
    if (router := f"{path}.{ROUTER}") in shapes:  # which PEFT names by its weight
        module, said = router, f"{path}.weight"
    _check_fit(module, halves, shapes)
    return [(module, Pair(halves["A"], halves["B"], said))]


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
    if not (len(A.shape) == len(B.shape) == 2 and A.shape[1] == i and B.shape[0] == o):
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


def experts_at(path: str, shapes: Shapes) -> str | None:
    """Path of the experts that a tensor of this path changes; None: it changes none."""
    module = _INNER.sub("", path)
    return module if f"{module}.0.{PARAMETERS[0]}" in shapes else None


def cut(
    module: str, path: str, halves: Mapping[str, TensorInfo], shapes: Shapes
) -> Iterator[tuple[str, Pair]]:
    """Cut the stacked pair at `path` into each expert's path and pair; raises AdapterRefused where
    it does not fit the base's experts."""
    A, B = halves["A"], halves["B"]
    e = 0
    while f"{module}.{e}.{PARAMETERS[0]}" in shapes:
        e += 1
    every = {name: shapes[f"{module}.0.{name}"] for name in PARAMETERS}
    flat = len(A.shape) == len(B.shape) == 2
    fits = [name for name, size in every.items() if flat and (A.shape[1], B.shape[0]) == size]
    if not fits or A.shape[0] != B.shape[1]:
        expected = " or ".join(
            f"A [{e} r, {i}] and B [{o}, {e} r] ({name})" for name, (i, o) in every.items()
        )
        raise AdapterRefused(
            f"The tensors of {path} have the shapes A {list(A.shape)} and B {list(B.shape)}; this "
            f"base has {e} experts there and expects {expected}: use an adapter trained on this "
            "base."
        )
    rank, left = divmod(A.shape[0], e)
    if left or not rank:
        raise AdapterRefused(
            f"The tensors of {path} have {A.shape[0]} rank units for {e} experts; expected as many "
            "for each of them: use an adapter trained on this base."
        )
    bytes_each = rank * A.shape[1] * ITEM_BYTES[A.dtype]
    for n in range(e):
        begin = A.begin + n * bytes_each
        own = TensorInfo(A.dtype, (rank, A.shape[1]), begin, begin + bytes_each)
        yield f"{module}.{n}.{fits[0]}", Pair(own, B, f"{module}.{fits[0]}", n, e)
