"""From logits to text: the next token of one request, and whole characters as they stream.

A token is the likeliest one, or drawn with the request's own seed among those that top_k, top_p and
min_p leave; nothing past a stop string is ever given out. Penalties, bias and format change the
logits of requests that use them, one row at a time, so no number hangs on the batch.
"""

import sys
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.answer import TokenLogprob
from ramole_core.engine.answer_format import AnswerFormat
from ramole_core.request import Request

BROKEN = "\ufffd"  # what a tokenizer gives for half a character
MIN_TEMPERATURE = sys.float_info.min
"""A lower temperature, a subnormal number, is greedy: some processors flush it to 0."""


def make_generator(request: Request) -> torch.Generator:
    """The request's random generator, on the CPU: a seed gives the same draws on any device."""
    generator = torch.Generator()
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed)
    return generator


def is_greedy(request: Request) -> bool:
    """Whether each token is the likeliest one, without a draw."""
    return request.temperature < MIN_TEMPERATURE


def choose_token(
    logits: Float[Tensor, "v"], request: Request, *, generator: torch.Generator
) -> int:
    """The next token id; temperature 0 is the argmax, else a draw among the likeliest. Where the
    largest logit is infinite or no number, its place."""
    if is_greedy(request):
        return int(logits.argmax())
    wide = logits.to("cpu", torch.float64)
    if not torch.isfinite(wide.max()):
        return int(wide.argmax())
    probabilities = ((wide - wide.max()) / request.temperature).softmax(-1)
    ordered, ids = probabilities.sort(descending=True, stable=True)
    if request.top_k:
        ordered = ordered[: request.top_k] / ordered[: request.top_k].sum()
    before = ordered.cumsum(-1) - ordered
    kept = ordered * (before < request.top_p)  # the first token is always kept
    if request.min_p:
        kept = kept * (ordered >= request.min_p * ordered[0])
    draw = torch.rand((), generator=generator, dtype=torch.float64) * kept.sum()
    place = int(torch.searchsorted(kept.cumsum(-1), draw, right=True))
    return int(ids[min(place, int((kept > 0).sum()) - 1)])


def skip_draws(generator: torch.Generator, request: Request, count: int) -> None:
    if not is_greedy(request):
        for _ in range(count):
            torch.rand((), generator=generator, dtype=torch.float64)


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


class TextStream:
    """Turn tokens into text as it becomes final, and detect stop strings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, stop: Sequence[str] = ()):
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._read = 0  # tokens whose text has been taken
        self._start = 0  # decoding begins here, so that its cost does not grow with the answer
        self._held = ""  # text that may turn out to be the beginning of a stop string
        self.text = ""
        self.stopped = ""
        """The stop string that ended the answer; empty: none did."""

    def push(self, token: int) -> str:
        """The text that becomes final with this token."""
        self._ids.append(token)
        before = self._decode(self._start, self._read)
        now = self._decode(self._start, len(self._ids))
        if now.endswith(BROKEN):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return self._release(now[len(before) :])

    def finish(self) -> str:
        """The text held back so far, for an answer that ends without a stop string."""
        if self.stopped:
            return ""
        rest = self._decode(self._start, len(self._ids))
        rest = self._held + rest[len(self._decode(self._start, self._read)) :]
        self._read, self._held = len(self._ids), ""
        self.text += rest
        return rest

    def _decode(self, start: int, end: int) -> str:
        return str(
            self._tokenizer.decode(
                self._ids[start:end],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        )

    def _release(self, new: str) -> str:
        text = self._held + new
        found = [(at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            (at, self.stopped), self._held = min(found), ""
            self.text += text[:at]
            return text[:at]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        sure = text[: len(text) - keep]
        self.text += sure
        return sure


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` could begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def spell(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """The text of each token by itself; half a character shows as the replacement sign."""
    return [spell_token(tokenizer, token) for token in ids]


@lru_cache(2**16)
def spell_token(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
