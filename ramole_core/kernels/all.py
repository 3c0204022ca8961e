"""Compile every kernel before the first request."""

from ramole_core.kernels.attention import ATTEND, WRITE
from ramole_core.kernels.code_cache import mark_complete
from ramole_core.kernels.elementwise import ACTIVATE
from ramole_core.kernels.half_dots import MULTIPLIES
from ramole_core.kernels.half_product import MULTIPLY_HALVES
from ramole_core.kernels.lengths import MEASURE
from ramole_core.kernels.likeliest import CHOOSE
from ramole_core.kernels.linear import SCORE
from ramole_core.kernels.logprob import MEASURE_LOGPROBS
from ramole_core.kernels.matrix_input import TURN
from ramole_core.kernels.matrix_product import MULTIPLY_IN_UNIT
from ramole_core.kernels.matrix_unit import MATRIX
from ramole_core.kernels.mixing import MIX
from ramole_core.kernels.narrow import NARROW
from ramole_core.kernels.narrow_grid import NARROW_TO_GRID
from ramole_core.kernels.norm import NORMALISE
from ramole_core.kernels.pointwise import POINTS
from ramole_core.kernels.product import MULTIPLY
from ramole_core.kernels.widen import WIDEN


def compile_kernels() -> None:
    """Compile all kernels, or read them from the cache."""
    every = [WIDEN, NORMALISE, MULTIPLY, MIX, MEASURE, ACTIVATE, ATTEND, WRITE, POINTS, SCORE]
    every += [CHOOSE, MEASURE_LOGPROBS, NARROW, NARROW_TO_GRID]
    every += [MULTIPLY_HALVES] if MULTIPLIES else []
    for kernel in [*every, TURN, MULTIPLY_IN_UNIT] if MATRIX else every:
        kernel.compile()
    mark_complete()


if __name__ == "__main__":
    compile_kernels()
