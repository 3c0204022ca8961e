"""Decode steps that are captured once and replayed.

Keys, values and adapters stay in the same memory; only tokens, positions, pages and what the tables
of the rows hold change. On a CPU a replay runs the same kernels without Python: the second step of
its sizes is recorded (`capture.py`), those after it run the recording, also of other rows, whose
tables are filled into its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ramole_core.engine.capture import Recording
from ramole_core.engine.flat_cache import FlatCache
from ramole_core.engine.kv import KvCache
from ramole_core.kernels.compiled import view
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
        return same and self.batch.bank.tensors.made == self.pages

    def take(self, batch: BatchMix) -> None:
        """Refill its tables with those of other rows, of the same sizes; on a CPU."""
        if batch is not self.batch:
            self.batch.take(batch)
            self.forward.clear()


@dataclass
class Replay:
    """A recorded step."""

    step: CapturedStep
    logits: Tensor
    recording: Recording
    _cache: FlatCache | None = None

    def run(self, ids: Sequence[int], cache: FlatCache) -> Tensor:
        """Logits [b, v] of these tokens, one a request, in memory of their own."""
        self.step.ids.numpy()[0] = ids
        self.step.positions.numpy()[:] = cache.positions.numpy()
        cache.take_over(self.recording.program)
        self._cache = cache  # its arrays are read while the program runs
        self.recording.run()
        return copied(self.logits)


def copied(logits: Tensor) -> Tensor:
    """Copy a tensor in this thread alone: PyTorch would wake its own threads for it, which wait for
    the cores that the kernels' team has (`kernels.likeliest`)."""
    return torch.from_numpy(view(logits).copy()).view(logits.dtype)
