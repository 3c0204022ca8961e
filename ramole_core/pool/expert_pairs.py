"""Cut a mixture's expert pairs out of the two tensors in which PEFT stacks them.

`target_parameters` on `mlp.experts` gives A [e r, i], an expert's r rows together, and B [o, e r],
an expert's columns e apart: update_n = B[:, n::e] A[n r : (n + 1) r]. Two parameters of one module
are nested, the inner at `mlp.experts.base_layer`; shapes tell which is which. (peft 0.21,
`tuners/lora/layer.py`, ParamWrapper.)
"""

import re
from collections.abc import Iterator, Mapping

from ramole_core.errors import AdapterRefused
from ramole_core.pool.header import ITEM_BYTES, TensorInfo
from ramole_core.pool.pair import Pair

PARAMETERS = ("gate_up_proj", "down_proj")
ROUTER = "router_logits"
"""Of the base's names (`base/experts.py`, `base/routers.py`)."""
Shapes = Mapping[str, tuple[int, int]]
_INNER = re.compile(r"(\.base_layer)+$")


def experts_at(path: str, shapes: Shapes) -> str | None:
    """Path of the experts that a tensor of this path changes; None: it changes none."""
    module = _INNER.sub("", path)
    return module if f"{module}.0.{PARAMETERS[0]}" in shapes else None


def router_at(path: str, shapes: Shapes) -> str | None:
    """Path of the linear layer of the router at this path; None: there is none."""
    return f"{path}.{ROUTER}" if f"{path}.{ROUTER}" in shapes else None


def router_pair(path: str, halves: Mapping[str, TensorInfo]) -> Pair:
    """The pair of a router, which PEFT names by its weight."""
    return Pair(halves["A"], halves["B"], said=f"{path}.weight")


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
