"""The language model's loss on answer tokens, the vocabulary product taken at those tokens alone.

A prompt is several times longer than its answer, and the product with a vocabulary of 49,152 words
is a fifth of a small model's work: hidden states come first, the few that predict an answer token
are picked, and the output embedding reads those alone.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from ramole_core.errors import RamoleError
from ramole_core.training.rows import Batch, Encoded, collate

MAX_ROUNDING = 0.2
"""The largest difference that counts as rounding, as a share of the numbers' deviation."""


def last_hidden(model: PreTrainedModel, batch: Batch) -> Float[Tensor, "b l d"]:
    """The input of the model's output embedding, of every token of a batch."""
    ids = batch.ids.to(next(model.parameters()).device)
    if not batch.shared:
        return model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    cache, shared = DynamicCache(config=model.config), batch.shared
    first = model.base_model(input_ids=ids[:1, :shared], cache=cache, use_cache=True)
    cache.batch_repeat_interleave(len(ids))
    rest = model.base_model(input_ids=ids[:, shared:], cache=cache, use_cache=True)
    begin = first.last_hidden_state.expand(len(ids), -1, -1)
    return torch.cat([begin, rest.last_hidden_state], dim=1)


@torch.no_grad()
def can_share(model: PreTrainedModel, rows: Sequence[Encoded]) -> bool:
    """Whether what rows begin with may be read once for all of them: as far as rounding goes, each
    token's last input is what it is without."""
    batch = collate(rows, share=True)
    try:
        shared, whole = last_hidden(model, batch), last_hidden(model, replace(batch, shared=0))
    except Exception:  # a model whose cache is of another kind
        return False
    return bool((shared - whole).abs().max() <= MAX_ROUNDING * whole.float().std())


def token_losses(
    model: PreTrainedModel, batch: Batch, hidden: Float[Tensor, "b l d"] | None = None
) -> Float[Tensor, " m"]:
    """Cross-entropy in nats of every answer token of a batch, in fp32; `hidden` are the batch's
    `last_hidden`, where they were made."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise RamoleError(
            f"{type(model).__name__} has no output embedding; expected a causal language model."
        )
    hidden = last_hidden(model, batch) if hidden is None else hidden
    device = hidden.device
    logits = head(hidden[batch.rows.to(device), batch.places.to(device)])
    return F.cross_entropy(logits.float(), batch.targets.to(device), reduction="none")


def answer_loss(model: PreTrainedModel, batch: Batch) -> Float[Tensor, ""]:
    """Mean loss over the answer tokens of a batch."""
    return token_losses(model, batch).mean()


def mean_by_row(tokens: Float[Tensor, " m"], batch: Batch) -> Float[Tensor, ""]:
    """The mean over rows of each row's mean over its answer tokens: long and short answers count
    equally. `tokens` are `token_losses` of the batch."""
    rows, count = batch.rows.to(tokens.device), len(batch.ids)
    total = tokens.new_zeros(count).index_add(0, rows, tokens)
    return (total / torch.bincount(rows, minlength=count)).mean()


@torch.no_grad()
def row_losses(
    model: PreTrainedModel,
    rows: Sequence[Encoded],
    *,
    batch_rows: int = 25,
    mixing: Callable[[Sequence[Encoded]], AbstractContextManager[None]] | None = None,
    share: bool = False,
) -> Float[Tensor, " n"]:
    """Mean answer loss of each row, in the rows' order; computed in batches of like length, each
    inside `mixing` of its rows. `share`: as in `collate`."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    losses = torch.zeros(len(rows))
    for start in range(0, len(order), batch_rows):
        chosen = order[start : start + batch_rows]
        part = [rows[number] for number in chosen]
        batch = collate(part, share=share)
        with mixing(part) if mixing else nullcontext():
            tokens = token_losses(model, batch).float().cpu()
        total = torch.zeros(len(chosen)).index_add_(0, batch.rows, tokens)
        count = torch.bincount(batch.rows, minlength=len(chosen))
        losses[torch.tensor(chosen)] = total / count
    return losses
