"""The contract of a composition method, and the registry.

A method is one file in this folder: its equation on top, a class with a `row` (name, paper,
options), and `decide`, which decides once about a request's adapters. Everything else here
has a default.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ramole_core.composition.activation import Response
from ramole_core.composition.decision import Ask, Decision, check
from ramole_core.composition.lora import LoraSet
from ramole_core.composition.sites import Sites
from ramole_core.composition.trained import Trained
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST, Method, Value, find_row


@dataclass(frozen=True)
class Tried:
    """Weights and their loss."""

    weights: tuple[float, ...]
    """One an adapter, in the request's order."""
    loss: float
    """Loss of the pairs, in nats a token."""


class Search(ABC):
    """A deterministic ask-and-tell search for a request's weights; independent of models.

    `engine/fitting.py` takes weights from it, measures the loss of the request's (input, target)
    pairs under them, and reports it.
    """

    steps: int
    """Number of weights that it tries."""

    @abstractmethod
    def ask(self) -> tuple[float, ...]:
        """Weights to try next."""

    @abstractmethod
    def tell(self, tried: Tried) -> None:
        """Report the loss of the weights from `ask`."""

    @property
    @abstractmethod
    def best(self) -> Tried | None:
        """The best so far by the method's measure; None before the first `tell`."""

    @abstractmethod
    def close(self) -> None:
        """Release what the search holds, at any point."""


@dataclass(frozen=True)
class Candidate:
    """A candidate adapter of a request, before its tensors are read."""

    name: str
    score: float
    """Cosine similarity to the prompt; nan where it was named and not
    measured, or where it shows no examples."""
    checksum: str
    """Of its content."""
    load: Callable[[], LoraSet]
    """Reads its LoRAs as they were uploaded."""
    response: Response | None = None
    """Response to the prompt's last token; None where not measured."""
    share: float = float("nan")
    """Share by the method's `choose`; nan where that did not run."""

    @property
    def activation_z(self) -> float:
        """Its activation z-score against its usual response; nan where not measured."""
        return float("nan") if self.response is None else self.response.activation_z


@dataclass(frozen=True)
class VisibleAdapter:
    """An adapter visible to a request, and its similarity to the prompt."""

    name: str
    checksum: str
    """Of its content."""
    score: float
    """Cosine similarity to the prompt."""
    open: bool
    """Whether it may be taken: not excluded, and named where the request names some."""
    excluded: bool = False
    """Whether the request excludes it."""


@dataclass(frozen=True)
class Watched:
    """The gates of one training step, for a loss of the method's own."""

    scores: Mapping[str, Float[Tensor, "b l k"]]
    """By module path, before the softmax."""
    alpha: Mapping[str, Float[Tensor, "b l k"]]
    own: Int[Tensor, "b"]
    """Which of the k adapters is the row's own; -1: it was left out."""
    answers: Bool[Tensor, "b l"]
    """True at the tokens that predict the answer."""
    tokens: Bool[Tensor, "b l"]
    """True at every token of the row, False at padding."""

    def own_cross_entropy(self) -> Tensor | float:
        """Of each gate's scores with the row's own adapter, at each token of the rows that have it;
        the mean over tokens and gates, 0.0 where no row has it."""
        rows = (self.own >= 0).nonzero()[:, 0]
        if not len(rows):
            return 0.0
        here = self.tokens[rows]
        target = self.own[rows][:, None].expand_as(here)[here]
        each = [F.cross_entropy(g[rows][here], target) for g in self.scores.values()]
        return torch.stack(each).mean()


class Composition:
    """A published way to compose k LoRAs."""

    row: ClassVar[Method]
    """Name, paper, summary, options; folder and options of what is trained."""
    needs_weights: ClassVar[bool] = True
    """Where the row names a folder of trained weights: it cannot do without them."""
    weighs_similarity: ClassVar[bool] = False
    """It needs each adapter's similarity to the prompt, also of those that are named."""
    merges: ClassVar[bool] = False
    """It makes one LoRA of the k, and puts the weights that a request gives into that itself."""
    brings: ClassVar[bool] = False
    """It has adapters of its own and takes none of the pool's: `bring` makes them of nothing."""
    examines: ClassVar[int] = 0
    """How many of the nearest adapters are examined on the prompt before it takes its k; 0: it
    takes the nearest k as they are."""

    reads_prompt: ClassVar[bool] = False
    """It decides by the mean input of each block over the prompt (`Ask.means`)."""
    chooses: ClassVar[bool] = False
    """It chooses among all that the request may see by their similarity to the prompt (`choose`);
    otherwise the nearest k are taken."""
    measures: ClassVar[bool] = False
    """Its weights are a table of measured losses, `losses` [task, adapter], each task an adapter's
    own: `train method` measures them (`training/task_table.py`)."""

    # --- serving ----------------------------------------------------------------------------------

    def decide(self, ask: Ask) -> Decision:
        """Decide about the request's adapters; raises RamoleError where it cannot use them."""
        raise NotImplementedError(f"{self.row.name} decides nothing")

    def experts(self, k: int) -> int:
        """The number of adapters that it takes for a request of k."""
        return k

    def rank(
        self, candidates: Sequence[Candidate], options: Mapping[str, Value]
    ) -> Sequence[float]:
        """A score for each candidate where the method examines: the k best are taken."""
        raise NotImplementedError(f"{self.row.name} does not examine")

    def choose(
        self,
        known: Sequence[VisibleAdapter],
        k: int,
        *,
        options: Mapping[str, Value],
        trained: Trained | None,
    ) -> Mapping[int, float]:
        """Places of the open ones that it takes, at most k, and the share of each
        (`Adapter.share`); where some are named all those are taken, what is left out with 0."""
        raise NotImplementedError(f"{self.row.name} does not choose")

    def check(self, candidates: Sequence[Candidate], trained: Trained | None) -> None:
        """Raise RamoleError where it cannot use one of them, before any request runs."""

    def search(self, k: int, options: Mapping[str, Value], *, seed: int) -> Search:
        """The search for k weights of a method whose row `fits`."""
        raise NotImplementedError(f"{self.row.name} fits nothing")

    def bring(
        self, candidates: Sequence[Candidate], trained: Trained | None
    ) -> Sequence[Candidate]:
        """The method's own adapters in place of these, where it has some: of what it brought,
        itself. `trained` is None where the request gives the weights."""
        return candidates

    def pool(self, trained: Trained | None) -> Mapping[str, str] | None:
        """The adapters that it takes where none are named, where it has a fixed pool: content
        checksum -> name; None: those that retrieval finds."""
        return None

    @property
    def fixed(self) -> bool:
        """Whether it has a fixed pool."""
        return type(self).pool is not Composition.pool

    # --- training: what `train method` needs where `row.training` is not empty --------------------

    def begin(
        self, sites: Sites, adapters: Sequence[tuple[str, str]], recipe: Mapping[str, Value]
    ) -> dict[str, Tensor]:
        """Trainable tensors at their start, by name; `adapters` are (name, checksum) each, and
        `recipe` has the values of `row.training`. torch's own generator is seeded before."""
        raise NotImplementedError(f"{self.row.name} trains nothing")

    def loss(self, watched: Watched, recipe: Mapping[str, Value]) -> Tensor | float:
        """A loss added to the language model's."""
        return 0.0

    def has_loss(self, recipe: Mapping[str, Value]) -> bool:
        """Whether `loss` can add anything under this recipe."""
        return type(self).loss is not Composition.loss

    def finish(
        self, tensors: Mapping[str, Tensor], recipe: Mapping[str, Value]
    ) -> Mapping[str, Tensor]:
        """The trained tensors as `decide` reads them and the file keeps them; differentiable."""
        return tensors

    def resume(
        self, tensors: Mapping[str, Tensor], recipe: Mapping[str, Value]
    ) -> Mapping[str, Tensor]:
        """The tensors in training that `finish` makes these of: its inverse."""
        return tensors


def decide(method: Composition, ask: Ask) -> Decision:
    """The method's decision; the weights that a request gives replace the method's own."""
    if ask.weights is None or method.merges:
        decision = method.decide(ask)
        check(decision, ask)
        return decision
    return Decision(ask.everywhere(ask.weights))


Kind = TypeVar("Kind", bound=Composition)
METHODS: dict[str, Composition] = {}


def register(method: type[Kind]) -> type[Kind]:
    """Class decorator: make the method known by its row's name, here and in every list."""
    name = method.row.name
    if name in METHODS:
        raise ValueError(f"two composition methods are called {name!r}")
    if method.row.training and not method.row.weights:
        raise ValueError(f"{name} is trained, but its row names no folder for its weights")
    METHODS[name] = method()
    if name not in {row.name for row in METHOD_LIST}:
        METHOD_LIST.append(method.row)
    return method


def forget(name: str) -> None:
    """Take a method out of the registry and the list."""
    row = METHODS.pop(name).row
    METHOD_LIST.remove(row)


def find_method(name: str) -> Composition:
    """The method of that name; raises RamoleError that lists the known ones."""
    if name not in METHODS:
        find_row(name)
        raise RamoleError(f"Method {name} is listed, but nothing registers it.")
    return METHODS[name]
