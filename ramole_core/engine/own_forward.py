"""A base model's own forward of two prompts, before any served layer is installed."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from ramole_core.base.experts import experts_in, together

LAST_TOKENS = 4
"""Tokens at the end of a prompt that are compared: the last that is read, and steps of one."""
MIN_TOKENS, MAX_TOKENS, FEWER = 20, 200, 7
"""Tokens of the first prompt, and how many fewer the second has."""
MAX_OPERATIONS = 1.2e11
"""Floating-point operations of the check: about a second of two cores."""


@dataclass(frozen=True)
class OwnForward:
    """Two prompts, and the model's logits of each alone."""

    prompts: tuple[tuple[int, ...], ...]
    logits: tuple[Float[Tensor, "last v"], ...]
    """After the last tokens of each prompt."""
    blocks: tuple[dict[str, Tensor], ...]
    """The output of each decoder block there, by path."""


@torch.inference_mode()
def run_own(model: PreTrainedModel, *, context: int, weights: int) -> OwnForward:
    """Run each prompt by itself with the model's own attention; `weights` is the number of its
    parameters. Raises whatever the model raises."""
    prompts = _prompts(
        model, context=context, affordable=int(MAX_OPERATIONS / (8 * max(weights, 1)))
    )
    picks = "logits_to_keep" in inspect.signature(model.forward).parameters
    keep = {"logits_to_keep": LAST_TOKENS} if picks else {}
    logits, blocks = [], []
    with short_windows(model, prompts), together(experts_in(model)):
        for ids in prompts:
            told = torch.tensor([ids], device=model.device)
            with watch_blocks(model, slice(-LAST_TOKENS, None)) as seen:
                found = model(input_ids=told, use_cache=False, **keep).logits
            logits.append(found[0, -LAST_TOKENS:].float().cpu())
            blocks.append(seen)
    return OwnForward(prompts, tuple(logits), tuple(blocks))


def _prompts(
    model: PreTrainedModel, *, context: int, affordable: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two prompts of random tokens, as long as a second of compute allows."""
    longest = max(MIN_TOKENS, min(MAX_TOKENS, affordable))
    length = min(longest, context - 1)
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    pick = torch.Generator().manual_seed(5)
    first = torch.randint(vocabulary, (length,), generator=pick).tolist()
    second = torch.randint(vocabulary, (length - FEWER,), generator=pick).tolist()
    return tuple(first), tuple(second)


@contextmanager
def short_windows(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Iterator[None]:
    """In forwards inside, an attention window that is longer than half of the first prompt is that
    half: the check's prompts are shorter than most models' windows.

    It is the configuration's number, of which transformers makes masks in each forward. A model
    with a copy of its own keeps its window, in both forwards. Scaled ropes keep their first length,
    since a rotary module copies what follows from it when it is made: their angles are compared
    with the module's own on both sides of it (`load_check`).
    """
    half = max(1, len(prompts[0]) // 2)
    configs = {id(one): one for m in model.modules() if (one := getattr(m, "config", None))}
    before = {
        key: window
        for key, one in configs.items()
        if isinstance(window := getattr(one, "sliding_window", None), int) and window > half
    }
    try:
        for key in before:
            configs[key].sliding_window = half
        yield
    finally:
        for key, window in before.items():
            configs[key].sliding_window = window


@contextmanager
def watch_blocks(model: PreTrainedModel, at: slice | Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """Record each decoder block's output at these tokens, by path, for forwards inside."""
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
