"""What a composition method is: it turns a request's k LoRAs, at one linear layer, into a plan.

A plan says how the rank units of the k experts, concatenated, are weighted; the layer
(`ramole_core.layers`) then runs the plans of many requests, of different methods, ranks and k, in
two matrix products:

    y = W x + B (alpha[owner] * (A x)),   A: R x i,  B: o x R,  R = sum of the ranks

with alpha either fixed for the request or given by a gate (RouterLoRA). `owner` maps a unit to its
expert; units of a weight-space merge belong to the slot k, whose weight is always 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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
    """Softmax over the experts of <A_r x, gram (A x)>; 1/sqrt(s) is folded into the gram."""

    A: RouterA
    gram: Gram


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


class Composition(ABC):
    """A published way to compose k LoRAs; one file each, registered in `composition/__init__`."""

    name: ClassVar[str]
    """As in `ramole_core.methods`, where paper and summary stand."""
    router: ClassVar[Literal["none", "trained", "zero", "random"]] = "none"
    """Which RouterLoRA gives alpha for every token; none: alpha is fixed for the request."""

    def experts(self, k: int) -> int:
        """How many adapters it mixes when asked for k."""
        return k

    @abstractmethod
    def plan(
        self,
        loras: Sequence[Lora | None],
        *,
        weights: Sequence[float] | None = None,
        router: ModuleRouter | None = None,
    ) -> Plan | None:
        """The plan of one request at one layer; None where no adapter has the module.

        `loras` are the request's experts in order, None where one lacks the module; `weights`
        replace the method's own (one for each expert); `router` is what the class attribute asks
        for, None being the zero router.
        """


def present_mask(loras: Sequence[Lora | None]) -> Bool[Tensor, "k"]:
    """True where the adapter has the module."""
    return torch.tensor([lora is not None for lora in loras])


def concatenate(
    loras: Sequence[Lora | None], *, weights: Sequence[float], gate: Gate | None = None
) -> Plan | None:
    """Rank concatenation: k experts as one A [R, i] and one B [o, R], R the sum of the ranks."""
    here = [(j, lora) for j, lora in enumerate(loras) if lora is not None]
    if not here:
        return None
    present = present_mask(loras)
    return Plan(
        A=torch.cat([lora.A for _, lora in here]),
        B=torch.cat([lora.B for _, lora in here], dim=1),
        owner=torch.tensor([j for j, lora in here for _ in range(lora.A.shape[0])]),
        present=present,
        weights=torch.tensor(weights, dtype=torch.float32) * present,
        gate=gate,
    )


METHODS: dict[str, Composition] = {}


def register(method: type[Composition]) -> type[Composition]:
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
