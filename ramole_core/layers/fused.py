"""Mixing in one launch a group (`triton_mixing.py`), with PyTorch as the fallback on any device."""

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.layers.batch_mix import BatchMix

log = logging.getLogger(__name__)
MAX_FUSED = 64
"""Tokens up to which each may read its own pages. Of more, as a prompt has, many read the same
pages, and products that read each page once for all of them are ahead."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TABLES = ("pages", "slots", "acts", "counts", "asks", "own", "present", "fixed", "bias", "usual")
"""Tables of `batch_mix.Rows` that the launch reads."""


@dataclass(frozen=True)
class RawUnits:
    """A group's unweighted units in one block, of a forward's tokens."""

    inner: Float[Tensor, "N R m"]
    """x with the routers' rows and the pages' A."""
    late: Float[Tensor, "m N k"] | None


class Fused:
    """The fused mixing of one served model, until a launch fails."""

    def __init__(self):
        self.on = True
        """False: PyTorch mixes instead, to compare the two."""
        self.fault = ""
        """Why PyTorch mixes instead; empty: the fused form works."""
        self.launched = 0
        """Number of groups that were mixed in one launch."""

    def takes(self, batch: BatchMix, counts: Sequence[int]) -> bool:
        """Whether a forward of `counts` tokens a row is mixed in one launch a group."""
        few = sum(counts) <= MAX_FUSED
        return self.on and not self.fault and few and batch.bank.dtype in DTYPES

    def mix(
        self,
        ys: Sequence[Float[Tensor, "*b _"]],
        draft: RawUnits,
        batch: BatchMix,
        g: int,
        block: int,
        *,
        row_of: Tensor,
        recorded: Float[Tensor, "2 m N k"] | None,
    ) -> bool:
        """Add the updates to the outputs of a group's layers; False: unchanged."""
        bank = batch.bank
        try:
            from ramole_core.layers.triton_mixing import mix_group

            mix_group(
                [y.view(-1, y.shape[-1]) for y in ys],
                [B[block] for B in bank.tensors.B[g]],
                inner=draft.inner,
                gram=bank.tensors.gram[g][block],
                late=draft.late,
                row_of=row_of,
                tables={name: batch.table(name) for name in TABLES},
                first=bank.layout.first(g, block),
                recorded=recorded,
            )
        except Exception as error:  # a compiler raises anything; nothing was added yet
            self.fault = f"{type(error).__name__}: {error}".splitlines()[0]
            log.warning("Adapters are mixed by PyTorch, since Triton fails (%s).", self.fault)
            return False
        self.launched += 1
        return True


def fused_of(device: torch.device) -> Fused | None:
    """The fused mixing for this device; None without Triton or a GPU."""
    there = device.type == "cuda" and torch.cuda.is_available()
    return Fused() if there and importlib.util.find_spec("triton") is not None else None
