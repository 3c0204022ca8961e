"""A merged adapter's experts and routers in PEFT's form, the inverse of `pool/expert_pairs.py`.

PEFT has one A [e r, i] and one B [o, e r] for all e experts of a parameter; an expert of a lower
rank, or with nothing, is filled up with zeros.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ramole_core.composition import Lora
from ramole_core.export.sources import Shapes

_EXPERT = re.compile(r"(?P<module>.+)\.(?P<expert>\d+)\.(?P<name>gate_up_proj|down_proj)")
_ROUTER = ".router_logits"


@dataclass(frozen=True)
class Written:
    """One pair of tensors in the file."""

    path: str
    """Of its tensors."""
    said: str
    """Its name in patterns and among the targets."""
    lora: Lora
    rank: int
    """Of each expert, where it is of several."""
    bare: bool = False
    """It changes a parameter, and no linear layer."""


def written_by_peft(loras: Mapping[str, Lora], shapes: Shapes) -> list[Written]:
    """PEFT's pairs for these; `shapes` are the base's, by module path."""
    found: list[Written] = []
    stacks: dict[str, dict[str, dict[int, Lora]]] = {}
    for path, lora in loras.items():
        expert, rank = _EXPERT.fullmatch(path), lora.A.shape[0]
        if expert is not None:
            stack = stacks.setdefault(expert["module"], {}).setdefault(expert["name"], {})
            stack[int(expert["expert"])] = lora
        elif path.endswith(_ROUTER):
            router = path.removesuffix(_ROUTER)
            found.append(Written(router, f"{router}.weight", lora, rank, bare=True))
        else:
            found.append(Written(path, path, lora, rank))
    for module, stack in stacks.items():
        for name, experts in stack.items():
            inner = name == "gate_up_proj" and len(stack) > 1  # the first of two is wrapped first
            path = f"{module}.base_layer" if inner else module
            count = sum(f"{module}.{e}.{name}" in shapes for e in range(len(shapes)))
            rank = max(lora.A.shape[0] for lora in experts.values())
            lora = _stacked(experts, count, rank)
            found.append(Written(path, f"{module}.{name}", lora, rank, bare=True))
    return found


def _stacked(experts: Mapping[int, Lora], count: int, rank: int) -> Lora:
    one = next(iter(experts.values()))
    i, o = one.A.shape[1], one.B.shape[0]
    A, B = one.A.new_zeros(count, rank, i), one.B.new_zeros(o, rank, count)
    for e, lora in experts.items():
        r = lora.A.shape[0]
        A[e, :r], B[:, :r, e] = lora.A, lora.B
    return Lora(A=A.flatten(0, 1), B=torch.flatten(B, 1))
