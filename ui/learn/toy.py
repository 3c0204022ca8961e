"""A mixture so small that every number can be seen: a layer, two adapters of rank 2, and a gate.

    y = W x + sum_j w_j v_j,   v_j = B_j (A_j x)
    w = softmax_j(<q, k_j> / sqrt(s)),   q = A_r x,   k_j = B_r^T v_j   (arXiv 2406.16989, eq. 6-11)

Entries are whole or half numbers, so sums and products are exact. Where a root or an exponential
is taken the result is rounded, and what follows is computed from the rounded number: whoever
computes with the numbers on the screen gets those below them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]

W: Matrix = ((1, 0, 2), (0, 1, 1), (1, 1, 0))
A: tuple[Matrix, ...] = (((1, 0, 1), (0, 1, 0)), ((0, 1, -1), (1, 0, 0)))
"""Of each adapter: two rows of three."""
B: tuple[Matrix, ...] = (((1, 0), (0, 1), (1, 1)), ((0, 1), (1, 0), (-1, 1)))
"""Of each adapter: three rows of two."""
A_R: Matrix = ((0.5, 0, 0.5), (0, 1, 0))
"""Of the gate: two rows of three, so s = 2."""
B_R: Matrix = ((0.5, 0), (0, 0.5), (0.5, 0))
START: Vector = (1, 0.5, 1)
"""x, before a slider is moved."""
WEIGHTS: Vector = (0.7, 0.3)


@dataclass(frozen=True)
class Gate:
    """The gate's computation, step by step."""

    query: Vector
    keys: tuple[Vector, ...]
    products: Vector
    """<q, k_j>."""
    scores: Vector
    """Divided by the root of s; two decimals."""
    powers: Vector
    """e to the power of each; three digits."""


@dataclass(frozen=True)
class Toy:
    """Every number of one mixture."""

    x: Vector
    base: Vector
    """W x."""
    units: tuple[Vector, ...]
    """A_j x."""
    updates: tuple[Vector, ...]
    """v_j."""
    weights: Vector
    y: Vector
    gate: Gate | None
    """None where the weights were given."""


def toy(x: Sequence[float], weights: Sequence[float] | None = None) -> Toy:
    """The mixture of an x of three numbers; without weights, the gate decides them."""
    units = tuple(apply(each, x) for each in A)
    updates = tuple(apply(each, unit) for each, unit in zip(B, units, strict=True))
    gate = None
    if weights is None:
        gate = gated(x, updates)
        weights = shares(gate.powers)
    base = apply(W, x)
    y = tuple(
        exact(base[i] + sum(w * v[i] for w, v in zip(weights, updates, strict=True)))
        for i in range(len(base))
    )
    return Toy(tuple(x), base, units, updates, tuple(weights), y, gate)


def gated(x: Sequence[float], updates: Sequence[Vector]) -> Gate:
    """What the gate makes of x and the adapters' updates."""
    query = apply(A_R, x)
    keys = tuple(apply(tuple(zip(*B_R, strict=True)), update) for update in updates)
    products = tuple(apply((key,), query)[0] for key in keys)
    scores = tuple(round(product / sqrt(len(A_R)), 2) + 0.0 for product in products)
    return Gate(query, keys, products, scores, tuple(float(f"{exp(s):.3g}") for s in scores))


def shares(powers: Vector) -> Vector:
    """Of two powers: each by their sum, to two decimals that add up to 1."""
    first = round(powers[0] / sum(powers), 2)
    return first, exact(1 - first)


def apply(matrix: Matrix, x: Sequence[float]) -> Vector:
    """A matrix times x: each row times x, number by number, added up."""
    return tuple(exact(sum(m * n for m, n in zip(row, x, strict=True))) for row in matrix)


def exact(number: float) -> float:
    """Without the dust of binary fractions; no number here has more than five decimals."""
    return round(number, 5) + 0.0  # never -0


def said(number: float) -> str:
    """A number as it stands on the screen: all of its digits, with a true minus."""
    return f"{number:.5f}".rstrip("0").rstrip(".").replace("-", "−")
