"""A request's examples as token ids, read one after the other for their losses.

L = mean over all target tokens t of  -log p(t | the right tokens before it),   in nats

A pair is an ordinary prompt and the right answer behind it, its end token included, so one reading
of both gives the loss of every answer token; nothing is decoded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.engine.prompt import encode_prompt
from ramole_core.errors import RamoleError
from ramole_core.kernels.logprob import token_logprobs
from ramole_core.request import Request
from ramole_core.request_parts import read_examples


@dataclass(frozen=True)
class Pair:
    """One example as token ids."""

    ids: tuple[int, ...]
    """The tokens that are fed: the prompt, and the answer but for its last token."""
    targets: tuple[int, ...]
    """The answer's tokens; the one before each predicts it."""

    @property
    def prompt_length(self) -> int:
        return len(self.ids) + 1 - len(self.targets)


def encode_pairs(
    request: Request, tokenizer: PreTrainedTokenizerBase, *, context: int
) -> tuple[Pair, ...]:
    """The request's examples, their inputs as its own prompt is rendered; raises RamoleError where
    one is longer than the base reads."""
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise RamoleError("The base model's tokenizer has no end token; choose another base.")
    found = []
    for n, one in enumerate(read_examples(request.examples), 1):
        bare = dict.fromkeys(("history", "prefix_ids", "without", "prompt_ids", "messages"), ())
        alone = replace(request, prompt=one.input, **bare)
        prompt = encode_prompt(alone, tokenizer)
        targets = (*tokenizer.encode(one.target, add_special_tokens=False), end)
        ids = (*prompt, *targets[:-1])
        if len(ids) > context:
            raise RamoleError(
                f"Pair {n} of examples has {len(ids)} tokens, and the base model reads at most "
                f"{context}; shorten it."
            )
        found.append(Pair(ids, targets))
    return tuple(found)


@dataclass
class PairReading:
    """Pairs being read by the engine, under one way of mixing."""

    pairs: Sequence[Pair]
    losses: list[float] = field(default_factory=list)
    """Losses of the answer tokens so far, in order."""
    at: int = 0
    """Index of the pair that is read."""

    @property
    def pair(self) -> Pair:
        return self.pairs[self.at]

    @property
    def longest(self) -> int:
        return max(len(pair.ids) for pair in self.pairs)

    @property
    def loss(self) -> float:
        return math.fsum(self.losses) / len(self.losses)

    def wanted(self, start: int, end: int) -> int:
        """Number of tokens at [start, end) that predict one of the answer."""
        return max(0, end - max(start, self.pair.prompt_length - 1))

    def add(self, logits: Float[Tensor, "n v"], end: int) -> None:
        """Add the logits after the n tokens before `end`, which all predict answer tokens."""
        first = end - len(logits) - (self.pair.prompt_length - 1)
        targets = self.pair.targets[first : first + len(logits)]
        self.losses += [-found for found in token_logprobs(logits, targets)]

    def advance(self) -> bool:
        """Go on to the next pair; False: there is none."""
        self.at += 1
        return self.at < len(self.pairs)
