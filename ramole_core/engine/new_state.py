"""Waiting requests: the state of a new one, and of a row that reads pairs."""

import math

from transformers import PreTrainedTokenizerBase

from ramole_core.base.chat_template import turn_end_of
from ramole_core.composition import Candidate
from ramole_core.engine.answer_format import format_of
from ramole_core.engine.decoding import TextStream, make_generator, skip_draws
from ramole_core.engine.pair_reading import PairReading
from ramole_core.engine.prompt import Prepared
from ramole_core.engine.reader import ModelFacts
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.segments import Segments
from ramole_core.request import Request


def new_request_state(
    prepared: Prepared,
    segments: Segments,
    candidates: tuple[Candidate, ...],
    *,
    facts: ModelFacts,
    tokenizer: PreTrainedTokenizerBase,
    session: str = "",
    address: str = "",
) -> RequestState:
    """A waiting request, its given tokens counted as answered and drawn."""
    request, prompt, streamed = prepared.request, prepared.prompt, prepared.streamed_ids
    ids = [*prompt.ids, *request.prefix_ids, *streamed[:-1]]  # the last one is streamed again
    state = RequestState(
        request=request,
        session=session,
        address=address,
        ids=ids,
        prompt_length=len(prompt.ids),
        segments=segments,
        candidates=candidates,
        turn_end=turn_end_of(tokenizer, raw=request.raw),
        room=prompt.room,
        text=TextStream(tokenizer, stop=request.stop),
        generator=make_generator(request),
        content=segments.content(() if request.prompt_logprobs else ids),
        extra={"dropped_turns": float(prompt.dropped)} if prompt.dropped else {},
        new=max(0, len(streamed) - 1),
        resumed_token=streamed[-1] if streamed else None,
        form=format_of(request, tokenizer, eos=facts.eos, vocabulary=facts.vocabulary),
    )
    for token in state.tokens:
        state.push(token, facts.eos)
    state.logprobs = [math.nan] * len(state.tokens) if request.effects else []
    skip_draws(state.generator, request, len(state.tokens))
    return state


def new_pair_state(
    request: Request,
    reading: PairReading,
    segments: Segments,
    candidates: tuple[Candidate, ...],
    *,
    tokenizer: PreTrainedTokenizerBase,
    session: str,
    address: str,
) -> RequestState:
    """A waiting row that reads all pairs, under the request's adapters."""
    state = RequestState(
        request=request,
        session=session,
        address=address,
        ids=[],
        prompt_length=reading.longest,
        segments=segments,
        candidates=candidates,
        turn_end="",
        room=0,
        text=TextStream(tokenizer, stop=()),
        generator=make_generator(request),
        content=segments.content(()),
        reading=reading,
    )
    state.take_pair()
    return state
