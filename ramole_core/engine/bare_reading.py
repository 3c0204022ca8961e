"""Prompts read by the base alone, beside the batch, for what goes into its layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.engine.isolated_forward import IsolatedForward, Part
from ramole_core.engine.placement import Placement, Placer
from ramole_core.engine.prompt_means import mean_of, watch_sums
from ramole_core.engine.reference import watch_inputs
from ramole_core.engine.segments import Segment, Segments
from ramole_core.layers import Layout
from ramole_core.request import Request
from ramole_core.turns import Source, never


class BareReader:
    """A reader of prompts by the base alone; thread-safe."""

    def __init__(
        self, model: PreTrainedModel, layout: Layout, *, placer: Placer, alone: IsolatedForward
    ):
        self._model, self._layout = model, layout
        self._placer, self._alone = placer, alone

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

    def _jobs(self, prompts: Sequence[Sequence[int]]) -> list[tuple[Segments, Sequence[int]]]:
        bare = self.placement()
        return [(Segments((Segment(len(ids), bare),)), ids) for ids in prompts]
