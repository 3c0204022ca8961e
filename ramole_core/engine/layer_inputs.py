"""What goes into a base model's layers and blocks, recorded in a forward; adapters' responses.

At the last token of a prompt for methods that examine adapters; as a mean over its tokens for
methods that read the prompt (`Ask.means`). Each sum runs over one prompt alone, token by token in
float64, so that a mean's bits do not depend on other prompts.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from ramole_core.base.experts import Experts
from ramole_core.composition.activation import Response, log_norm
from ramole_core.layers import Layout, Units
from ramole_core.layers.install import watch_blocks


def log_responses(
    units: Units, inputs: Sequence[Float[Tensor, "_ b _"]]
) -> Float[Tensor, "b modules"]:
    """log |B A x| in each module; `inputs` by group, rounded to the adapter's dtype and multiplied
    in float32 or wider."""
    logs = []
    for A, x in zip(units.A, inputs, strict=True):
        wide = torch.promote_types(A.dtype, torch.float32)
        u = torch.einsum("Lbi,Lrmi->bLmr", x.to(A.dtype).to(wide), A.to(wide)).float()
        logs.append(log_norm(u.square().sum(-1)).flatten(1))
    return torch.cat(logs, dim=1)


def response_of(units: Units, inputs: Sequence[Float[Tensor, "_ _"]]) -> Response:
    """An adapter's response to these inputs, by group."""
    logs = log_responses(units, [x[:, None] for x in inputs])[0]
    return Response(logs, units.usual, units.present)


@contextmanager
def watch_inputs(
    model: nn.Module, layout: Layout, at: Int[Tensor, "b"]
) -> Iterator[Callable[[], list[Float[Tensor, "_ b _"]]]]:
    """Record, in the forward inside, each group's input in each block at these tokens, all rows'
    counted as one (some models give their layers no rows). Experts are computed at all of these
    tokens, whichever were chosen."""
    seen: dict[str, Tensor] = {}
    at = at.to(next(model.parameters()).device)  # once: each layer would wait for it

    def watch(path: str):
        def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[path] = args[0].flatten(0, -2)[at].float().cpu()

        return see

    def ask(path: str):
        def see(module: Experts, args: tuple[Tensor, ...]) -> None:
            x = args[0].flatten(0, -2)[at]
            for e, expert in enumerate(module.each()):
                seen[f"{path}.{e}.gate_up_proj"] = x.float().cpu()
                seen[f"{path}.{e}.down_proj"] = expert.inner(x, module.act_fn).float().cpu()

        return see

    groups = [group for group in layout.groups if not group.of_experts]
    firsts = [block[0] for group in groups for block in group.paths]
    handles = [model.get_submodule(p).register_forward_pre_hook(watch(p)) for p in firsts]
    handles += [
        module.register_forward_pre_hook(ask(path))
        for path, module in model.named_modules()
        if isinstance(module, Experts)
    ]
    try:
        yield lambda: [
            torch.stack([seen[block[0]] for block in group.paths]) for group in layout.groups
        ]
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watch_sums(
    model: PreTrainedModel,
    blocks: Collection[str],
    spans: Sequence[tuple[int, int]],
    sums: Sequence[dict[str, Tensor]],
) -> Iterator[None]:
    """Add, in the forward inside, the inputs of these blocks over each span of its tokens, all
    rows' counted as one, to the span's own of `sums`; float64, by path."""

    def see(path: str, x: Tensor) -> None:
        tokens = x.detach().flatten(0, -2).float().cpu()
        for found, (start, end) in zip(sums, spans, strict=True):
            found[path] = sum_of(tokens[start:end], found.get(path))

    handles = watch_blocks(model, blocks, see)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def mean_of(sums: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {path: (total / count).float() for path, total in sums.items()}


def sum_of(
    tokens: Float[Tensor, "l i"], before: Float[Tensor, "i"] | None = None
) -> Float[Tensor, "i"]:
    """The sum, by a running one in float64: one order on any device, and in any pieces."""
    every = tokens.double() if before is None else torch.cat([before[None], tokens.double()])
    return every.cumsum(0)[-1]


# --- of a model that is not served ------------------------------------------------------------


def read_ends(
    model: nn.Module, layout: Layout, prompts: Sequence[Sequence[int]]
) -> list[Float[Tensor, "_ b _"]]:
    """Each group's inputs in each block at the last token of each prompt."""
    ids = _padded(model, prompts)
    ends = [row * ids.shape[1] + len(one) - 1 for row, one in enumerate(prompts)]
    with watch_inputs(model, layout, torch.tensor(ends)) as found:
        model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return found()


@torch.no_grad()
def read_means(
    model: PreTrainedModel, blocks: Collection[str], prompts: Sequence[Sequence[int]]
) -> list[dict[str, Tensor]]:
    """The mean inputs of these blocks over each prompt."""
    ids = _padded(model, prompts)
    starts = [row * ids.shape[1] for row in range(len(prompts))]
    spans = [(start, start + len(one)) for start, one in zip(starts, prompts, strict=True)]
    sums: list[dict[str, Tensor]] = [{} for _ in prompts]
    with watch_sums(model, blocks, spans, sums):
        model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return [mean_of(found, len(one)) for found, one in zip(sums, prompts, strict=True)]


def _padded(model: nn.Module, prompts: Sequence[Sequence[int]]) -> Int[Tensor, "b l"]:
    """Right-padded, which changes no token of a decoder."""
    ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
    for row, one in enumerate(prompts):
        ids[row, : len(one)] = torch.tensor(one)
    return ids.to(next(model.parameters()).device)
