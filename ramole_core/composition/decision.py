"""A method's input, a request's adapters, and its output: weights, a gate, a merge.

    y = W x + sum_j alpha_j B_j A_j x  (+ B act(A x), a bypass)

    alpha = softmax over the top n of (<A_r x, B_r^T v> / sqrt(s) + G x + f(x, u, |v|)
                                       + offset + own z) + bias               of a gate

G is a table of the gate's own. The base's weights W and its output W x are not visible to a gate.

A module that an adapter lacks is v = 0 and keeps its share: the adapter's responses are 0 there, so
is what they give to its score, and the update that its weight would have bought is not made. The
weights of those that have the module then sum to less than 1.

A decision is data about the whole model: tables by module and adapter, and functions where a table
does not do. Two forms place it: the plain one (`layers/plain`: laws, training) and the served one
(the engine). Neither depends on the method.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition.activation import Response
from ramole_core.composition.lora import Lora, LoraSet, orthonormal
from ramole_core.composition.router import Router
from ramole_core.composition.sites import Sites, block_of, parent_of
from ramole_core.composition.trained import Trained
from ramole_core.methods import Value

# --- inputs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adapter:
    """One adapter of a request."""

    name: str
    checksum: str
    """SHA-256 of its content."""
    present: Bool[Tensor, "module"]
    """False where it lacks the module."""
    loras: LoraSet
    """By module path, with orthonormal columns in B."""
    rank: int
    """The largest of its modules."""
    score: float = float("nan")
    """Cosine similarity to the prompt; nan where not measured."""
    response: Response | None = None
    """Response to the prompt's last token; None where not measured."""
    usual: Float[Tensor, "module 2"] | None = None
    """Mean and standard deviation of log |B A x| over everyday inputs; None: (0, 1)."""
    share: float = float("nan")
    """Share by the method's `choose`; nan where that did not run."""

    @classmethod
    def of(
        cls,
        name: str,
        checksum: str,
        loras: LoraSet,
        sites: Sites,
        *,
        pack: Callable[[Lora], Lora] = orthonormal,
    ) -> "Adapter":
        """An adapter of these LoRAs, as they were uploaded."""
        return cls(
            name,
            checksum,
            torch.tensor([path in loras for path in sites.paths]),
            {path: pack(lora) for path, lora in loras.items()},
            max((lora.A.shape[0] for lora in loras.values()), default=0),
        )

    @property
    def activation_z(self) -> float:
        """Its activation z-score against its usual response; nan where not measured."""
        return float("nan") if self.response is None else self.response.activation_z


@dataclass(frozen=True)
class Ask:
    """A method's input: one request's adapters, in the request's order."""

    adapters: tuple[Adapter, ...]
    sites: Sites
    options: Mapping[str, Value]
    """All of the method's options."""
    weights: tuple[float, ...] | None = None
    """The request's own: for a method that merges; in any other the frame puts them in the place of
    the method's."""
    trained: Trained | None = None
    means: Mapping[str, Float[Tensor, "_"]] | None = None
    """Mean over the prompt's tokens of each block's input, by its path, as the bare base reads it;
    float32, None where the method does not read it."""

    @property
    def k(self) -> int:
        return len(self.adapters)

    @property
    def rank(self) -> int:
        """The largest of the adapters'."""
        return max((adapter.rank for adapter in self.adapters), default=0)

    @property
    def shares(self) -> tuple[float, ...]:
        """The request's own weights, or 1/k each."""
        return self.weights or (1 / max(self.k, 1),) * self.k

    def everywhere(self, weights: Sequence[float] | Tensor) -> Float[Tensor, "module k"]:
        """These weights in every module, float32."""
        row = torch.as_tensor(weights, dtype=torch.float32)
        return row.repeat(len(self.sites.paths), 1)

    @property
    def present(self) -> Bool[Tensor, "module k"]:
        """The modules of each adapter."""
        if not self.adapters:
            return torch.zeros(len(self.sites.paths), 0, dtype=torch.bool)
        return torch.stack([adapter.present for adapter in self.adapters], dim=1)

    @property
    def usual(self) -> Float[Tensor, "module k 2"]:
        """Mean and standard deviation of log |v|; (0, 1) where not measured."""
        none = torch.tensor([0.0, 1.0]).expand(len(self.sites.paths), 2)
        return torch.stack([none if a.usual is None else a.usual for a in self.adapters], dim=1)


# --- what it decides ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signal:
    """The input of a method's own score: one request, at one module or block."""

    path: str
    x: Float[Tensor, "*l i"]
    """The module's input, or the block's or parent's."""
    u: tuple[Float[Tensor, "*l _"], ...] = ()
    """x A^T of each adapter, A being that of `ask.adapters[j].loras[path]` (in the served form zero
    rows may follow), in float32 or wider; empty at a block or parent, r = 0 where it lacks the
    module."""
    norms: Float[Tensor, "*l k"] | None = None
    """|B_j A_j x| of each adapter; None at a block or parent."""


Score = Callable[[Signal], Float[Tensor, "*l k"]]
"""One score an adapter, finite, on the signal's device; of one that lacks the module, what u = 0
gives. It is not computed for modules that no adapter has: all are 0 there."""
TINY = 1e-30
"""Least squared length."""


@dataclass(frozen=True)
class UnitScore:
    """A score of the units u = A x alone, in a form that the kernels compute beside the update.

        aligned   |T_j u_j|
        length    |u_j|
        loudest   |u_j| of the `top` adapters with the largest |T_j u_j|; -1 of the others
        linear    sum over i of T_i u_i / |u|        |u|: the length of all units side by side

    T_j is `tables[path][j]`: [1, r], for `linear` [k, r]; the first two forms are times `scale`.
    Any other score is a function in PyTorch, which costs a decode step several times as much.
    """

    form: Literal["aligned", "length", "loudest", "linear"]
    tables: Mapping[str, Sequence[Float[Tensor, "_ _"]]] = field(default_factory=dict)
    scale: float = 1.0
    top: int = 0

    def __call__(self, signal: Signal) -> Float[Tensor, "*l k"]:
        norms = signal.norms
        assert norms is not None  # of a module
        if self.form == "length":
            return norms * self.scale
        pairs = zip(signal.u, self.tables[signal.path], strict=True)
        parts = [u[..., : T.shape[-1]] @ T[:, : u.shape[-1]].to(u).T for u, T in pairs]
        if self.form == "linear":
            return sum(parts) / norms.square().sum(-1, keepdim=True).clamp(min=TINY).sqrt()
        aligned = torch.cat(parts, dim=-1).abs()
        if self.form == "aligned":
            return aligned * self.scale
        left = aligned.topk(min(self.top, aligned.shape[-1]), dim=-1).indices
        among = torch.zeros_like(norms, dtype=torch.bool).scatter(-1, left, True)
        return torch.where(among, norms, -1.0)  # below every norm


@dataclass(frozen=True)
class Gate:
    """Weights for every token: a table of terms, unused ones left out."""

    router: Router | None = None
    """<A_r x, B_r^T v> / sqrt(s). The bank keeps every router that it got: few, known by their
    checksums."""
    linear: Mapping[str, Float[Tensor, "k i"]] | None = None
    """W by module path, or by the path of the block or parent where `per` is that."""
    score: Score | None = None
    """f, a function of the method's own."""
    per: Literal["module", "block", "parent"] = "module"
    """Whose input `linear` and `score` read: each module's own; or the block's, or that of the
    module's parent (the MLP or the attention), once, and its modules share what comes of it."""
    offset: Float[Tensor, "module k"] | None = None
    own: float = 0.0
    """On an adapter's surprise z in this module (`activation.py`)."""
    usual: Float[Tensor, "module k 2"] | None = None
    """What z is measured against; needed where `own` is not 0."""
    top: int = 0
    """How many adapters share the weight; 0: all."""
    softmax: bool = True
    """False: the scores are the weights."""
    bias: Float[Tensor, "module k"] | None = None
    keeps: bool = True
    """Adapters that lack a module take part there all the same, and the base has their share.
    False: those that have it share all of the weight (for papers that mask)."""

    @property
    def late(self) -> bool:
        """Whether it has terms that are not in tables made before the first token."""
        return self.linear is not None or self.score is not None

    def scope(self, path: str) -> str:
        """The module whose input `linear` and `score` read for the module at this path."""
        if self.per == "module":
            return path
        return block_of(path) if self.per == "block" else parent_of(path)


@dataclass(frozen=True)
class Merge:
    """One LoRA made of k in weight space, added with weight 1."""

    make: Callable[[str, Sequence[Lora | None]], Lora | None]
    """Of a module path and the LoRAs there as they were uploaded, None where one lacks it."""
    rank: int
    """Most that it can have: known before it is made."""


@dataclass(frozen=True)
class Bypass:
    """Further units with an activation in between: y += B act(A x)."""

    loras: LoraSet
    key: str
    """Two bypasses with the same key are the same."""
    activation: Literal["gelu", "relu"] = "gelu"


@dataclass(frozen=True)
class Decision:
    """The decision about k adapters in every module.

    A method that mixes outputs instead (each adapter a row of its own, next-token distributions
    averaged) would need one more field here; the scheduler would keep its rows together.
    """

    weights: Float[Tensor, "module k"]
    """Of each adapter; where a gate decides they are not read (`even` will do), where a merge was
    made they are what the trace shows. The share is said also where an adapter lacks the module:
    its update is 0 there."""
    gate: Gate | None = None
    merge: Merge | None = None
    bypass: Bypass | None = None


def even(present: Bool[Tensor, "module k"]) -> Float[Tensor, "module k"]:
    """1/k for each adapter in every module, also where it lacks the module."""
    return torch.full(present.shape, 1 / max(present.shape[-1], 1))


def check(decision: Decision, ask: Ask) -> None:
    """Raise ValueError where a decision contradicts itself, or its tables are of another size."""
    size = len(ask.sites.paths), ask.k
    tables = {"weights": decision.weights}
    if (gate := decision.gate) is not None:
        tables |= {"offset": gate.offset, "bias": gate.bias}
        if gate.usual is not None:
            tables["usual"] = gate.usual[..., 0]
        if gate.own and gate.usual is None:
            raise ValueError("a gate that weighs surprises needs `usual`")
        if gate.top < 0:
            raise ValueError(f"top is {gate.top}")
    for name, table in tables.items():
        if table is not None and tuple(table.shape) != size:
            raise ValueError(f"{name} of size {tuple(table.shape)}, not {size}")
    if decision.merge is not None and (gate is not None or decision.bypass is not None):
        raise ValueError("a merge has neither a gate nor a bypass")
