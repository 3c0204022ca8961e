"""Forwards of whole prompts beside the batch, in a cache of their own; the same numbers.

For looking: the next token at some position, or what goes into the layers at a prompt's end.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.engine.kv import KvCache
from ramole_core.engine.model_runner import ModelRunner, Piece
from ramole_core.engine.pages import pages_of
from ramole_core.engine.placement import Placer
from ramole_core.engine.segments import Segments


class IsolatedForward:
    """A forward in a cache of its own; the caller holds the engine's lock, in inference mode."""

    def __init__(self, model: PreTrainedModel, *, runner: ModelRunner, placer: Placer):
        self._model, self._runner, self._placer = model, runner, placer
        self._page_bytes = KvCache(model, limit=0).page_bytes

    def read(
        self,
        asked: Sequence[tuple[Segments, Sequence[int]]],
        *,
        full: str,
        becomes: Sequence[int] = (),
    ) -> tuple[Float[Tensor, "b v"], dict[int, Exception]]:
        """Logits after each prompt's last token, and errors of the methods' own scores, by index.

        `becomes`: how long the request of each may become, where that is more than its tokens. The
        last tokens of all are fed in one forward where each has one segment. Raises
        RamoleError with the sentence `full` where their adapters have no room together now.
        """
        pages = sum(pages_of(len(ids)) for _, ids in asked)
        kv = KvCache(self._model, limit=pages * self._page_bytes)
        sequences = [
            kv.open(segments.content(ids)[:1], len(ids), becomes=length)
            for (segments, ids), length in zip(asked, becomes or [0] * len(asked), strict=True)
        ]
        logits: dict[int, Tensor] = {}
        faults: dict[int, Exception] = {}
        while left := [n for n in range(len(asked)) if n not in logits]:
            runs = []
            for n in left:
                segments, ids = asked[n]
                sequence = sequences[n]
                assert sequence is not None
                segment = segments.all[segments.at(sequence.length)]
                runs.append((segment.placement, ids[sequence.length : segment.end]))
            with self._placer.pinned([placement for placement, _ in runs], full) as rows:
                pieces = [
                    Piece(sequences[n], part, row)  # pyright: ignore[reportArgumentType]
                    for n, row, (_, part) in zip(left, rows, runs, strict=True)
                ]
                output = self._runner.forward(pieces, kv)
            for place, (n, (_, part)) in enumerate(zip(left, runs, strict=True)):
                segments, ids = asked[n]
                sequence = sequences[n]
                assert sequence is not None
                if place in output.faults:
                    faults[n], logits[n] = output.faults[place], output.logits[place]
                    continue
                start = sequence.length
                kv.commit(sequence, segments.content(part, start), None, traced=False)
                if sequence.length == len(ids):
                    logits[n] = output.logits[place]
        return torch.stack([logits[n] for n in range(len(asked))]), faults
