"""Replay a recorded decode step on a CPU without Python: the same kernels on the same memory.

The second step of its sizes is recorded (`capture.py`), those after it run the recording, also of
other rows, whose tables are filled into its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ramole_core.engine.capture import Recording
from ramole_core.engine.captured_step import CapturedStep
from ramole_core.engine.flat_cache import FlatCache
from ramole_core.kernels.compiled import view


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
