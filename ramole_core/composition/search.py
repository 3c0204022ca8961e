"""A search for the weights of a request, as a method that fits them describes it.

Whoever drives it (`engine/fitting.py`) asks for weights, measures the loss of the request's
(input, target) pairs under them, and tells it. The search knows nothing of models.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """Weights, and what they came to."""

    weights: tuple[float, ...]
    """One an adapter, in the request's order."""
    loss: float
    """Of the pairs, in nats a token."""


class Search(ABC):
    """One search, asked and told in turn: the same answers lead to the same questions."""

    steps: int
    """How many weights it tries."""

    @abstractmethod
    def ask(self) -> tuple[float, ...]:
        """Weights to try next."""

    @abstractmethod
    def tell(self, tried: Tried) -> None:
        """The loss of those that were asked for last."""

    @property
    @abstractmethod
    def best(self) -> Tried | None:
        """The best so far, as the method measures it; None before the first was told."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the search holds, wherever it stands."""
