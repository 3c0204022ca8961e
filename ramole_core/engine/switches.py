"""Switch off or reweight parts of a request from a position on.

Off means: as though the adapter lacked the module there, so that its update is 0 and the method's
own rule for missing modules applies to its weight. Without an adapter's name the base alone is
left. Weights that come later are fixed from there on, in every module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from ramole_core.composition import Ask, Candidate, Decision, Signal, find_method
from ramole_core.composition.decision import Score, UnitScore
from ramole_core.errors import RamoleError
from ramole_core.layers import Layout, Units
from ramole_core.layers.gate_softmax import module_signal
from ramole_core.request import Request
from ramole_core.request_parts import TURN, read_without


def check_switches(request: Request, candidates: Sequence[Candidate], layout: Layout) -> None:
    """Raise RamoleError for an adapter, layer or module in `without` that is not there;
    `candidates` are the adapters of the turn that is answered."""
    places, names = layout.places, list(dict.fromkeys(one.name for one in candidates))
    layers = f"{min(places.layers)} to {max(places.layers)}"
    if len(places.layers) != max(places.layers) - min(places.layers) + 1:
        layers = ", ".join(map(str, places.layers))
    for one in read_without(request.without):
        if one.adapter is not None and one.adapter not in names:
            raise RamoleError(
                f"without names the adapter {one.adapter!r}, and this request "
                + (f"mixes {', '.join(names)}; name one of these." if names else "mixes none.")
            )
        if one.layer is not None and one.layer not in places.layers:
            raise RamoleError(f"without names layer {one.layer}; the base has {layers}.")
        if one.module is not None and one.module not in places.modules:
            raise RamoleError(
                f"without names the module {one.module!r}; the base has "
                f"{', '.join(places.modules)}."
            )


def read_switches(
    request: Request, candidates: Sequence[Candidate], layout: Layout, *, given: int
) -> list[tuple[int, Bool[Tensor, "module columns"]]]:
    """The modules that are off from each position on, cumulative.

    `candidates` are one turn's adapters; what is said of others is not theirs. `given` counts the
    tokens of prompt and `prefix_ids`: what names no position holds from the last of them on. True
    [module, k+1] is off; the last column is a bypass's.
    """
    if not request.without:
        return []
    places, found = layout.places, dict[int, Tensor]()
    where = torch.tensor([places.at[path] for path in layout.flat])
    for one in read_without(request.without):
        if one.start == TURN:  # `prompt.leave_out`
            continue
        rows = torch.ones(len(layout.flat), dtype=torch.bool)
        if one.layer is not None:
            rows &= where[:, 0] == places.layers.index(one.layer)
        if one.module is not None:
            rows &= where[:, 1] == places.modules.index(one.module)
        every = one.adapter is None
        columns = torch.tensor([every or c.name == one.adapter for c in candidates] + [every])
        start = given - 1 if one.start is None else one.start
        off = rows[:, None] & columns
        found[start] = found[start] | off if start in found else off
    switches: list[tuple[int, Tensor]] = []
    for start in sorted(found):
        before = switches[-1][1] if switches else torch.zeros_like(found[start])
        if not torch.equal(before | found[start], before):
            switches.append((start, before | found[start]))
    return switches


def check_later_weights(request: Request, candidates: Sequence[Candidate]) -> None:
    """Raise RamoleError for a name in `later_weights` that is not among what the method mixes of
    the `candidates`, the adapters of the turn that is answered."""
    if request.later_weights is None:
        return
    method = find_method(request.method)
    if method.brings:
        raise RamoleError(
            f"Method {request.method} mixes adapters of its own, which take no weights; leave "
            "later_weights out."
        )
    names = [one.name for one in candidates][: method.experts(len(candidates))]
    for name in request.later_weights:
        if name not in names:
            raise RamoleError(
                f"later_weights names the adapter {name!r}, and this request "
                + (f"mixes {', '.join(names)}; name one of these." if names else "mixes none.")
            )


def weighed(turn: Request, later: Mapping[str, float], candidates: Sequence[Candidate]) -> Request:
    """The turn with these weights in place of its own."""
    count = find_method(turn.method).experts(len(candidates))
    names = tuple(one.name for one in candidates[:count])
    weights = tuple(later.get(name, 0.0) for name in names)
    fixed = {"adapters": names, "weights": weights, "exclude": (), "abstain": None}
    return replace(turn, **fixed, examples=(), mix=None)


# --- a method's input, and its decision -----------------------------------------------------------


def lacking(units: Units, off: Bool[Tensor, "module"]) -> Units:
    usual = units.usual.clone()
    usual[off] = torch.tensor([0.0, 1.0])
    return replace(units, present=units.present & ~off, usual=usual)


def deciding_without(decision: Decision, ask: Ask, off: Bool[Tensor, "module"]) -> Decision:
    """The decision with what is off hidden from a method's own score. `off` is a bypass's."""
    gate, bypass = decision.gate, decision.bypass
    own = None if gate is None else gate.score
    if gate is not None and own is not None and not isinstance(own, UnitScore):
        gate = replace(gate, score=_score_without(own, ask))
    if bypass is not None and off.any():
        gone = {path for path, one in zip(ask.sites.paths, off.tolist(), strict=True) if one}
        loras = {path: lora for path, lora in bypass.loras.items() if path not in gone}
        key = f"{bypass.key} without {off.numpy().tobytes().hex()}"
        bypass = replace(bypass, loras=loras, key=key) if loras else None
    return replace(decision, gate=gate, bypass=bypass)


def _score_without(score: Score, ask: Ask) -> Score:
    present, at = ask.present, ask.sites.at

    def masked_score(signal: Signal) -> Tensor:
        if signal.norms is None:  # at a block, which has no units
            return score(signal)
        here = present[at[signal.path]].tolist()
        if not any(here):  # a method gets no modules that no adapter has
            return torch.zeros_like(signal.norms)
        u = [one if h else one[..., :0] for one, h in zip(signal.u, here, strict=True)]
        return score(module_signal(signal.path, signal.x, u))

    return masked_score
