"""Log probabilities of tokens in OpenAI's two forms: of a chat, and of a text that is continued."""

from collections.abc import Callable, Sequence

from ramole_core import Step, TokenLogprob

LOWEST = -9999.0
"""In the place of minus infinity, which JSON has not."""
HALF = "\ufffd"
Spell = Callable[[Sequence[int]], list[str]]


def chat_logprobs(steps: Sequence[Step], spell: Spell, *, wanted: bool = False) -> dict | None:
    """Log probabilities of an answer's tokens; None where they were not asked for. `wanted`: they
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
    """Log probabilities of the prompt's tokens, if echoed, and of the answer's; None where they
    were not asked for. `start`: the characters of the tokens before these."""
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
