"""A decode step that can run again: the same requests decode, mixed by the same adapters, and keys
and values lie where they lay. Only tokens, places and pages are others."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ramole_core.engine.kv import KvCache
from ramole_core.layers import BatchMix, Forward, RowMix


@dataclass(frozen=True)
class CapturedStep:
    """What a step that was kept stands for, and what it reads of its tokens."""

    batch: BatchMix
    traced: tuple[int, ...]
    kv: KvCache
    places: int
    """Where keys and values lay: the version of their memory."""
    forward: Forward
    ids: Tensor
    positions: Tensor

    def fits(self, mixes: Sequence[RowMix], traced: Sequence[int], kv: KvCache) -> bool:
        """Whether a step of one token for each of these is this one again."""
        return (
            kv is self.kv
            and self.batch.version == self.batch.bank.version
            and self.traced == tuple(traced)
            and len(mixes) == len(self.batch.rows)
            and all(a is b for a, b in zip(mixes, self.batch.rows, strict=True))
            and kv.memory.version == self.places
        )
