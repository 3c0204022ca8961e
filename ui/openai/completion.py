"""Answers in OpenAI's format: whole, or in chunks; further fields are in `ramole`."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramole_core import Generation, Request, Step, TokenLogprob, mean_weights

from ..api.answers import how_of
from .parameters import Call

REASONS = {"eos": "stop", "stop": "stop", "length": "length"}
OPENAI_HAS = ("finish_reason", "prompt_tokens", "new_tokens", "logprobs", "prompt_logprobs")
LOWEST = -9999.0
"""In place of minus infinity, which JSON lacks."""
HALF = "\ufffd"
Spell = Callable[[Sequence[int]], list[str]]
"""The text of each token by itself."""


@dataclass(frozen=True)
class Answered:
    answer: Generation
    request: Request
    steps: Sequence[Step]


class Completion:
    """The frame of one call's chat answers."""

    PREFIX, WHOLE, PART = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, call: Call, spell: Spell):
        self.call, self.spell = call, spell
        self._frame = {
            "id": f"{self.PREFIX}{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": call.model,
        }
        self._counts = {"usage": None} if call.usage else {}

    def whole(self, answers: Sequence[Answered]) -> dict:
        choices = [
            {**self._choice(n, one), "finish_reason": REASONS[one.answer.finish_reason]}
            for n, one in enumerate(answers)
        ]
        if len(answers) > 1:
            for choice, one in zip(choices, answers, strict=True):
                choice["ramole"] = about(one)
        return {
            **self._frame,
            "object": self.WHOLE,
            "choices": choices,
            "usage": usage_of(answers, self.call),
            "ramole": self._about(answers[0]),
        }

    def begin(self, index: int) -> dict | None:
        """The first chunk of an answer, where it has one of its own."""
        return self._chunk([_delta(index, {"role": "assistant", "content": ""})])

    def chunk(self, index: int, text: str, steps: Sequence[Step]) -> dict:
        logprobs = chat_logprobs(steps, self.spell)
        return self._chunk([_delta(index, {"content": text}, logprobs=logprobs)])

    def end(self, index: int, one: Answered, rest: Sequence[Step] = ()) -> dict:
        """Return the last chunk, with the finish reason; `rest`: last tokens, without text."""
        last = self._chunk([_delta(index, {}, reason=REASONS[one.answer.finish_reason])])
        return {**last, "ramole": self._about(one)}

    def count(self, answers: Sequence[Answered]) -> dict:
        return {**self._chunk([]), "usage": usage_of(answers, self.call)}

    def _choice(self, index: int, one: Answered) -> dict:
        """A finished answer. Its message names its adapters, so that it keeps them as an earlier
        turn, where it is sent back as it is."""
        message = {
            "role": "assistant",
            "content": one.answer.text,
            "refusal": None,
            "ramole": {"adapters": list(one.answer.adapters)},
        }
        wanted = one.request.logprobs is not None
        logprobs = chat_logprobs(with_text(one.steps), self.spell, wanted=wanted)
        return {"index": index, "message": message, "logprobs": logprobs}

    def _about(self, one: Answered) -> dict:
        ignored = list(self.call.ignored)
        return {**about(one), **({"ignored": ignored} if ignored else {})}

    def _chunk(self, choices: list[dict]) -> dict:
        return {**self._frame, "object": self.PART, "choices": choices, **self._counts}


class TextCompletion(Completion):
    """The frame of texts that are continued."""

    PREFIX, WHOLE, PART = "cmpl-", "text_completion", "text_completion"

    def __init__(self, call: Call, spell: Spell):
        super().__init__(call, spell)
        self._ends: dict[int, int] = {}
        """Characters of the tokens that were streamed, by answer."""

    def begin(self, index: int) -> dict | None:
        if not self.call.echo:
            return None
        return self._chunk([self._part(index, self.call.requests[index].prompt, None)])

    def chunk(self, index: int, text: str, steps: Sequence[Step]) -> dict:
        logprobs = text_logprobs(steps, (), self.spell, start=self._ends.get(index, 0))
        if logprobs is not None:
            self._ends[index] = logprobs["text_offset"][-1] + len(logprobs["tokens"][-1])
        return self._chunk([self._part(index, text, logprobs)])

    def end(self, index: int, one: Answered, rest: Sequence[Step] = ()) -> dict:
        logprobs = text_logprobs(rest, (), self.spell, start=self._ends.get(index, 0))
        reason = REASONS[one.answer.finish_reason]
        last = {**self._part(index, "", logprobs), "finish_reason": reason}
        return {**self._chunk([last]), "ramole": self._about(one)}

    def _choice(self, index: int, one: Answered) -> dict:
        steps, text = one.steps, one.answer.text
        if self.call.bare:
            steps, text = (), ""
        logprobs = text_logprobs(steps, one.answer.prompt_logprobs, self.spell)
        return self._part(index, (one.request.prompt if self.call.echo else "") + text, logprobs)

    def _part(self, index: int, text: str, logprobs: dict | None) -> dict:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}


def with_text(steps: Sequence[Step]) -> Sequence[Step]:
    """The tokens up to the last that has text: without the end of the turn, or a stop string."""
    return steps[: max((n for n, step in enumerate(steps, 1) if step.text), default=0)]


def usage_of(answers: Sequence[Answered], call: Call) -> dict:
    """The counts of tokens; a prompt of `n` answers counts once, an omitted answer (`bare`) not at
    all."""
    prompts = sum(one.answer.prompt_tokens for one in answers[:: call.n])
    new = 0 if call.bare else sum(one.answer.new_tokens for one in answers)
    return {"prompt_tokens": prompts, "completion_tokens": new, "total_tokens": prompts + new}


def about(one: Answered) -> dict:
    """The answer's fields of `/ask`, with each adapter's mean weight in the modules that it has,
    and its share of what all contributed; null where no token was traced."""
    answer, steps = one.answer, one.steps
    told = how_of(answer, one.request, steps)
    how = {name: value for name, value in told.items() if name not in OPENAI_HAS}
    names, count = answer.adapters, len(answer.adapters)
    gates = [
        step.placed(mean_weights(step.weights, step.present), names)
        for step in steps
        if step.weights is not None and step.present is not None
    ]
    shares = [step.placed(row, names) for step in steps if (row := step.shares) is not None]
    told = zip(how["adapters"], _means(gates, count), _means(shares, count), strict=True)
    return {**how, "adapters": [{**a, "weight": w, "share": s} for a, w, s in told]}


def _means(rows: Sequence[np.ndarray], k: int) -> list[float | None]:
    if not rows or not k:
        return [None] * k
    return [round(float(mean), 4) for mean in np.stack(rows).astype(np.float64).mean(0)]


def _delta(
    index: int, delta: dict, *, reason: str | None = None, logprobs: dict | None = None
) -> dict:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def chat_logprobs(steps: Sequence[Step], spell: Spell, *, wanted: bool = False) -> dict | None:
    """Log probabilities of an answer's tokens; None where they were not requested. `wanted`: they
    were, so an answer without a token has an empty list."""
    found = [step.likelihood for step in steps if step.likelihood is not None]
    if not found and not wanted:
        return None
    content = [
        {
            **_token(one.token, one.logprob, spell),
            "top_logprobs": [_token(token, logprob, spell) for token, logprob in one.top],
        }
        for one in found
    ]
    return {"content": content, "refusal": None}


def _token(token: int, logprob: float | None, spell: Spell) -> dict:
    (text,) = spell([token])
    parts = None if HALF in text else list(text.encode())  # half a character has no text
    return {"token": text, "logprob": _finite(logprob), "bytes": parts}


def text_logprobs(
    steps: Sequence[Step], prompt: Sequence[TokenLogprob], spell: Spell, *, start: int = 0
) -> dict | None:
    """Log probabilities of the prompt's tokens, if echoed, and of the answer's; None where not
    requested. `start`: the characters of the tokens before these."""
    found = [*prompt, *(step.likelihood for step in steps if step.likelihood is not None)]
    if not found:
        return None
    texts = spell([one.token for one in found])
    offsets = [start]
    for text in texts[:-1]:
        offsets.append(offsets[-1] + len(text))
    return {
        "tokens": texts,
        "token_logprobs": [_finite(one.logprob) for one in found],
        "top_logprobs": [_top(one, spell) for one in found],
        "text_offset": offsets,
    }


def _top(one: TokenLogprob, spell: Spell) -> dict[str, float | None] | None:
    """The likeliest tokens by text; of two with the same text the likelier one."""
    if one.logprob is None:
        return None
    texts = spell([token for token, _ in one.top])
    pairs = zip(texts, (logprob for _, logprob in one.top), strict=True)
    return {text: _finite(logprob) for text, logprob in reversed(list(pairs))}


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, LOWEST)
