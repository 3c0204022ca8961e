"""A request prepared for the engine: its turns as token ids, and their adapters.

A conversation is rendered once, by the chat template over everything. An earlier turn ends where
the rendering up to and including its assistant's message stops being a common prefix of the whole,
in token ids: a template that closes a conversation in its own way, or that leaves something out of
earlier turns, moves a boundary by those tokens, and no token of the whole is ever another one.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile

from transformers import PreTrainedTokenizerBase

from ramole_core.answer import Selection
from ramole_core.composition import Candidate, find_method
from ramole_core.errors import RamoleError, first_line
from ramole_core.request import Request
from ramole_core.request_parts import TURN, Exchange, read_history, read_without

Message = dict[str, str]


@dataclass(frozen=True)
class Prompt:
    """A tokenized prompt."""

    parts: tuple[tuple[int, ...], ...]
    """Token ids of each turn, oldest first; the last one is the turn that is answered."""
    room: int
    """Most tokens that the answer may have, those that are given included."""
    dropped: int = 0
    """Turns that were dropped from the front."""

    @property
    def ids(self) -> list[int]:
        return list(chain.from_iterable(self.parts))


@dataclass(frozen=True)
class Turn:
    """One turn of a request and its adapters."""

    request: Request
    """Of this turn alone (`Request.turns`): text, method, options, adapters and weights."""
    candidates: tuple[Candidate, ...]
    """Its adapters; none where the base alone answers."""


@dataclass(frozen=True)
class Prepared:
    """A request that can be submitted."""

    request: Request
    turns: tuple[Turn, ...]
    """One for each part of the prompt."""
    prompt: Prompt
    selection: Selection = Selection()
    """The adapters that answer, those that a method brings among them."""
    later: tuple[Turn, ...] = ()
    """The prompt's other parts, which are answered after this one."""
    streamed_ids: tuple[int, ...] = ()
    """Tokens of the answer that an engine had streamed before it was lost, those of the request's
    own `prefix_ids` not counted: they are read, and the last one is sent again."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return self.turns[-1].candidates

    @property
    def needs_fit(self) -> bool:
        """Whether weights have to be found before the answer."""
        turn = self.turns[-1]
        fits = find_method(turn.request.method).row.fits
        return fits and bool(turn.request.examples) and bool(turn.candidates)

    def bare(self) -> "Prepared":
        """The same request answered by the base alone."""
        turns = tuple(Turn(turn.request.by_base(), ()) for turn in self.turns)
        return replace(self, request=self.request.by_base(), turns=turns)


def encode_prompt(request: Request, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt without earlier turns, as the model sees it; training uses the same.

    Raises RamoleError where the chat template refuses it.
    """
    if request.prompt_ids:
        return list(request.prompt_ids)
    if request.raw:
        return list(tokenizer(request.prompt)["input_ids"])
    return _encode(_messages(request, ()), tokenizer)


def read_prompt(request: Request, tokenizer: PreTrainedTokenizerBase, *, context: int) -> Prompt:
    """The request's turns as token ids; `context` is the most tokens of prompt and answer together.

    Raises RamoleError where they do not fit, and `drop_turns` does not help.
    """
    history = read_history(request.history)
    if not history:
        ids = encode_prompt(request, tokenizer)
        return Prompt((tuple(ids),), room_for_answer(request, len(ids), context=context))

    def whole(dropped: int) -> list[int]:
        return _encode(_messages(request, history[dropped:]), tokenizer)

    def fits(dropped: int) -> bool:
        return len(whole(dropped)) + request.max_new_tokens <= context

    dropped = 0
    if request.drop_turns:
        dropped = bisect_left(range(len(history)), True, key=fits)
    ids = whole(dropped)
    kept = history[dropped:]
    room = room_for_answer(request, len(ids), context=context, turns=len(kept) + 1)
    return Prompt(_split(request, kept, ids, tokenizer), room, dropped)


def room_for_answer(request: Request, length: int, *, context: int, turns: int = 1) -> int:
    """The most tokens that the answer may have; raises RamoleError where the prompt, of `turns`
    turns and `length` tokens, fills the context."""
    if length >= context:
        over = length - context + 1
        if turns > 1:
            raise RamoleError(
                f"The conversation has {length} tokens in {turns} turns, and the base model reads "
                f"at most {context} with its answer; shorten it by {over} tokens or more, or pass "
                "drop_turns=True."
            )
        raise RamoleError(
            f"The prompt has {length} tokens, and the base model reads at most {context} with its "
            f"answer; shorten the prompt by {over} tokens or more."
        )
    room = min(request.max_new_tokens, context - length)
    if len(request.prefix_ids) >= room:
        raise RamoleError(
            f"prefix_ids has {len(request.prefix_ids)} tokens of the answer, and beside a prompt "
            f"of {length} the base model reads at most {context}, so it has ended; shorten the "
            "prompt."
        )
    return room


# --- the template ---------------------------------------------------------------------------------


def _messages(request: Request, history: Sequence[Exchange]) -> list[Message]:
    if request.messages:
        return [{"role": role, "content": text} for role, text in request.messages]
    said = [] if request.system is None else [{"role": "system", "content": request.system}]
    for turn in history:
        said.append({"role": "user", "content": turn.user})
        said.append({"role": "assistant", "content": turn.assistant})
    return [*said, {"role": "user", "content": request.prompt}]


def _split(
    request: Request,
    history: Sequence[Exchange],
    ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[tuple[int, ...], ...]:
    """Split `ids` by turn; earlier turns may be empty."""
    if not history:
        return (tuple(ids),)
    said, ends = _messages(request, history), [0]
    first = len(said) - 2 * len(history) - 1
    begun = [
        _render(said[: first + 2 * n + 2], tokenizer, answering=False) for n in range(len(history))
    ]
    for start in tokenizer(begun, add_special_tokens=False)["input_ids"]:
        same = (a == b for a, b in zip(start, ids, strict=False))
        common = sum(1 for _ in takewhile(bool, same))
        ends.append(min(max(common, ends[-1]), len(ids) - 1))
    ends.append(len(ids))
    return tuple(tuple(ids[start:end]) for start, end in zip(ends, ends[1:], strict=False))


def _encode(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of the rendering, with the beginning of an answer."""
    text = _render(messages, tokenizer, answering=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _render(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, answering: bool
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=answering
        )
    except Exception as error:  # a template is a program, and refuses in its own way
        reason = first_line(error).rstrip(".")
        raise RamoleError(
            f"The base model's chat template refuses this conversation ({reason}); "
            + _instead(messages)
        ) from None
    return str(text)


def _instead(messages: Sequence[Message]) -> str:
    """Advice for messages that the template refuses."""
    if messages[0]["role"] == "system":
        return "leave out the system prompt."
    if len(messages) > 1:
        return "ask in one turn, or with raw=True."
    return "ask with raw=True, or set RAMOLE_CHAT_TEMPLATE to another template."


def leave_out(prepared: Prepared) -> Prepared:
    """The request without what its `without` leaves out of its turn."""
    request, turn = prepared.request, prepared.turns[-1]
    every = read_without(request.without)
    gone = {one.adapter for one in every if one.start == TURN}
    if not gone:
        return prepared
    method, count = find_method(turn.request.method), len(turn.candidates)
    mixed = turn.candidates[: count if method.brings else method.experts(count)]
    left = [n for n, one in enumerate(mixed) if not gone & {None, one.name}]
    others = [one for one in every if one.start != TURN]
    return keep(replace(prepared, request=replace(request, without=others)), left)


def keep(prepared: Prepared, left: Collection[int]) -> Prepared:
    """The request with only these of the adapters of the turn that is answered, by number."""
    *earlier, turn = prepared.turns
    request, asked = prepared.request, turn.request
    if not left:
        bare = prepared.bare()
        return replace(bare, request=replace(bare.request, effects=request.effects))
    if find_method(asked.method).brings:  # it takes all that it knows, or nothing
        start = len(prepared.prompt.ids) - len(prepared.prompt.parts[-1])
        off = [
            (one.name, None, None, start) for n, one in enumerate(turn.candidates) if n not in left
        ]
        return replace(prepared, request=replace(request, without=(*request.without, *off)))
    kept = tuple(one for n, one in enumerate(turn.candidates) if n in left)
    if asked.weights is not None:
        weights = [weight for n, weight in enumerate(asked.weights) if n in left]
        asked = replace(asked, adapters=[one.name for one in kept], weights=weights)
    return replace(prepared, turns=(*earlier, Turn(asked, kept)))
