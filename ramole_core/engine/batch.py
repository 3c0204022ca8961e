"""One batch of different requests, from prefill to the last token: each step is ONE base forward.

Every request has its own adapters, k, method and decoding settings; the mixed layers apply to each
row only its own. Prompts are padded on the left. A row that has ended is dropped from the batch as
soon as half of the rows have.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ramole_core.composition import Plan
from ramole_core.engine.request import Generation, Request, Step, Trace
from ramole_core.engine.sampling import choose_token, make_generator
from ramole_core.engine.text import TextStream
from ramole_core.layers import Mixer, ModuleStack, stack_plans


@dataclass(frozen=True)
class Prepared:
    """A request with everything decided: tokens, adapters, and its plan at every linear layer."""

    request: Request
    prompt_ids: list[int]
    adapters: list[str]
    scores: list[float]
    plans: Mapping[str, Plan]
    """By module path; a path that is missing is the base alone."""
    room: int
    """Most tokens that may be generated: the request's wish, or what the context leaves."""


@dataclass
class _Row:
    prepared: Prepared
    text: TextStream
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    gates: list[Float[Tensor, "t layer module k"]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    ended: float = 0.0
    finish_reason: str = ""


class Batch:
    """Rows that run together. `step()` until `running` is empty, then read `generations()`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        mixer: Mixer,
        prepared: Sequence[Prepared],
        eos: frozenset[int],
    ):
        self._model, self._tokenizer, self._mixer, self._eos = model, tokenizer, mixer, eos
        self._rows = [
            _Row(
                prepared=p,
                text=TextStream(tokenizer, stop=p.request.stop),
                generator=make_generator(p.request),
            )
            for p in prepared
        ]
        self._k = max(len(p.adapters) for p in prepared)
        self._live = list(range(len(prepared)))  # row of each line of the batch's tensors
        self._stacks = self._stack(prepared)
        self._cache = DynamicCache(config=model.config)
        self._ids, self._mask = self._pad(prepared)

    @property
    def running(self) -> list[int]:
        """Indices of the requests that have not ended."""
        return [index for index, row in enumerate(self._rows) if not row.finish_reason]

    def cancel(self, index: int) -> None:
        """End one request now; the others do not feel it."""
        if not self._rows[index].finish_reason:
            self._end(self._rows[index], "cancelled")

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Step]]:
        """One base forward: the next token of every running request, with the request's index."""
        self._drop_ended()
        if not self._live:
            return []
        trace = any(self._rows[i].prepared.request.trace for i in self._live)
        logits, gates = self._forward(trace=trace)
        steps, fed = [], []
        for line, index in enumerate(self._live):
            row = self._rows[index]
            if row.finish_reason:
                fed.append(self._eos_or_zero())
                continue
            step = self._advance(row, logits[line], None if gates is None else gates[line])
            steps.append((index, step))
            fed.append(step.token)
        self._ids = torch.tensor(fed, device=self._mask.device)[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(fed), 1)], dim=1)
        return steps

    def generation(self, index: int) -> Generation:
        """The answer of one request, as far as it has come."""
        row = self._rows[index]
        end = row.ended or time.perf_counter()
        return Generation(
            text=row.text.text,
            adapters=list(row.prepared.adapters),
            scores=list(row.prepared.scores),
            trace=self._trace(row) if row.prepared.request.trace else None,
            finish_reason=row.finish_reason or "cancelled",
            prompt_tokens=len(row.prepared.prompt_ids),
            new_tokens=len(row.tokens),
            seconds=end - row.started,
            first_token_seconds=(row.first or end) - row.started,
        )

    @torch.inference_mode()
    def peek(self) -> Float[Tensor, "b v"]:
        """The next-token logits of every request, without choosing a token; spends the batch."""
        return self._forward(trace=False)[0]

    def _forward(
        self, *, trace: bool
    ) -> tuple[Float[Tensor, "b v"], Float[Tensor, "b l layer module k"] | None]:
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -self._ids.shape[1] :]
        with self._mixer.mixing(self._stacks, trace=trace):
            logits = self._model(
                input_ids=self._ids,
                attention_mask=self._mask,
                position_ids=positions,
                cache=self._cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            b, l = self._ids.shape
            gates = self._mixer.weights(b, l, self._k) if trace else None
        return logits, gates

    def _advance(
        self, row: _Row, logits: Float[Tensor, "v"], gates: Float[Tensor, "l layer module k"] | None
    ) -> Step:
        request = row.prepared.request
        token = choose_token(logits.float(), request, generator=row.generator)
        weights = None
        if gates is not None and request.trace:
            length = len(row.prepared.prompt_ids) if not row.tokens else 1
            kept = gates[-length:, ..., : len(row.prepared.adapters)]
            row.gates.append(kept)
            weights = kept[-1].numpy()
        row.first = row.first or time.perf_counter()
        row.tokens.append(token)
        ended = token in self._eos and not request.ignore_eos
        text = "" if ended else row.text.push(token)
        if row.text.stopped:
            self._end(row, "stop")
        elif ended:
            text += row.text.finish()
            self._end(row, "eos")
        elif len(row.tokens) >= row.prepared.room:
            text += row.text.finish()
            self._end(row, "length")
        return Step(token=token, text=text, weights=weights)

    def _end(self, row: _Row, reason: str) -> None:
        row.finish_reason, row.ended = reason, time.perf_counter()

    def _trace(self, row: _Row) -> Trace:
        ids = row.prepared.prompt_ids + row.tokens
        places = self._mixer.places
        k = len(row.prepared.adapters)
        weights = np.zeros((len(ids), len(places.layers), len(places.modules), k), np.float16)
        if row.gates:
            fed = torch.cat(row.gates).numpy()
            weights[: len(fed)] = fed
        return Trace(
            tokens=spell(self._tokenizer, ids),
            token_ids=ids,
            prompt_length=len(row.prepared.prompt_ids),
            adapters=list(row.prepared.adapters),
            layers=list(places.layers),
            modules=list(places.modules),
            weights=weights,
        )

    def _stack(self, prepared: Sequence[Prepared]) -> dict[str, ModuleStack]:
        stacks = {
            path: stack_plans([p.plans.get(path) for p in prepared], k=self._k)
            for path in self._mixer.places.at
        }
        return {path: stack for path, stack in stacks.items() if stack is not None}

    def _pad(self, prepared: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
        longest = max(len(p.prompt_ids) for p in prepared)
        ids = torch.full((len(prepared), longest), self._eos_or_zero())
        mask = torch.zeros_like(ids)
        for line, p in enumerate(prepared):
            ids[line, -len(p.prompt_ids) :] = torch.tensor(p.prompt_ids)
            mask[line, -len(p.prompt_ids) :] = 1
        return ids.to(self._model.device), mask.to(self._model.device)

    def _drop_ended(self) -> None:
        kept = [n for n, index in enumerate(self._live) if not self._rows[index].finish_reason]
        if len(kept) * 2 > len(self._live) and len(kept) > 0:
            return
        self._live = [self._live[n] for n in kept]
        if not kept:
            self._cache, self._stacks = DynamicCache(), {}
            return
        lines = torch.tensor(kept, device=self._mask.device)
        self._ids, self._mask = self._ids[lines], self._mask[lines]
        self._cache.batch_select_indices(lines)
        self._stacks = {path: stack.select(lines) for path, stack in self._stacks.items()}

    def _eos_or_zero(self) -> int:
        return min(self._eos, default=0)


def spell(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token by itself; half a character shows as the replacement sign."""
    return [str(tokenizer.decode([token], clean_up_tokenization_spaces=False)) for token in ids]
