"""One LoRA of several, by a method's merge or by fixed weights, and how far it is from them.

Fixed decisions can be one adapter: weights per adapter and module, and merges. A gate, which weighs
every token, and a bypass, which has an activation, are no LoRA.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from ramole_core.base.fetch import Progress
from ramole_core.composition import (
    METHODS,
    Ask,
    Composition,
    Decision,
    Lora,
    Sites,
    decide,
    find_method,
)
from ramole_core.composition.trained import WeightsFolder
from ramole_core.errors import RamoleError
from ramole_core.export.low_rank import concatenate, cut, ratio, square, square_between
from ramole_core.export.sources import MergeSource
from ramole_core.methods import Value, complete_options
from ramole_core.pool.pairs import Shapes


@dataclass(frozen=True)
class Error:
    """Relative distances, by Frobenius norms over all modules."""

    overall: float
    """From the mixture of the same weights, sum_j w_j B_j A_j."""
    worst: float
    """Largest distance of a single module."""
    worst_module: str
    by_adapter: dict[str, float] = field(default_factory=dict)
    """Of a mixture: the part of each adapter's own B A that its cut left out."""


@dataclass(frozen=True)
class Merged:
    """A merged adapter, and how it was made."""

    loras: dict[str, Lora]
    """By module path, float32; the scale is 1."""
    method: str
    sources: tuple[MergeSource, ...]
    weights: tuple[float, ...] | None
    """Weights as given."""
    options: Mapping[str, Value]
    exact: bool
    """It is the mixture itself, up to rounding."""
    error: Error

    @property
    def rank(self) -> int:
        """The largest."""
        return max(lora.A.shape[0] for lora in self.loras.values())


def merge_adapters(
    sources: Sequence[MergeSource],
    method: str,
    *,
    shapes: Shapes,
    trained: WeightsFolder,
    weights: Sequence[float] | None = None,
    options: Mapping[str, object] | None = None,
    rank: int = 0,
    tell: Progress = lambda stage, fraction: None,
) -> Merged:
    """Merge the adapters into one.

    `rank` 0 keeps what comes out; else it is the method's own option `rank` where it has one that
    was not given, and what is still larger is cut to it. Raises RamoleError where one adapter
    cannot hold the method's decision, or where nothing is left.
    """
    how = find_method(method)
    if "rank" in {option.name for option in how.row.options} and rank:
        options = {"rank": rank, **(options or {})}
    complete = complete_options(method, options)
    sites = Sites(tuple(shapes), shapes)
    decision = _decide(how, sources, sites, complete, trained=trained, weights=weights)
    made: dict[str, Lora] = {}
    cuts = {}
    for n, path in enumerate(sites.paths):
        tell("merging the modules", n / len(sites.paths))
        here = [source.loras.get(path) for source in sources]
        if decision.merge is not None:
            lora = decision.merge.make(path, here)
        else:
            lora = concatenate(here, decision.weights[n].tolist())
        if lora is None:
            continue
        if rank and lora.A.shape[0] > rank:
            cuts[path] = cut(lora, rank)
            lora = cuts[path].lora
        made[path] = Lora(A=lora.A.float(), B=lora.B.float())
    if not any(lora.A.any() and lora.B.any() for lora in made.values()):
        raise RamoleError(
            f"What {method} makes of {', '.join(s.name for s in sources)} changes nothing; give "
            "weights that are not 0."
        )
    mixed = decision.merge is None
    error = _error(made, sources, decision.weights, sites, tell=tell)
    if mixed and cuts:
        lost = {}
        for source in sources:
            part = sum(cuts[p].lost(lora) for p, lora in source.loras.items() if p in cuts)
            lost[source.name] = ratio(part, sum(map(square, source.loras.values())))
        error = Error(error.overall, error.worst, error.worst_module, lost)
    given = None if weights is None else tuple(weights)
    exact = mixed and not cuts
    return Merged(made, method, tuple(sources), given, complete, exact, error)


def _decide(
    how: Composition,
    sources: Sequence[MergeSource],
    sites: Sites,
    options: Mapping[str, Value],
    *,
    trained: WeightsFolder,
    weights: Sequence[float] | None,
) -> Decision:
    """The method's fixed decision; raises RamoleError where it has none."""
    name, k = how.row.name, len(sources)
    can = [n for n, m in METHODS.items() if m.merges and not m.reads_prompt]
    instead = f"merge by one of {', '.join([*can, 'mixture'])}"
    if weights is not None and len(weights) != k:
        raise RamoleError(
            f"There are {len(weights)} weights for {k} adapters; give --weights one for each."
        )
    if how.experts(k) < k:
        raise RamoleError(
            f"Method {name} takes {how.experts(k)} of {k} adapters, so there is nothing to merge; "
            f"{instead}."
        )
    if weights is None and (how.weighs_similarity or how.examines or how.reads_prompt):
        raise RamoleError(
            f"Method {name} weighs adapters by a prompt, which a file does not have; {instead}, or "
            "give --weights."
        )
    told = tuple(source.adapter(sites) for source in sources)
    given = None if weights is None else tuple(weights)
    folder = trained.get(how.row, needed=how.needs_weights) if given is None else None
    decision = decide(how, Ask(told, sites, options, given, folder))
    if decision.gate is not None or decision.bypass is not None:
        what = "a gate that weighs every token anew" if decision.gate else "a bypass"
        raise RamoleError(
            f"Method {name} is {what}, which no single LoRA adapter can hold; {instead}, or give "
            "--weights."
        )
    return decision


def _error(
    made: Mapping[str, Lora],
    sources: Sequence[MergeSource],
    weights: Float[Tensor, "module k"],
    sites: Sites,
    *,
    tell: Progress,
) -> Error:
    """The merged adapter's distance from the mixture of the same weights."""
    apart = whole = worst = 0.0
    where = ""
    for n, path in enumerate(sites.paths):
        tell("comparing", n / len(sites.paths))
        mixture = concatenate([s.loras.get(path) for s in sources], weights[n].tolist())
        if mixture is None and path not in made:
            continue
        here = square_between(made.get(path), mixture)
        size = 0.0 if mixture is None else square(mixture)
        apart, whole = apart + here, whole + size
        if (now := ratio(here, size)) > worst:
            worst, where = now, path
    return Error(ratio(apart, whole), worst, where)
