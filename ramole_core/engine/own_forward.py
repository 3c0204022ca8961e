"""A base model's own forward of two prompts, before any served layer is installed.

It is what `check_served` compares the served model with, and how far the model carries rounding.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from ramole_core.base.experts import experts_in, together

LAST_TOKENS = 4
"""Tokens at the end of a prompt that are compared: the last that is read, and steps of one."""
MIN_TOKENS, MAX_TOKENS, SHORTER_BY = 20, 200, 7
"""Tokens of the first prompt, and how many fewer the second has."""
MAX_OPERATIONS = 1.2e11
"""Floating-point operations of the check, about a second of two cores; half as many more where
rounding is measured."""


@dataclass(frozen=True)
class OwnForward:
    """Two prompts, and the model's logits of each alone."""

    prompts: tuple[tuple[int, ...], ...]
    logits: tuple[Float[Tensor, "last v"], ...]
    """Logits after the last tokens of each prompt."""
    blocks: tuple[dict[str, Tensor], ...]
    """The output of each decoder block there, by path."""
    rounding: float = 0.0
    """How far the logits move where a part of each block's numbers is rounded the other way, as a
    share of their spread; 0 of float32, and where it cannot be told."""


@torch.inference_mode()
def run_own(model: PreTrainedModel, *, context: int, weights: int) -> OwnForward:
    """Run each prompt by itself with the model's own attention; `weights` is the number of its
    parameters. Raises whatever the model raises."""
    prompts = _prompts(
        model, context=context, affordable=int(MAX_OPERATIONS / (8 * max(weights, 1)))
    )
    picks = "logits_to_keep" in inspect.signature(model.forward).parameters
    keep = {"logits_to_keep": LAST_TOKENS} if picks else {}

    def logits_of(ids: Sequence[int]) -> Tensor:
        told = torch.tensor([ids], device=model.device)
        return model(input_ids=told, use_cache=False, **keep).logits[0, -LAST_TOKENS:].float().cpu()

    logits, blocks, moved = [], [], [0.0]
    with short_windows(model, prompts), together(experts_in(model)):
        for ids in prompts:
            with block_outputs(model, slice(-LAST_TOKENS, None)) as seen:
                logits.append(logits_of(ids))
            blocks.append(seen)
        if model.dtype != torch.float32:
            with rounded_blocks(model):
                again = [logits_of(ids) for ids in prompts]
            moved = [share_of_spread(*pair, each=False) for pair in zip(again, logits, strict=True)]
    rounding = max(moved) if all(map(isfinite, moved)) else 0.0
    return OwnForward(prompts, tuple(logits), tuple(blocks), rounding)


def _prompts(
    model: PreTrainedModel, *, context: int, affordable: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two prompts of random tokens, as long as a second of compute allows."""
    longest = max(MIN_TOKENS, min(MAX_TOKENS, affordable))
    length = min(longest, context - 1)
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    pick = torch.Generator().manual_seed(5)
    first = torch.randint(vocabulary, (length,), generator=pick).tolist()
    second = torch.randint(vocabulary, (length - SHORTER_BY,), generator=pick).tolist()
    return tuple(first), tuple(second)


@contextmanager
def short_windows(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Iterator[None]:
    """In forwards inside, an attention window that is longer than half of the first prompt is that
    half: the check's prompts are shorter than most models' windows.

    It is the configuration's number, of which transformers makes masks in each forward. A model
    with a copy of its own keeps its window, in both forwards. Scaled ropes keep their first length,
    since a rotary module copies what follows from it when it is made: their angles are compared
    with the module's own on both sides of it (`check_served`).
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
def block_outputs(model: PreTrainedModel, at: slice | Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """Record each decoder block's output at these tokens, by path, for forwards inside."""
    seen: dict[str, Tensor] = {}

    def see(path: str, made: Tensor) -> None:
        seen[path] = made[0, at].float().cpu()

    with _hooked(model, see):
        yield seen


@contextmanager
def rounded_blocks(model: PreTrainedModel) -> Iterator[None]:
    """In forwards inside, about a quarter of the numbers of each decoder block's output are moved
    by a unit of their last place, drawn from a fixed seed, as another order of the same sums may
    round them."""
    draw = torch.Generator().manual_seed(5)
    half = torch.finfo(model.dtype).eps / 2

    def round_again(path: str, made: Tensor) -> Tensor:
        off = torch.rand(made.shape, generator=draw).to(made.device) * 2 - 1
        return (made.float() * (1 + half * off)).to(made.dtype)

    with _hooked(model, round_again):
        yield


@contextmanager
def _hooked(model: PreTrainedModel, do: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `do` with each decoder block's path and output; what it returns replaces the output."""

    def hook_of(path: str):
        def hook(module: nn.Module, args: object, out: object) -> object:
            made = out[0] if isinstance(out, tuple) else out
            if not (isinstance(made, Tensor) and made.is_floating_point() and made.ndim == 3):
                return None
            other = do(path, made)
            if other is None:
                return None
            return (other, *out[1:]) if isinstance(out, tuple) else other

        return hook

    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    handles = [
        block.register_forward_hook(hook_of(f"{path}.{n}"))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
        for n, block in enumerate(module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def share_of_spread(found: Tensor, said: Tensor, *, each: bool) -> float:
    """The differences over the spread of the logits: the largest of the tokens, or, where numbers
    are rounded to few bits, the median (an expert that was chosen by a hair may be another)."""
    spread = (said - said.mean(-1, keepdim=True)).square().mean(-1).sqrt()
    shares = (found - said).square().mean(-1).sqrt() / spread.clamp(min=1e-20)
    if not bool(shares.isfinite().all()):
        return float("nan")
    return float(shares.max() if each else shares.quantile(0.5))
