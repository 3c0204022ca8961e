"""A decode step that runs again without Python: while the same requests decode, each step calls the
same kernels on the same memory, and only tokens, places and pages are others.

The second step of a batch is written down (`capture.py`), those after it run the recording.
"""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch
from torch import Tensor

from ramole_core.engine.attention import FlatCache
from ramole_core.engine.capture import Recording
from ramole_core.engine.kv import KvCache
from ramole_core.kernels.compiled import view
from ramole_core.layers import BatchMix, Forward, RowMix


@dataclass
class Replay:
    """A step that was written down, and what it stands for."""

    batch: BatchMix
    traced: tuple[int, ...]
    kv: KvCache
    places: int
    """Where keys and values lay: the version of their memory."""
    recording: Recording
    forward: Forward
    ids: Tensor
    positions: Tensor
    logits: Tensor
    _cache: FlatCache | None = None

    def fits(self, mixes: Many[RowMix], traced: Many[int], kv: KvCache) -> bool:
        """Whether a step of one token for each of these is this one again."""
        return (
            kv is self.kv
            and self.batch.version == self.batch.bank.version
            and self.traced == tuple(traced)
            and len(mixes) == len(self.batch.rows)
            and all(a is b for a, b in zip(mixes, self.batch.rows, strict=True))
            and kv.memory.version == self.places
        )

    def run(self, ids: Many[int], cache: FlatCache) -> Tensor:
        """Logits [b, v] of these tokens, one of each request, in their own memory."""
        self.ids.numpy()[0] = ids
        self.positions.numpy()[:] = cache.positions.numpy()
        cache.take_over(self.recording.program)
        self._cache = cache  # its arrays are read while the program runs
        self.recording.run()
        return copied(self.logits)


def copied(logits: Tensor) -> Tensor:
    """The same in memory of its own, by this thread alone: PyTorch would wake a team for it, which
    waits for the cores that the kernels' team has (`kernels.likeliest`)."""
    return torch.from_numpy(view(logits).copy()).view(logits.dtype)
