"""The language model's loss on answer tokens, the vocabulary product taken at those tokens alone.

A prompt is several times longer than its answer, and the product with a vocabulary of 49,152 words
is a fifth of a small model's work: hidden states come first, the few that predict an answer token
are picked, and the output embedding reads those alone.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from ramole_core.errors import RamoleError
from ramole_core.training.rows import Batch, R, collate


def last_hidden(model: PreTrainedModel, batch: Batch) -> Float[Tensor, "b l d"]:
    """The input of the model's output embedding, of every token of a batch."""
    device = next(model.parameters()).device
    return model.base_model(input_ids=batch.ids.to(device), use_cache=False).last_hidden_state


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
    rows: Sequence[R],
    *,
    batch_rows: int = 25,
    mixing: Callable[[Sequence[R]], AbstractContextManager[None]] | None = None,
) -> Float[Tensor, " n"]:
    """Mean answer loss of each row, in the rows' order; computed in batches of like length, each
    inside `mixing` of its rows."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    losses = torch.zeros(len(rows))
    for start in range(0, len(order), batch_rows):
        chosen = order[start : start + batch_rows]
        part = [rows[number] for number in chosen]
        batch = collate(part)
        with mixing(part) if mixing else nullcontext():
            tokens = token_losses(model, batch).float().cpu()
        total = torch.zeros(len(chosen)).index_add_(0, batch.rows, tokens)
        count = torch.bincount(batch.rows, minlength=len(chosen))
        losses[torch.tensor(chosen)] = total / count
    return losses
