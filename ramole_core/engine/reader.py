"""Read and check requests without the model, by its tokenizer and a few facts.

A process without the model can so count a request's tokens, and refuse what could never run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ramole_core.answer import Selection
from ramole_core.base.chat_template import check_known, turn_end_of
from ramole_core.base.model import BaseModel
from ramole_core.composition import Candidate, find_method
from ramole_core.engine.answer_format import AnswerFormat
from ramole_core.engine.decoding import TextStream
from ramole_core.engine.fitting import Fit, FitCache, check_turns
from ramole_core.engine.pair_reading import encode_pairs
from ramole_core.engine.placement import Weights
from ramole_core.engine.prompt import Prepared, Prompt, Turn, leave_out, read_prompt
from ramole_core.engine.switches import check_later_weights, check_switches
from ramole_core.errors import RamoleError
from ramole_core.layers import Layout
from ramole_core.request import Request


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a running model that its callers need: plain data."""

    layout: Layout
    """Its mixed layers."""
    context: int
    """Most tokens of a prompt and its answer together."""
    eos: frozenset[int]
    """Tokens that end an answer."""
    vocabulary: int
    """Number of tokens in its embedding."""
    exact: bool
    """Whether a token's bits are independent of the other requests."""
    quantization: str
    dtype: str
    """`bfloat16`, ..."""
    checksum: str
    """SHA-256 of its weights, before they were quantised."""
    notes: tuple[str, ...] = ()
    """Notes for its users, a sentence each."""


class RequestReader:
    """Prepare requests for submission."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, facts: ModelFacts, *, weights: Weights):
        self.tokenizer = tokenizer
        self.facts, self._weights = facts, weights
        self._fit_cache = FitCache()

    def read(self, request: Request) -> Prompt:
        """The request's turns as token ids; raises RamoleError where the context is too short, or
        the model lacks a token."""
        prompt = read_prompt(request, self.tokenizer, context=self.facts.context)
        self._check_known(prompt.ids)
        return prompt

    def prepare(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        prompt: Prompt | None = None,
        *,
        earlier: Sequence[Turn] = (),
    ) -> Prepared:
        """The request with its adapters and its prompt; `earlier` are the turns that its prompt has
        before the one that is answered. Raises RamoleError where a method cannot use them."""
        asked = (*earlier, Turn(request.turns[-1], tuple(candidates)))
        return self.complete(Prepared(request, asked, prompt or self.read(request)))

    def complete(self, asked: Prepared) -> Prepared:
        """Replace given adapters by those that the methods bring, and add the end of a turn as a
        stop string for a model without turns."""
        request, prompt = self._within_its_turn(asked.request), asked.prompt
        self._check_prefix(request)
        self._check_bias(request)
        format_of(request, self.tokenizer, self.facts)
        if len(asked.turns) != len(prompt.parts):
            raise ValueError(f"{len(asked.turns)} turns for a prompt of {len(prompt.parts)}")
        turns = tuple(map(self._with_own, asked.turns))
        check_switches(request, turns[-1].candidates, self.facts.layout)
        check_later_weights(request, turns[-1].candidates)
        prepared = replace(asked, request=request, turns=turns)
        if prepared.needs_fit:
            check_turns(prepared)
        last = leave_out(prepared).candidates
        selection = Selection(tuple(one.name for one in last), tuple(one.score for one in last))
        return replace(prepared, selection=selection)

    def fit(self, prepared: Prepared) -> Fit | None:
        """The search for the request's weights, at its start or known already; None where it needs
        none. Raises RamoleError where an example is too long, or the method cannot search."""
        if not prepared.needs_fit:
            return None
        turn = prepared.turns[-1].request
        pairs = encode_pairs(turn, self.tokenizer, context=self.facts.context)
        for pair in pairs:
            self._check_known((*pair.ids, *pair.targets))
        return Fit(prepared, pairs, self._fit_cache)

    def _check_known(self, ids: Sequence[int]) -> None:
        check_known(ids, self.tokenizer, vocabulary=self.facts.vocabulary)

    def _check_prefix(self, request: Request) -> None:
        """Raise RamoleError where `prefix_ids` has a token that the base lacks, or an answer that
        has ended."""
        vocabulary, text = self.facts.vocabulary, TextStream(self.tokenizer, stop=request.stop)
        if (largest := max(request.prefix_ids, default=0)) >= vocabulary:
            raise RamoleError(
                f"prefix_ids has {largest}, but the base model's tokens are 0 to {vocabulary - 1}; "
                "give tokens of this base, such as a trace has."
            )
        for n, token in enumerate(request.prefix_ids, 1):
            if token in self.facts.eos and not request.ignore_eos:
                raise RamoleError(
                    f"Token {n} of prefix_ids, {token}, ends the answer; leave it out, or pass "
                    "ignore_eos=True."
                )
            text.push(token)
            if text.stopped:
                raise RamoleError(
                    f"At token {n} prefix_ids has a stop string, so the answer has ended; give "
                    "fewer tokens, or other stop strings."
                )

    def _check_bias(self, request: Request) -> None:
        """Raise RamoleError where `logit_bias` names a token that the base lacks."""
        largest = max(request.logit_bias or (), default=0)
        if largest >= self.facts.vocabulary:
            raise RamoleError(
                f"logit_bias has token {largest}, but the base model's tokens are 0 to "
                f"{self.facts.vocabulary - 1}; give tokens of this base."
            )

    def _within_its_turn(self, request: Request) -> Request:
        end = turn_end_of(self.tokenizer, raw=request.raw)
        if not end or end in request.stop:
            return request
        return replace(request, stop=(*request.stop, end))

    def _with_own(self, turn: Turn) -> Turn:
        """The turn with the adapters that its method brings."""
        method = find_method(turn.request.method)
        trained = None if turn.request.weights else self._weights(method)
        method.check(turn.candidates, trained)
        return Turn(turn.request, tuple(method.bring(turn.candidates, trained)))


def format_of(
    request: Request, tokenizer: PreTrainedTokenizerBase, facts: ModelFacts
) -> AnswerFormat | None:
    """The format of this request's answer; None: any text. Raises RamoleError as `AnswerFormat`."""
    if request.json_schema is None:
        return None
    return AnswerFormat(request, tokenizer, eos=facts.eos, vocabulary=facts.vocabulary)


def facts_of_model(base: BaseModel, *, layout: Layout, exact: bool) -> ModelFacts:
    vocabulary = int(base.model.get_input_embeddings().get_parameter("weight").shape[0])
    return ModelFacts(
        layout=layout,
        context=context_of(base.model),
        eos=frozenset(token for token in _end_tokens(base) if token < vocabulary),
        vocabulary=vocabulary,
        exact=exact,
        quantization=base.quantization,
        dtype=str(base.dtype).removeprefix("torch."),
        checksum=base.checksum,
        notes=base.notes,
    )


def context_of(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if isinstance(found := getattr(config, name, None), int):
            return found
    raise RamoleError(
        "The base model's config.json does not say how many tokens it reads "
        "(max_position_embeddings); add it, or choose another base model."
    )


def _end_tokens(base: BaseModel) -> frozenset[int]:
    """End tokens of the generation config, else the tokenizer's; 0 is a token like any other."""
    generation = getattr(base.model, "generation_config", None)
    for found in (getattr(generation, "eos_token_id", None), base.tokenizer.eos_token_id):
        tokens = found if isinstance(found, list) else [found]
        if known := [int(token) for token in tokens if token is not None]:
            return frozenset(known)
    return frozenset()
