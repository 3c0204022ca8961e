"""Choosing the next token of one request: greedy, or temperature and nucleus with its own seed."""

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.request import Request


def make_generator(request: Request) -> torch.Generator:
    """The request's own random numbers: on the CPU, so that a seed means the same on any device."""
    generator = torch.Generator()
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed)
    return generator


def choose_token(
    logits: Float[Tensor, "v"], request: Request, *, generator: torch.Generator
) -> int:
    """The next token id; temperature 0 is the argmax, else a draw from the top-p nucleus."""
    if request.temperature == 0:
        return int(logits.argmax())
    probabilities = (logits.to("cpu", torch.float64) / request.temperature).softmax(-1)
    ordered, ids = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered * (before < request.top_p)  # the first token is always kept
    draw = torch.rand((), generator=generator, dtype=torch.float64) * kept.sum()
    place = int(torch.searchsorted(kept.cumsum(-1), draw, right=True))
    return int(ids[min(place, int((kept > 0).sum()) - 1)])
