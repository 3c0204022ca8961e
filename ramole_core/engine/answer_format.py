"""Answers that are JSON of a schema: which tokens may come next, by llguidance.

A request has its own parser, fed with the tokens of its answer alone, so the same tokens are
allowed whatever else is served, on any engine, and after an answer was cut and resumed. JSON is
written on one line, with one space after `,` and `:`, as `json.dumps` does: a small model that may
choose writes blanks without end.
"""

import json
from functools import lru_cache
from typing import cast

import llguidance
import numpy as np
import torch
from jaxtyping import Bool
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ramole_core.errors import RamoleError
from ramole_core.request import Request

ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

LIMITS = llguidance.LLParserLimits(
    step_lexer_fuel=50_000,
    step_max_items=10_000,
    max_lexer_states=50_000,
    max_grammar_size=100_000,
)
"""Limits of the work for one schema: about 10 ms a token at most, in which the batch waits."""


class AnswerFormat:
    """The tokens that may follow in one answer."""

    def __init__(
        self,
        request: Request,
        tokenizer: PreTrainedTokenizerBase,
        *,
        eos: frozenset[int],
        vocabulary: int,
    ):
        """`eos` end an answer, `vocabulary` is the number of the base's tokens. Raises RamoleError
        where the schema cannot be followed, or the tokens that are given do not follow it or have
        ended the answer."""
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(request.json_schema),
                overrides=ONE_LINE,  # pyright: ignore[reportArgumentType] a dict of its type
            )
        except ValueError as error:
            raise _refused(str(error)) from None
        self._eos = sorted(eos)
        tokens = _tokens_of(tokenizer, self._eos[0] if eos else None, vocabulary)
        self._parser = llguidance.LLMatcher(tokens, grammar, log_level=0, limits=LIMITS)
        if self._parser.is_error():
            raise _refused(self._parser.get_error())
        given = list(request.prefix_ids)
        after = self._parser.deep_copy()
        if given and not (after.consume_tokens(given) and not after.is_stopped()):
            raise RamoleError(
                "prefix_ids is no beginning of JSON of json_schema, or all of it; give the first "
                "tokens of one, or leave one of them out."
            )

    def allowed(self, vocabulary: int) -> Bool[Tensor, "v"]:
        """Mask of the tokens that may come next, those that end the answer among them where it may
        end. Raises RamoleError where the schema needs more work than the parser may do."""
        bits = np.frombuffer(self._parser.compute_bitmask(), np.uint8)
        flags = np.unpackbits(bits, count=min(vocabulary, 8 * len(bits)), bitorder="little")
        found = torch.zeros(vocabulary, dtype=torch.bool)
        found[: len(flags)] = torch.from_numpy(flags).bool()
        if self._parser.is_accepting():
            found[self._eos] = True
        if self._parser.is_error() or not found.any():
            raise _refused(self._parser.get_error() or "no token of the base model fits")
        return found

    def push(self, token: int) -> None:
        self._parser.consume_token(token)

    @property
    def complete(self) -> bool:
        """Whether the answer is complete: no token can follow."""
        return self._parser.is_stopped()


@lru_cache(2)
def _tokens_of(
    tokenizer: PreTrainedTokenizerBase, eos: int | None, vocabulary: int
) -> llguidance.LLTokenizer:
    """The tokenizer as llguidance reads it; half a second for 50,000 tokens."""
    try:
        fast = cast(PreTrainedTokenizerFast, tokenizer)  # it refuses others itself
        return from_tokenizer(fast, max(vocabulary, len(tokenizer)), eos)
    except ValueError as error:
        raise RamoleError(
            "The base model's tokenizer cannot write JSON of a schema "
            f"({_first_line(str(error))}); leave json_schema out, or choose another base model."
        ) from None


def _refused(reason: str) -> RamoleError:
    return RamoleError(f"json_schema cannot be followed ({_first_line(reason)}); change it.")


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0].rstrip(".")
