"""A decode step that can be replayed: the same requests and adapters, keys and values in the same
memory; only tokens, positions and pages change."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ramole_core.engine.kv import KvCache
from ramole_core.layers import BatchMix, Forward, RowMix


@dataclass(frozen=True)
class CapturedStep:
    """The requests of a kept step, and the tensors that it reads."""

    batch: BatchMix
    traced: tuple[int, ...]
    kv: KvCache
    places: int
    """Where keys and values lay: the version of their memory."""
    forward: Forward
    ids: Tensor
    positions: Tensor

    def fits(self, mixes: Sequence[RowMix], traced: Sequence[int], kv: KvCache) -> bool:
        """Whether a step of one token for each of these can replay this one."""
        return (
            kv is self.kv
            and self.batch.version == self.batch.bank.version
            and self.traced == tuple(traced)
            and len(mixes) == len(self.batch.rows)
            and all(a is b for a, b in zip(mixes, self.batch.rows, strict=True))
            and kv.memory.version == self.places
        )
