"""Linear layers in int4: sixteen even steps above a least number for every 32 weights, on a CPU.

Five bits a weight where NF4 has 4.5, and for a base that was published on such a grid (a GGUF in
Q4_1) nearly its own numbers: `python -m lab few_bits`.
"""

from torch import Tensor

from ramole_core.base.packed import PackedLinear
from ramole_core.kernels.narrow_grid import narrowed_to_grid, on_grid


class Int4Linear(PackedLinear):
    """A linear layer of codes uint8 [o, i / 2], steps and least numbers bfloat16 [o, i / 32, 2]."""

    narrowed = staticmethod(narrowed_to_grid)
    as_numbers = staticmethod(on_grid)


def round_to_int4(weight: Tensor) -> Tensor:
    """The weight [o, i] on the CPU, i in whole blocks, after int4 and back."""
    return on_grid(*narrowed_to_grid(weight)).to(weight.dtype)
