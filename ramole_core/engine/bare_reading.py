"""Prompts read by the base alone, beside the batch, for what goes into its layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.composition import Candidate, Response
from ramole_core.engine.isolated_forward import IsolatedForward, Part
from ramole_core.engine.placement import Placement, Placer
from ramole_core.engine.prompt import Prompt
from ramole_core.engine.prompt_means import mean_of, watch_sums
from ramole_core.engine.reference import response_of, watch_inputs
from ramole_core.engine.segments import Segment, Segments
from ramole_core.engine.store import UnitStore
from ramole_core.kernels.threads import kernels_alone
from ramole_core.layers import Layout
from ramole_core.request import Request
from ramole_core.turns import Source, never


class BareReader:
    """A reader of prompts by the base alone; thread-safe."""

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        *,
        placer: Placer,
        alone: IsolatedForward,
        store: UnitStore,
    ):
        self._model, self._layout = model, layout
        self._placer, self._alone, self._store = placer, alone, store

    def placement(self) -> Placement:
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
        def watch(parts: Sequence[Part]) -> Iterator[None]:
            ends = torch.tensor([end - start for _, start, end in parts]).cumsum(0) - 1
            last = [place for place, (n, _, end) in enumerate(parts) if end == len(prompts[n])]
            if not last:
                yield
                return
            with watch_inputs(self._model, self._layout, ends[last]) as inputs:
                yield
            every = inputs()
            for row, place in enumerate(last):
                found[parts[place].prompt] = [x[:, row] for x in every]

        jobs = self._jobs(prompts)
        self._alone.read(jobs, full="", watch=watch, source=source, cancelled=cancelled)
        every = [found[n] for n in range(len(prompts))]
        return [torch.stack(group, dim=1) for group in zip(*every, strict=True)]

    def means(self, ids: Sequence[int]) -> Mapping[str, Tensor]:
        """The mean input of each block over one prompt, by path."""
        sums: dict[str, Tensor] = {}

        def watch(parts: Sequence[Part]):
            ((_, start, end),) = parts
            return watch_sums(self._model, self._layout.sites.blocks, [(0, end - start)], [sums])

        self._alone.read(self._jobs([ids]), full="", watch=watch)
        return mean_of(sums, len(ids))

    def examine(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[Sequence[Candidate]],
        *,
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> list[list[Response]]:
        """Each candidate's response to the end of its prompt; the base reads each prompt once for
        all of its candidates.

        The batch goes on meanwhile, and sources take turns. Raises Cancelled where `cancelled` is
        true before all are read.
        """
        if not prompts:
            return []
        ids = [prompt.ids for prompt in prompts]
        inputs = self.ends(ids, source=source, cancelled=cancelled)
        with kernels_alone():
            return [
                [self._response(one, [x[:, n] for x in inputs]) for one in part]
                for n, part in enumerate(candidates)
            ]

    @torch.inference_mode()
    def _response(self, one: Candidate, inputs: Sequence[Tensor]) -> Response:
        return response_of(self._store.get(one.checksum, one.load), inputs)

    def _jobs(self, prompts: Sequence[Sequence[int]]) -> list[tuple[Segments, Sequence[int]]]:
        bare = self.placement()
        return [(Segments((Segment(len(ids), bare),)), ids) for ids in prompts]
