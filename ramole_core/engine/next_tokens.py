"""The next tokens after some others, as requests would have them, read beside the batch."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.engine.decoding import spell
from ramole_core.engine.isolated_forward import IsolatedForward
from ramole_core.engine.prompt import Prepared
from ramole_core.engine.segments import SegmentMaker
from ramole_core.errors import fault_of

FULL = "The adapters in use leave no room for these now; try again in a moment."


class Likely(NamedTuple):
    """The likeliest next tokens, best first."""

    tokens: list[tuple[str, float]]
    """With their probabilities."""
    ids: list[int]


class NextTokens:
    """A reader of next tokens; thread-safe. Its methods raise RamoleError where the bank is full of
    adapters in use."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, maker: SegmentMaker, alone: IsolatedForward
    ):
        self._tokenizer, self._maker, self._alone = tokenizer, maker, alone

    def likeliest(self, asked: Sequence[Prepared], ids: Sequence[int], *, top: int) -> list[Likely]:
        """The `top` likeliest tokens after `ids`, with their probabilities, as each request would
        have them."""
        spread = self._logits(asked, [list(ids)] * len(asked)).softmax(-1)
        found = spread.topk(min(top, spread.shape[-1]))
        return [
            Likely(list(zip(spell(self._tokenizer, ids), chances, strict=True)), ids)
            for ids, chances in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]

    def logits(self, asked: Sequence[Prepared]) -> Float[Tensor, "b v"]:
        """The logits after each of these prompts, as each request would have them; float32 on the
        CPU, for comparing engines."""
        return self._logits(asked, [list(one.prompt.ids) for one in asked]).cpu()

    def _logits(
        self, asked: Sequence[Prepared], every: Sequence[list[int]]
    ) -> Float[Tensor, "b v"]:
        """The logits, float32, after these tokens of each request."""
        jobs = [
            (self._maker.segments(one, length=len(ids)), ids)
            for one, ids in zip(asked, every, strict=True)
        ]
        lengths = [len(one.prompt.ids) + one.prompt.room for one in asked]
        logits, faults = self._alone.read(jobs, full=FULL, becomes=lengths)
        for n, error in faults.items():
            raise fault_of(error, asked[n].request.method)
        return logits.float()
