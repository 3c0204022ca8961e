"""Requests in segments, the naive way: one forward of all tokens in float32 and plain torch.

Every linear layer is base(x) plus, for each run of tokens that are mixed one way, what the decision
of that run adds there (`layers/plain`). There is no cache, no batch and no kernel.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from ramole_core import Request
from ramole_core.base.model import dequantised
from ramole_core.composition import (
    Adapter,
    Ask,
    Candidate,
    Lora,
    block_of,
    decide,
    find_method,
    orthonormal,
    parent_of,
)
from ramole_core.engine.engine import Engine
from ramole_core.engine.prompt import encode_prompt
from ramole_core.layers.install import watch_blocks
from ramole_core.layers.plain import PlainMix, place
from ramole_core.layers.plain.mix import mix_at
from ramole_core.methods import complete_options


@dataclass(frozen=True)
class NaiveTurn:
    """A turn of a conversation, and one past its last token."""

    request: Request
    """Method, options and weights."""
    candidates: tuple[Candidate, ...]
    end: int


@dataclass(frozen=True)
class Run:
    """Tokens that are mixed one way."""

    start: int
    end: int
    names: tuple[str, ...]
    mix: PlainMix
    has: tuple[frozenset[str], ...]
    """The modules of each adapter that are on."""


def contribution(
    mix: PlainMix,
    has: Sequence[Collection[str]],
    path: str,
    x: Tensor,
    *,
    y: Tensor,
    alpha: Tensor,
) -> Tensor:
    """|alpha_j v_j| / |y| [b, l, k] of each adapter in float64, every v_j = B_j A_j x in full;
    `has` are the modules of each."""
    length = y.double().norm(dim=-1).clamp(min=1e-30)  # a token may be embedded as 0

    def update(lora: Lora | None) -> Tensor:
        if lora is None:
            return torch.zeros_like(length)
        return (x.double() @ lora.A.double().T @ lora.B.double().T).norm(dim=-1)

    if mix.decision.merge is not None:  # its update, divided by the weights
        here = torch.tensor([path in modules for modules in has])
        shares = alpha.double().abs() * here
        shares = shares / shares.sum(-1, keepdim=True).clamp(min=1e-30)
        return (update(mix.loras[0].get(path)) / length)[..., None] * shares
    every = [update(loras.get(path)) for loras in mix.loras]
    if not every:
        return torch.zeros(*length.shape, 0)
    return torch.stack(every, dim=-1) * alpha.double().abs() / length[..., None]


class NaiveModel:
    """The weights that an engine serves, in a model of its own."""

    def __init__(self, engine: Engine):
        self._engine, self.layout = engine, engine.layout
        self._model = dequantised(engine._base).float()
        self._runs: Sequence[Run] = ()
        self._blocks: dict[str, Tensor] = {}
        self._told: dict[str, list[tuple[Run, Tensor, Tensor, Tensor]]] | None = None
        """Of each path what its runs' adapters do, where that is asked for."""
        for path in self.layout.flat:
            self._model.get_submodule(path).register_forward_hook(self._adding(path))
        scopes = {of(path) for path in self.layout.flat for of in (block_of, parent_of)}
        watch_blocks(self._model, scopes, self._blocks.__setitem__)

    @torch.inference_mode()
    def read(
        self,
        ids: Sequence[int],
        turns: Sequence[NaiveTurn],
        *,
        names: Sequence[str] = (),
        without: Sequence[tuple] = (),
    ) -> tuple[Tensor, np.ndarray]:
        """Logits [T, v] after every token, and at it weights, contributions and whether the
        adapter is there, [3, T, layer, module, name].

        `without` is that of the request with every start said; without `names` only the logits
        are computed.
        """
        self._runs = list(self._each_run(len(ids), turns, without))
        self._told = {path: [] for path in self.layout.flat} if names else None
        logits = self._model(torch.tensor([ids]), use_cache=False).logits[0]
        places = self.layout.places
        told = np.zeros((3, len(ids), len(places.layers), len(places.modules), len(names)))
        for path, found in (self._told or {}).items():
            layer, module = places.at[path]
            for run, *both in found:
                columns = [names.index(name) for name in run.names]
                for n, one in enumerate(both):
                    for j, column in enumerate(columns):
                        told[n, run.start : run.end, layer, module, column] = one[0, :, j]
        return logits, told

    def _each_run(self, T: int, turns: Sequence[NaiveTurn], without) -> Iterator[Run]:
        """Position by position: whose turn it is, and what is off."""

        def state(position: int) -> tuple[int, tuple]:
            turn = next((n for n, one in enumerate(turns) if position < one.end), len(turns) - 1)
            return turn, tuple(off[:3] for off in without if off[3] <= position)

        for (n, off), run in groupby(range(T), state):
            positions = list(run)
            turn = turns[n]
            method = find_method(turn.request.method)
            count = method.experts(len(turn.candidates))
            candidates = turn.candidates[:count]
            if method.brings:
                candidates = method.bring((), self._engine._reader._weights(method))
            mix, has = self._mix(turn.request, candidates, off)
            names = tuple(one.name for one in candidates)
            yield Run(positions[0], positions[-1] + 1, names, mix, has)

    def _mix(
        self, request: Request, candidates: Sequence[Candidate], off
    ) -> tuple[PlainMix, tuple[frozenset[str], ...]]:
        """The decision about adapters that have not got what is off."""
        sites, at = self.layout.sites, self.layout.places.at
        layers, modules = self.layout.places.layers, self.layout.places.modules

        def is_off(name: str | None, path: str) -> bool:
            layer, module = at[path]
            return any(
                (adapter is None or adapter == name)
                and (wanted is None or wanted == layers[layer])
                and (short is None or short == modules[module])
                for adapter, wanted, short in off
            )

        method = find_method(request.method)
        weights = None if request.weights is None else tuple(request.weights)
        trained = None
        if candidates and weights is None:
            trained = self._engine._reader._weights(method)
        uploaded, adapters = [], []
        for one in method.bring(candidates, trained):
            pool = {path: lora for path, lora in one.load().items() if not is_off(one.name, path)}
            uploaded.append(pool)
            adapters.append(
                Adapter(
                    one.name,
                    one.checksum,
                    torch.tensor([path in pool for path in sites.paths]),
                    {path: orthonormal(lora) for path, lora in pool.items()},
                    max((lora.A.shape[0] for lora in pool.values()), default=0),
                    score=one.score,
                    response=one.response,
                    usual=self._engine.store.get(one.checksum, one.load).usual,
                )
            )
        ask = Ask(
            tuple(adapters),
            sites,
            complete_options(request.method, request.options),
            weights,
            trained,
            self._means(request) if method.reads_prompt and weights is None else None,
        )
        if not adapters:
            return PlainMix(decide(find_method("base"), ask), (), sites), ()
        loras, has = [a.loras for a in adapters], tuple(frozenset(pool) for pool in uploaded)
        return place(decide(method, ask), loras, sites, uploaded=uploaded), has

    def _means(self, request: Request) -> dict[str, Tensor]:
        """The mean input of each block over the tokens of this turn's own prompt."""
        self._runs = ()
        ids = encode_prompt(request, self._engine._base.tokenizer)
        self._model(torch.tensor([ids]), use_cache=False)
        return {block: self._blocks[block][0].mean(0) for block in self.layout.sites.blocks}

    def _adding(self, path: str):
        def hook(module, args: tuple[Tensor], y: Tensor) -> Tensor:
            x, y = args[0], y.clone()
            for run in self._runs:
                part = slice(run.start, run.end)
                gate = run.mix.decision.gate
                scope = block_of(path) if gate is None or gate.per == "module" else gate.scope(path)
                block = self._blocks[scope]
                mixed = mix_at(run.mix, path, x[:, part], block[:, part])
                if mixed.update is not None:
                    y[:, part] += mixed.update
                if self._told is None:
                    continue
                added = contribution(
                    run.mix, run.has, path, x[:, part], y=y[:, part], alpha=mixed.alpha
                )
                here = torch.tensor([path in modules for modules in run.has]).expand(added.shape)
                self._told[path].append((run, mixed.alpha, added, here))
            return y

        return hook
