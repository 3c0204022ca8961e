"""Compile every kernel before the first request."""

import sys

from ramole_core.kernels.ahead import PARTS
from ramole_core.kernels.attention import ATTEND, WRITE
from ramole_core.kernels.code_cache import mark_complete
from ramole_core.kernels.elementwise import ACTIVATE
from ramole_core.kernels.input_scores import SCORE_SCOPE
from ramole_core.kernels.likeliest import CHOOSE
from ramole_core.kernels.logprob import MEASURE_LOGPROBS
from ramole_core.kernels.matrix_input import TURN
from ramole_core.kernels.matrix_product import MULTIPLY_IN_UNIT
from ramole_core.kernels.mixing import MIX
from ramole_core.kernels.narrow import NARROW, NARROW_TO_GRID
from ramole_core.kernels.norm import MEASURE, NORMALISE
from ramole_core.kernels.pointwise import POINTS
from ramole_core.kernels.product import MULTIPLY, MULTIPLY_HALVES
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.ways import DOTS, TILES, ways_here
from ramole_core.kernels.widen import WIDEN

ROUNDING = {"nf4": [NARROW], "int4": [NARROW_TO_GRID], "none": []}
"""The kernels that round a base's weights, by its precision."""


def parts_of(quantization: str) -> list[list[Kernel]]:
    """The kernels that a base in this precision needs on this CPU, for processes that take about as
    long as each other; first what a start needs first."""
    products = [WIDEN, *ROUNDING[quantization], MULTIPLY, NORMALISE, CHOOSE]
    products += [MULTIPLY_HALVES] if DOTS in ways_here() else []
    products += [TURN, MULTIPLY_IN_UNIT] if TILES in ways_here() else []
    others = [ATTEND, WRITE, ACTIVATE, MIX, SCORE_SCOPE, MEASURE, POINTS, MEASURE_LOGPROBS]
    return [products, others]


def compile_part(part: int, quantization: str) -> None:
    """Compile the kernels of one of `ahead.PARTS` processes, or read them from the cache."""
    for kernel in parts_of(quantization)[part]:
        kernel.compile()


def compile_kernels(*quantizations: str) -> None:
    """Compile the kernels that bases in these precisions need (all of them, where none is named),
    or read them from the cache."""
    for quantization in quantizations or ROUNDING:
        for part in range(PARTS):
            compile_part(part, quantization)
        mark_complete(quantization)


if __name__ == "__main__":
    compile_part(int(sys.argv[1]), sys.argv[2]) if sys.argv[2:] else compile_kernels(*sys.argv[1:])
