"""A merged adapter as PEFT's own two files, with a card and examples, so that the pool takes it.

The scale is alpha/r = 1 in every module: alpha is r, and modules of another rank have their line in
rank_pattern and in alpha_pattern.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from safetensors.torch import save

from ramole_core.composition import Lora
from ramole_core.export.merge import Merged
from ramole_core.pool.card import VECTOR_EXAMPLES
from ramole_core.pool.examples_and_readme import write_examples
from ramole_core.pool.pairs import Shapes
from ramole_core.whole_file import creating


def write_peft(merged: Merged, folder: Path, *, shapes: Shapes, base_name: str) -> None:
    """Write the new folder; raises RamoleError where it exists already or the disk refuses."""
    tensors = {}
    for one in written_by_peft(merged.loras, shapes):
        tensors[f"base_model.model.{one.path}.lora_A.weight"] = one.lora.A.contiguous()
        tensors[f"base_model.model.{one.path}.lora_B.weight"] = one.lora.B.contiguous()
    with creating(folder) as part:
        part.mkdir()
        (part / "adapter_model.safetensors").write_bytes(save(tensors, {"format": "pt"}))
        config = config_of(merged.loras, shapes=shapes, base_name=base_name)
        (part / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (part / "README.md").write_text(card_of(merged, base_name), encoding="utf-8")
        write_examples(part, examples_of(merged))


def config_of(loras: Mapping[str, Lora], *, shapes: Shapes, base_name: str) -> dict[str, object]:
    """PEFT's adapter_config.json."""
    written = written_by_peft(loras, shapes)
    ranks = {one.said: one.rank for one in written}
    every = list(ranks.values())
    r = max(set(every), key=lambda rank: (every.count(rank), rank))
    other = {path: rank for path, rank in ranks.items() if rank != r}
    layers = [one.said for one in written if not one.bare]
    bare = sorted(one.said for one in written if one.bare)
    short = {path.rpartition(".")[2] for path in layers}
    covered = {path for path in shapes if path.rpartition(".")[2] in short}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": r,
        "lora_alpha": r,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": sorted(short) if covered == set(layers) and not bare else layers,
        **({"target_parameters": bare} if bare else {}),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def card_of(merged: Merged, base_name: str) -> str:
    """The model card: its sources, and how it was made."""
    names = ", ".join(source.name for source in merged.sources)
    lines = [
        f"# {names}, by {merged.method}",
        "",
        f"One LoRA adapter of {base_name}, made of others by `python -m ramole_core merge`.",
        "",
        f"- method: {merged.method}"
        + "".join(f", {name}={value}" for name, value in merged.options.items()),
        f"- rank: {merged.rank}",
    ]
    for n, source in enumerate(merged.sources):
        weight = "" if merged.weights is None else f", weight {merged.weights[n]:g}"
        licence = f", licence {source.card.licence}" if source.card.licence else ""
        lines.append(f"- {source.name}{weight}{licence} (sha256 {source.card.sha256})")
    return "\n".join(lines) + "\n"


def examples_of(merged: Merged) -> list[str]:
    """Example inputs of all, one of each in turn."""
    turns = zip_longest(*(source.card.examples for source in merged.sources))
    return [text for turn in turns for text in turn if text is not None][:VECTOR_EXAMPLES]


_EXPERT = re.compile(r"(?P<module>.+)\.(?P<expert>\d+)\.(?P<name>gate_up_proj|down_proj)")
_ROUTER = ".router_logits"


@dataclass(frozen=True)
class PeftPair:
    """One pair of tensors in the file."""

    path: str
    """Path of its tensors."""
    said: str
    """Its name in patterns and targets."""
    lora: Lora
    rank: int
    """Rank of each expert, where it is of several."""
    bare: bool = False
    """It changes a parameter, and no linear layer."""


def written_by_peft(loras: Mapping[str, Lora], shapes: Shapes) -> list[PeftPair]:
    """PEFT's pairs for these; `shapes` are the base's, by module path."""
    found: list[PeftPair] = []
    stacks: dict[str, dict[str, dict[int, Lora]]] = {}
    for path, lora in loras.items():
        expert, rank = _EXPERT.fullmatch(path), lora.A.shape[0]
        if expert is not None:
            stack = stacks.setdefault(expert["module"], {}).setdefault(expert["name"], {})
            stack[int(expert["expert"])] = lora
        elif path.endswith(_ROUTER):
            router = path.removesuffix(_ROUTER)
            found.append(PeftPair(router, f"{router}.weight", lora, rank, bare=True))
        else:
            found.append(PeftPair(path, path, lora, rank))
    for module, stack in stacks.items():
        for name, experts in stack.items():
            inner = name == "gate_up_proj" and len(stack) > 1  # the first of two is wrapped first
            path = f"{module}.base_layer" if inner else module
            count = sum(f"{module}.{e}.{name}" in shapes for e in range(len(shapes)))
            rank = max(lora.A.shape[0] for lora in experts.values())
            lora = _stacked(experts, count, rank)
            found.append(PeftPair(path, f"{module}.{name}", lora, rank, bare=True))
    return found


def _stacked(experts: Mapping[int, Lora], count: int, rank: int) -> Lora:
    one = next(iter(experts.values()))
    i, o = one.A.shape[1], one.B.shape[0]
    A, B = one.A.new_zeros(count, rank, i), one.B.new_zeros(o, rank, count)
    for e, lora in experts.items():
        r = lora.A.shape[0]
        A[e, :r], B[:, :r, e] = lora.A, lora.B
    return Lora(A=A.flatten(0, 1), B=torch.flatten(B, 1))
