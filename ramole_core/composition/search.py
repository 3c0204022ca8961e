"""The interface of a search for a request's weights.

Whoever drives it (`engine/fitting.py`) asks for weights, measures the loss of the request's
(input, target) pairs under them, and tells it. The search knows nothing of models.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """Weights and their loss."""

    weights: tuple[float, ...]
    """One an adapter, in the request's order."""
    loss: float
    """Of the pairs, in nats a token."""


class Search(ABC):
    """A deterministic ask-and-tell search."""

    steps: int
    """How many weights it tries."""

    @abstractmethod
    def ask(self) -> tuple[float, ...]:
        """Weights to try next."""

    @abstractmethod
    def tell(self, tried: Tried) -> None:
        """Report the loss of the weights asked last."""

    @property
    @abstractmethod
    def best(self) -> Tried | None:
        """The best so far by the method's measure; None before the first `tell`."""

    @abstractmethod
    def close(self) -> None:
        """Release what the search holds, at any point."""
