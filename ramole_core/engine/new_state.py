"""Waiting requests: the state of a new one, and of a row that reads pairs."""

import math

from transformers import PreTrainedTokenizerBase

from ramole_core.composition import Candidate
from ramole_core.engine.answer_format import AnswerFormat
from ramole_core.engine.decoding import TextStream, make_generator, skip_draws
from ramole_core.engine.pair_reading import PairReading
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.segments import Segments
from ramole_core.request import Request


def new_request_state(
    number: int,
    request: Request,
    *,
    ids: list[int],
    prompt_length: int,
    segments: Segments,
    candidates: tuple[Candidate, ...],
    room: int,
    tokenizer: PreTrainedTokenizerBase,
    eos: frozenset[int],
    session: str,
    address: str = "",
    extra: dict[str, float] | None = None,
    streamed_ids: tuple[int, ...] = (),
    form: AnswerFormat | None = None,
) -> RequestState:
    """A waiting request, its given tokens counted as answered and drawn. `streamed_ids` are the
    last tokens of the answer that another engine has streamed; the last one is streamed again."""
    state = RequestState(
        number=number,
        request=request,
        session=session,
        address=address,
        ids=ids,
        prompt_length=prompt_length,
        segments=segments,
        candidates=candidates,
        room=room,
        text=TextStream(tokenizer, stop=request.stop),
        generator=make_generator(request),
        content=segments.content(() if request.prompt_logprobs else ids),
        extra=dict(extra or {}),
        new=max(0, len(streamed_ids) - 1),
        resumed_token=streamed_ids[-1] if streamed_ids else None,
        form=form,
    )
    for token in state.tokens:
        state.push(token, eos)
    state.logprobs = [math.nan] * len(state.tokens) if request.effects else []
    skip_draws(state.generator, request, len(state.tokens))
    return state


def new_pair_state(
    number: int,
    request: Request,
    reading: PairReading,
    *,
    segments: Segments,
    candidates: tuple[Candidate, ...],
    tokenizer: PreTrainedTokenizerBase,
    session: str,
    address: str,
    becomes: int = 0,
) -> RequestState:
    """A waiting row that reads all pairs."""
    state = RequestState(
        number=number,
        request=request,
        session=session,
        address=address,
        ids=[],
        prompt_length=reading.longest,
        segments=segments,
        candidates=candidates,
        room=0,
        text=TextStream(tokenizer, stop=()),
        generator=make_generator(request),
        content=segments.content(()),
        reading=reading,
        becomes=becomes,
    )
    state.take_pair()
    return state
