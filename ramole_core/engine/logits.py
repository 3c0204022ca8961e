"""Penalties, bias and format on a request's logits, and the log probabilities it asks for.

Only rows of requests that ask for it come here, one at a time, so no number hangs on the batch.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.answer import TokenLogprob
from ramole_core.engine.answer_format import AnswerFormat
from ramole_core.errors import RamoleError
from ramole_core.request import Request


def changed_logits(
    logits: Float[Tensor, "v"],
    request: Request,
    *,
    prompt: Sequence[int],
    answer: Sequence[int],
    form: AnswerFormat | None,
) -> Float[Tensor, "v"]:
    """The logits with penalties, bias and format: float64 on the CPU.

    l / r where l > 0, else l * r, for tokens of prompt and answer    (repetition_penalty r)
    l - p - f c, for tokens that the answer has c times               (presence p, frequency f)
    """
    changed = logits.to("cpu", torch.float64, copy=True)
    if request.repetition_penalty != 1:
        seen = torch.tensor([*prompt, *answer]).unique()
        before, r = changed[seen], request.repetition_penalty
        changed[seen] = torch.where(before > 0, before / r, before * r)
    if answer and (request.presence_penalty or request.frequency_penalty):
        seen, counts = torch.tensor(answer).unique(return_counts=True)
        changed[seen] -= request.presence_penalty + request.frequency_penalty * counts
    for token, bias in (request.logit_bias or {}).items():
        changed[token] += bias
    if form is not None:
        changed[~form.allowed(len(changed))] = -torch.inf
    return changed


def log_probability(logits: Float[Tensor, "v"], token: int, *, top: int) -> TokenLogprob:
    """Log probabilities, in nats, of this token and of the `top` likeliest, best first."""
    wide = logits.to("cpu", torch.float64)
    logs = wide - wide.logsumexp(-1)
    found = logs.topk(top)
    best = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return TokenLogprob(token, float(logs[token]), tuple(best))


def check_bias(request: Request, *, vocabulary: int) -> None:
    """Raise RamoleError where `logit_bias` names a token that the base lacks."""
    largest = max(request.logit_bias or (), default=0)
    if largest >= vocabulary:
        raise RamoleError(
            f"logit_bias has token {largest}, but the base model's tokens are 0 to "
            f"{vocabulary - 1}; give tokens of this base."
        )
