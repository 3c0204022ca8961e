"""Prompts read beside the batch: for the next tokens, or for what goes into the base's layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ramole_core.composition import Candidate, Response
from ramole_core.engine.decoding import spell
from ramole_core.engine.isolated_forward import Chunk, IsolatedForward, PromptJob
from ramole_core.engine.layer_inputs import mean_of, response_of, watch_inputs, watch_sums
from ramole_core.engine.placement import Placement
from ramole_core.engine.prompt import Prepared, Prompt
from ramole_core.engine.segments import Segment, SegmentMaker, Segments
from ramole_core.errors import fault_of
from ramole_core.kernels.threads import kernels_alone
from ramole_core.request import Request
from ramole_core.turns import Source, never

FULL = "The adapters in use leave no room for these now; try again in a moment."
MAX_CACHED = 16
"""Prompts whose means are kept, one vector a block."""


class Likely(NamedTuple):
    """The likeliest next tokens, best first."""

    tokens: list[tuple[str, float]]
    """With their probabilities."""
    ids: list[int]


class PromptReader:
    """A reader of prompts; thread-safe. Raises RamoleError where the bank is full of adapters in
    use."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        maker: SegmentMaker,
        alone: IsolatedForward,
    ):
        self._model, self._tokenizer = model, tokenizer
        self._maker, self._placer, self._alone = maker, maker.placer, alone
        self.means = lru_cache(MAX_CACHED)(self._means)
        """The mean input of each block over one prompt, a tuple, by path."""

    # --- as requests would have them ------------------------------------------------------------

    def next_tokens(
        self, asked: Sequence[Prepared], ids: Sequence[int], *, top: int
    ) -> list[Likely]:
        """The `top` likeliest tokens after `ids`, with their probabilities."""
        spread = self._logits(asked, [list(ids)] * len(asked)).softmax(-1)
        found = spread.topk(min(top, spread.shape[-1]))
        return [
            Likely(list(zip(spell(self._tokenizer, ids), chances, strict=True)), ids)
            for ids, chances in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]

    def next_logits(self, asked: Sequence[Prepared]) -> Float[Tensor, "b v"]:
        """The logits after each of these prompts; float32 on the CPU, for comparing engines."""
        return self._logits(asked, [one.prompt.ids for one in asked]).cpu()

    def _logits(
        self, asked: Sequence[Prepared], every: Sequence[list[int]]
    ) -> Float[Tensor, "b v"]:
        """The logits, float32, after these tokens of each request."""
        jobs = [
            PromptJob(
                self._maker.segments(one, length=len(ids)),
                ids,
                becomes=len(one.prompt.ids) + one.prompt.room,
            )
            for one, ids in zip(asked, every, strict=True)
        ]
        logits, faults = self._alone.read(jobs, full=FULL)
        for n, error in faults.items():
            raise fault_of(error, asked[n].request.method)
        return logits.float()

    # --- by the base alone ----------------------------------------------------------------------

    def bare(self) -> Placement:
        """Place a row without adapters."""
        return self._placer.prepare(Request("made up", method="base"), ())

    def ends(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> list[Tensor]:
        """By group, [L, b, i]: what goes into its layer in each block at the last token of each
        prompt."""
        found: dict[int, list[Tensor]] = {}

        @contextmanager
        def watch(parts: Sequence[Chunk]) -> Iterator[None]:
            ends = torch.tensor([end - start for _, start, end in parts]).cumsum(0) - 1
            last = [place for place, (n, _, end) in enumerate(parts) if end == len(prompts[n])]
            if not last:
                yield
                return
            with watch_inputs(self._model, self._placer.layout, ends[last]) as inputs:
                yield
            every = inputs()
            for row, place in enumerate(last):
                found[parts[place].prompt] = [x[:, row] for x in every]

        jobs = self._bare_jobs(prompts)
        self._alone.read(jobs, full="", watch=watch, source=source, cancelled=cancelled)
        every = [found[n] for n in range(len(prompts))]
        return [torch.stack(group, dim=1) for group in zip(*every, strict=True)]

    def _means(self, ids: tuple[int, ...]) -> Mapping[str, Tensor]:
        sums: dict[str, Tensor] = {}

        def watch(parts: Sequence[Chunk]):
            ((_, start, end),) = parts
            return watch_sums(
                self._model, self._placer.layout.sites.blocks, [(0, end - start)], [sums]
            )

        self._alone.read(self._bare_jobs([ids]), full="", watch=watch)
        return mean_of(sums, len(ids))

    def examine(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[Sequence[Candidate]],
        *,
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> list[list[Response]]:
        """Each candidate's response to the end of its prompt, which is read once for all of its
        candidates; as `Backend.examine`."""
        if not prompts:
            return []
        inputs = self.ends([one.ids for one in prompts], source=source, cancelled=cancelled)
        with kernels_alone(), torch.inference_mode():
            return [
                [
                    response_of(
                        self._placer.store.get(one.checksum, one.load), [x[:, n] for x in inputs]
                    )
                    for one in part
                ]
                for n, part in enumerate(candidates)
            ]

    def _bare_jobs(self, prompts: Sequence[Sequence[int]]) -> list[PromptJob]:
        bare = self.bare()
        return [PromptJob(Segments((Segment(len(ids), bare),)), ids) for ids in prompts]
