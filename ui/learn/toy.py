"""A mixture so small that every number can be seen: a layer, two adapters of rank 2, and a gate.

    y = W x + sum_j w_j v_j,   v_j = B_j (A_j x)
    w = softmax_j(<q, k_j> / sqrt(s)),   q = A_r x,   k_j = B_r^T v_j   (arXiv 2406.16989, eq. 6-11)

Entries are whole or half numbers, so sums and products are exact. Where a root or an exponential is
taken the result is rounded, and what follows is computed from the rounded number: computing with
the numbers on the screen gives those below them. On the screen matrices are tables, and each number
of y is a sum to check.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt

from ..parts.markup import table_html
from .frames import box

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
    """Return the gate's computation from x and the adapters' updates."""
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
    """Return the number without rounding errors; none here has more than five decimals."""
    return round(number, 5) + 0.0  # never -0


def said(number: float) -> str:
    """A number as it stands on the screen: all of its digits, with a true minus."""
    return f"{number:.5f}".rstrip("0").rstrip(".").replace("-", "−")


NAMES = ("one", "two")
"""Of the two adapters."""


def toy_html(found: Toy) -> str:
    """The layer, both adapters, the gate where it decides, and the sum."""
    parts = [
        line(
            "The base",
            [matrix(W, "W"), TIMES, column(found.x, "x"), EQUALS, column(found.base, "W x")],
            example(W[0], found.x, found.base[0]),
        )
    ]
    for j in range(len(A)):
        n = j + 1
        unit, update = found.units[j], found.updates[j]
        shown = [
            matrix(A[j], sub("A", n)),
            TIMES,
            column(found.x, "x"),
            EQUALS,
            column(unit, f"{sub('A', n)} x"),
            '<span class="then">then</span>',
            matrix(B[j], sub("B", n)),
            TIMES,
            column(unit, f"{sub('A', n)} x"),
            EQUALS,
            column(update, sub("v", n)),
        ]
        title = f"Adapter {NAMES[j]}"
        parts.append(line(title, shown, example(A[j][0], found.x, unit[0])))
    if found.gate is not None:
        parts.append(gate_html(found))
    parts.append(sum_html(found))
    return f'<div class="toy">{"".join(parts)}</div>'


def gate_html(found: Toy) -> str:
    """From x and the updates to the weights, one row an adapter."""
    gate = found.gate
    assert gate is not None
    query = [
        matrix(A_R, "A<sub>r</sub>"),
        TIMES,
        column(found.x, "x"),
        EQUALS,
        column(gate.query, "q"),
    ]
    turned: Matrix = tuple(zip(*B_R, strict=True))
    keys: list[str] = []
    for j, key in enumerate(gate.keys):
        keys += ['<span class="then">and</span>'] if j else []
        keys += [matrix(turned, "B<sub>r</sub><sup>T</sup>"), TIMES]
        keys += [column(found.updates[j], sub("v", j + 1)), EQUALS, column(key, sub("k", j + 1))]
    total = said(sum(gate.powers))
    rows = [
        (
            f"Adapter {NAMES[j]}",
            f"{products(gate.query, gate.keys[j])} = <b>{said(gate.products[j])}</b>",
            f"{said(gate.products[j])} / √2 = <b>{said(gate.scores[j])}</b>",
            f"e<sup>{said(gate.scores[j])}</sup> = <b>{said(gate.powers[j])}</b>",
            f"{said(gate.powers[j])} / {total} = <b>{said(found.weights[j])}</b>",
        )
        for j in range(len(gate.keys))
    ]
    heads = ("adapter", "&lt;q, k&gt;", "divided by √s, s = 2", "e to that power", "weight w")
    table = box("The gate, step by step", table_html(heads, rows))
    return (
        line("The gate asks: q", query)
        + line("Each adapter answers: k", keys)
        + f'<div class="line"><h3>The match becomes a weight</h3>{table}</div>'
    )


def sum_html(found: Toy) -> str:
    """Each number of y as the sum that it is."""
    heads = ("", "W x", *(f"+ {sub('w', n)} · {sub('v', n)}" for n in (1, 2)), "= y")
    rows = "".join(
        f'<tr><th scope="row">number {i + 1}</th><td>{said(found.base[i])}</td>'
        + "".join(
            f"<td>+ {said(w)} · {paren(v[i])}</td>"
            for w, v in zip(found.weights, found.updates, strict=True)
        )
        + f'<td class="result">= <b>{said(y)}</b></td></tr>'
        for i, y in enumerate(found.y)
    )
    head = "".join(f'<th scope="col">{words}</th>' if words else "<td></td>" for words in heads)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="line sum"><h3>The mixture</h3>{box("The mixture, summed", table)}</div>'


TIMES = '<span class="sign">·</span>'
EQUALS = '<span class="sign">=</span>'


def line(title: str, parts: Sequence[str], below: str = "") -> str:
    """One product, from left to right, with the first of its numbers spelt out."""
    note = f'<p class="quiet">{below}</p>' if below else ""
    product = f'<div class="wrap"><div class="product">{"".join(parts)}</div></div>'
    return f'<div class="line"><h3>{title}</h3>{product}{note}</div>'


def matrix(rows: Matrix, name: str) -> str:
    """A matrix under its name."""
    cells = "".join(
        f"<tr>{''.join(f'<td>{said(number)}</td>' for number in row)}</tr>" for row in rows
    )
    return f'<table class="matrix"><caption>{name}</caption><tbody>{cells}</tbody></table>'


def column(numbers: Vector, name: str) -> str:
    """A list of numbers, from top to bottom, under its name."""
    return matrix(tuple((number,) for number in numbers), name)


def example(row: Vector, x: Vector, result: float) -> str:
    """The first number of a product, spelt out."""
    return f"First number: {products(row, x)} = {said(result)}"


def products(left: Vector, right: Vector) -> str:
    """`1 · 2 + 0 · (−1)`."""
    return " + ".join(f"{paren(a)} · {paren(b)}" for a, b in zip(left, right, strict=True))


def paren(number: float) -> str:
    """A negative number in brackets."""
    return f"({said(number)})" if number < 0 else said(number)


def sub(letter: str, n: int) -> str:
    return f"{letter}<sub>{n}</sub>"
