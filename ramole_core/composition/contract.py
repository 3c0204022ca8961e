"""What a composition method is: it turns a request's k LoRAs, at one linear layer, into a plan.

A plan says how the rank units of the k experts, concatenated, are weighted; the layer
(`ramole_core.layers`) then runs the plans of many requests, of different methods, ranks and k, in
two matrix products:

    y = W x + B (alpha[owner] * (A x)),   A: R x i,  B: o x R,  R = sum of the ranks

with alpha either fixed for the request or given by a gate (RouterLoRA). `owner` maps a unit to its
expert; units of a weight-space merge belong to the slot k, whose weight is always 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, einsum

from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST
from ramole_core.shapes import Gram, LoraA, LoraB, Owner, RouterA, RouterB, UnitsA, UnitsB


@dataclass(frozen=True)
class Lora:
    """One adapter at one linear layer; the scale alpha/r is folded into B."""

    A: LoraA
    B: LoraB


@dataclass(frozen=True)
class ModuleRouter:
    """The RouterLoRA of one linear layer; its own scale is folded into B."""

    A: RouterA
    B: RouterB


@dataclass(frozen=True)
class Gate:
    """Softmax over the experts of <A_r x, gram (A x)> + offset + what their surprise adds.

    1/sqrt(s) is folded into the gram.
    """

    A: RouterA
    gram: Gram
    offset: Float[Tensor, "k"] | None = None
    usual: Float[Tensor, "k 2"] | None = None
    """Mean and spread of log |B A x|."""
    gains: Float[Tensor, "2"] | None = None
    """Of a surprise in this module, and in the layers below."""


@dataclass(frozen=True)
class Plan:
    """One request at one linear layer. Exactly one of `weights` and `gate` decides alpha."""

    A: UnitsA
    B: UnitsB
    owner: Owner
    present: Bool[Tensor, "k"]
    """False where an adapter lacks this module: it is masked and its weight is 0."""
    weights: Float[Tensor, "k"]
    """float32; what the trace shows, and alpha itself where there is no gate."""
    gate: Gate | None = None


@dataclass(frozen=True)
class Known:
    """What is known of a request's adapters before its first token."""

    modules: int
    scores: Sequence[float]
    """Similarity of each adapter to the prompt (cosine); nan where nobody asked."""
    surprises: Sequence[float]
    """How much louder than usual each answers to the prompt, in spreads; nan where nobody asked."""


@dataclass(frozen=True)
class Evidence:
    """What a gate adds to its scores."""

    offset: Float[Tensor, "module k"]
    gains: tuple[float, float]


class Composition:
    """A published way to compose k LoRAs; one file each, registered in `composition/__init__`.

    A method is what it says of its weights: `fixed` where they hold for the whole request, `router`
    where a gate gives them token by token, `merge` where the LoRAs become one in weight space.
    """

    name: ClassVar[str]
    """As in `ramole_core.methods`, where paper and summary stand."""
    router: ClassVar[Literal["none", "trained", "zero", "random", "evidence"]] = "none"
    """Which RouterLoRA gives alpha for every token; none: alpha is fixed for the request; evidence:
    a gate without a RouterLoRA, which `evidence` alone decides."""
    weighs_similarity: ClassVar[bool] = False
    """True: it needs each adapter's similarity to the prompt, also of those that are named."""
    examines: ClassVar[int] = 0
    """How many of the nearest adapters are examined before it takes its k; 0: it takes the nearest
    k as they are."""
    merges: ClassVar[bool] = False
    """True: `merge` makes one LoRA of the k, which is then added with weight 1."""

    def experts(self, k: int) -> int:
        """How many adapters it mixes when asked for k."""
        return k

    def rank(self, scores: Sequence[float], surprises: Sequence[float]) -> list[float]:
        """What each candidate is worth, where the method examines: the k best are taken."""
        raise NotImplementedError(f"{self.name} does not examine")

    def shares(
        self, present: Bool[Tensor, "module k"], scores: Sequence[float]
    ) -> Float[Tensor, "module k"]:
        """The method's own weights for a request, float32; `present` says which adapter has which
        module, `scores` how similar each is to the prompt (cosine; nan where nobody asked). The k
        adapters stand in the request's order."""
        raise NotImplementedError(f"{self.name} gives its weights token by token")

    def fixed(
        self,
        present: Bool[Tensor, "module k"],
        weights: Sequence[float] | None = None,
        scores: Sequence[float] | None = None,
    ) -> Float[Tensor, "module k"]:
        """The weights that hold for the whole request: `weights` where given, else the method's;
        0 where an adapter lacks the module."""
        if weights is None:
            k = present.shape[-1]
            return self.shares(present, [float("nan")] * k if scores is None else scores)
        return torch.tensor(list(weights), dtype=torch.float32) * present

    def evidence(self, known: "Known") -> "Evidence | None":
        """What a gate is told beside the router's own scores; None: nothing."""
        return None

    def merge(self, loras: Sequence[Lora | None], weights: Sequence[float] | None) -> Lora | None:
        """One LoRA made of k at one layer; None where no adapter has the module."""
        raise NotImplementedError(f"{self.name} does not merge in weight space")

    def plan(
        self,
        loras: Sequence[Lora | None],
        *,
        weights: Sequence[float] | None = None,
        router: ModuleRouter | None = None,
        scores: Sequence[float] | None = None,
        surprises: Sequence[float] | None = None,
        usual: Float[Tensor, "k 2"] | None = None,
    ) -> Plan | None:
        """The plan of one request at one layer; None where no adapter has the module.

        `loras` are the request's experts in order, None where one lacks the module; `weights`
        replace the method's own (one for each expert); `router` is what the class attribute asks
        for, None being the zero router; `scores` and `surprises` are as in `Known`, `usual` is
        mean and spread of log |v| at this layer (0 and 1 where nobody measured).
        """
        loras = loras[: self.experts(len(loras))]
        if not any(loras):
            return None
        present = present_mask(loras)
        unknown = [float("nan")] * len(loras)
        scores = unknown if scores is None else scores[: len(loras)]
        surprises = unknown if surprises is None else surprises[: len(loras)]
        fixed = self.fixed(present[None], weights, scores)[0]
        if self.merges:
            merged = self.merge(loras, weights)
            assert merged is not None
            owner = torch.full((merged.A.shape[0],), len(loras))  # the slot whose weight is 1
            return Plan(A=merged.A, B=merged.B, owner=owner, present=present, weights=fixed)
        here = [(j, lora) for j, lora in enumerate(loras) if lora is not None]
        gate = None
        if weights is None and self.router != "none":
            gate = make_gate([lora for _, lora in here], router) if router else None
            told = self.evidence(Known(1, scores, surprises))
            if told is not None:
                gate = gate or make_gate([lora for _, lora in here], no_router(here[0][1]))
                gate = replace(
                    gate,
                    offset=told.offset[0],
                    usual=torch.tensor([[0.0, 1.0]] * len(loras)) if usual is None else usual,
                    gains=torch.as_tensor(told.gains),
                )
        return Plan(
            A=torch.cat([lora.A for _, lora in here]),
            B=torch.cat([lora.B for _, lora in here], dim=1),
            owner=torch.tensor([j for j, lora in here for _ in range(lora.A.shape[0])]),
            present=present,
            weights=fixed,
            gate=gate,
        )


def even_shares(present: Bool[Tensor, "module k"]) -> Float[Tensor, "module k"]:
    """1/k over the adapters that have the module, 0 where none has."""
    here = present.float()
    return here / here.sum(-1, keepdim=True).clamp(min=1)


def make_gate(loras: Sequence[Lora], router: ModuleRouter) -> Gate:
    """The Gram gate of these experts: gram = B_r^T [B_1 ... B_k] / sqrt(s), in float32 or wider."""
    wide = torch.promote_types(router.B.dtype, torch.float32)
    B = torch.cat([lora.B for lora in loras], dim=1).to(wide)
    s = max(router.A.shape[0], 1)
    return Gate(A=router.A, gram=einsum("os,oR->sR", router.B.to(wide), B) * s**-0.5)


def no_router(like: Lora) -> ModuleRouter:
    """A RouterLoRA of rank 0, for gates that go by evidence alone."""
    return ModuleRouter(A=like.A[:0], B=like.B[:, :0])


def present_mask(loras: Sequence[Lora | None]) -> Bool[Tensor, "k"]:
    """True where the adapter has the module."""
    return torch.tensor([lora is not None for lora in loras])


Method = TypeVar("Method", bound=Composition)
METHODS: dict[str, Composition] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator: make the method known by its `name`."""
    if method.name in METHODS:
        raise ValueError(f"two composition methods are called {method.name!r}")
    if method.name not in {listed.name for listed in METHOD_LIST}:
        raise ValueError(f"{method.name!r} has no row in ramole_core.methods; add one")
    METHODS[method.name] = method()
    return method


def find_method(name: str) -> Composition:
    """The method of that name; raises RamoleError that lists the known ones."""
    if name not in METHODS:
        raise RamoleError(f"Unknown method {name!r}; choose one of {', '.join(METHODS)}.")
    return METHODS[name]
