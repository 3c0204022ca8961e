"""What a base model says of two prompts by its own code, before anything of ours stands in it."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from ramole_core.base.experts import experts_in, together

LAST = 4
"""Tokens at the end of a prompt that are compared: the last that is read, and steps of one."""
SHORTEST, LONGEST, SHORTER = 20, 200, 7
"""Tokens of a prompt; the second prompt has fewer."""
WORK = 1.2e11
"""Floating-point operations of the check: about a second of two cores."""


@dataclass(frozen=True)
class OwnForward:
    """The prompts, and what the model says of each alone."""

    prompts: tuple[tuple[int, ...], ...]
    logits: tuple[Float[Tensor, "last v"], ...]
    """After each one's last tokens."""
    blocks: tuple[dict[str, Tensor], ...]
    """What each decoder block gave there, by its path."""


@torch.inference_mode()
def run_own(model: PreTrainedModel, *, context: int, weights: int) -> OwnForward:
    """Each prompt by itself, in the model's own attention; `weights` says how many it has. Raises
    whatever the model raises."""
    prompts = _prompts(model, context=context, affordable=int(WORK / (8 * max(weights, 1))))
    picks = "logits_to_keep" in inspect.signature(model.forward).parameters
    keep = {"logits_to_keep": LAST} if picks else {}
    logits, blocks = [], []
    for ids in prompts:
        told = torch.tensor([ids], device=model.device)
        with watch_blocks(model, slice(-LAST, None)) as seen, together(experts_in(model)):
            found = model(input_ids=told, use_cache=False, **keep).logits
        logits.append(found[0, -LAST:].float().cpu())
        blocks.append(seen)
    return OwnForward(prompts, tuple(logits), tuple(blocks))


def _prompts(
    model: PreTrainedModel, *, context: int, affordable: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two of made-up tokens, as long as a second allows."""
    longest = max(SHORTEST, min(LONGEST, affordable))
    length = min(longest, context - 1)
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    pick = torch.Generator().manual_seed(5)
    first = torch.randint(vocabulary, (length,), generator=pick).tolist()
    second = torch.randint(vocabulary, (length - SHORTER,), generator=pick).tolist()
    return tuple(first), tuple(second)


@contextmanager
def watch_blocks(model: PreTrainedModel, at: slice | Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """What each decoder block of the forwards inside gives at these tokens, by its path."""
    seen: dict[str, Tensor] = {}

    def see(path: str):
        def hook(module: nn.Module, args: object, out: object) -> None:
            made = out[0] if isinstance(out, tuple) else out
            if isinstance(made, Tensor) and made.is_floating_point() and made.ndim == 3:
                seen[path] = made[0, at].float().cpu()

        return hook

    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    handles = [
        block.register_forward_hook(see(f"{path}.{n}"))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
        for n, block in enumerate(module)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
