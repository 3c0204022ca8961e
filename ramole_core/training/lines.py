"""A line between two kinds of texts, fitted to a few similarities: logistic regression, balanced.

    sum_f w_f x_f + c = 0    where  mean over each kind of  log(1 + exp(-+(w x + c)))  + ridge |w|^2

is least. Each kind counts the same, however many texts it has, so a threshold does not follow the
number of examples that happened to be written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RIDGE = 1e-4
"""Of similarities, which differ by tenths; keeps the line finite where the kinds do not overlap."""
STEPS = 50


@dataclass(frozen=True)
class Line:
    """w and c; positive on the wanted side."""

    weights: Float[np.ndarray, "f"]
    offset: float

    def __call__(self, x: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n"]:
        """Each row's distance to the wanted side, in logits."""
        return x @ self.weights + self.offset


def fit_line(wanted: Float[np.ndarray, "m f"], other: Float[np.ndarray, "n f"]) -> Line:
    """Fit the line between them, by Newton's method."""
    rows = np.vstack([wanted, other]).astype(np.float64)
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    label = np.repeat([1.0, 0.0], [len(wanted), len(other)])
    share = np.repeat([1 / len(wanted), 1 / len(other)], [len(wanted), len(other)])
    ridge = RIDGE * np.append(np.ones(rows.shape[1] - 1), 1e-6)
    w = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(rows @ w, -500, 500)))
        slope = rows.T @ (share * (p - label)) + ridge * w
        bend = (rows * (share * p * (1 - p))[:, None]).T @ rows + np.diag(ridge)
        w = w - np.linalg.solve(bend, slope)
    return Line(w[:-1], float(w[-1]))


def half_of(names: Sequence[str], *, random: np.random.Generator | None = None) -> list[str]:
    """A half of the names: every other one, or a random half."""
    known = list(dict.fromkeys(names))
    if random is None:
        return known[::2]
    drawn = random.choice(len(known), size=(len(known) + 1) // 2, replace=False)
    return [known[n] for n in sorted(drawn)]
