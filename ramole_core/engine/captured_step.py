"""A decode step that can be replayed: keys, values and adapters in the same memory; only tokens,
positions, pages and what the tables of the rows hold change."""

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
    pages: int
    """Where adapters lay: the version of the bank's memory."""
    forward: Forward
    ids: Tensor
    positions: Tensor

    def fits(self, mixes: Sequence[RowMix], traced: Sequence[int], kv: KvCache) -> bool:
        """Whether a step of one token for each of these rows is this one again."""
        return (
            self.lies_in(kv)
            and self.batch.version == self.batch.bank.version
            and self.traced == tuple(traced)
            and len(mixes) == len(self.batch.rows)
            and all(a is b for a, b in zip(mixes, self.batch.rows, strict=True))
        )

    def lies_in(self, kv: KvCache) -> bool:
        """Whether all that it reads is still where it was."""
        same = kv is self.kv and kv.memory.version == self.places
        return same and self.batch.bank.made == self.pages

    def take(self, batch: BatchMix) -> None:
        """Refill its tables with those of other rows, of the same sizes; on a CPU."""
        if batch is not self.batch:
            self.batch.take(batch)
            self.forward.clear()
