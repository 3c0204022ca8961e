"""A linear layer that adds each request's decided update.

`Mixer` is what all mixed layers of a model share: the decisions of the batch that runs now, the
inputs of its blocks, and the weights that it reports.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ramole_core.base.experts import experts_in
from ramole_core.composition import block_of, parent_of
from ramole_core.layers.install import Installation, watch_blocks, wrap
from ramole_core.layers.layout import TraceAxes, find_places
from ramole_core.layers.plain.mix import Mixed, PlainMix, mix_at


class Mixer:
    """The decisions in force, one a row or one for all, and the trace of the running forward."""

    def __init__(self, places: TraceAxes):
        self.places = places
        self._groups: list[tuple[PlainMix, list[int]]] = []
        self._b = 0
        self.blocks: dict[str, Tensor] = {}
        """Input of each block, and of each module's parent, of the forward that runs."""
        self.alpha: dict[str, Tensor] | None = None
        """By module path, [b, l, k]; None: not recorded."""
        self.scores: dict[str, Tensor] = {}
        """The same of the gates, before the softmax."""
        self._tokens: Tensor | None = None
        """Places of the tokens that the running expert was given; None: all."""

    @contextmanager
    def mixing(self, mixes: Sequence[PlainMix], *, trace: bool = False) -> Iterator[None]:
        """Mix these decisions in forwards inside the block: one for each row, or one for all."""
        groups: dict[int, tuple[PlainMix, list[int]]] = {}
        for row, mix in enumerate(mixes):
            groups.setdefault(id(mix), (mix, []))[1].append(row)
        self._groups, self._b = list(groups.values()), len(mixes)
        self.alpha, self.scores = {} if trace else None, {}
        try:
            yield
        finally:
            self._groups, self.blocks = [], {}

    @property
    def mixes(self) -> bool:
        return bool(self._groups)

    def see(self, path: str, x: Tensor) -> None:
        """Enter a block or parent with this input."""
        if self.mixes:
            self.blocks[path] = self._whole(path, x)

    def watch_experts(self, model: nn.Module) -> list[RemovableHandle]:
        """Give an expert's layers its own tokens alone while it runs."""

        def begin(expert: nn.Module, args: tuple[Tensor, Tensor, object]) -> None:
            self._tokens = args[1]

        def end(expert: nn.Module, args: object, out: object) -> None:
            self._tokens = None

        experts = [one for every in experts_in(model) for one in every.each()]
        handles = [one.register_forward_pre_hook(begin) for one in experts]
        return handles + [one.register_forward_hook(end, always_call=True) for one in experts]

    def _whole(self, path: str, x: Float[Tensor, "*n i"]) -> Float[Tensor, "b l i"]:
        """Scatter an expert's tokens into the block's rows; 0 at other tokens."""
        if x.ndim == 3:
            return x
        b, l = self.blocks[block_of(path)].shape[:2]
        if self._tokens is not None:
            x = x.new_zeros(b * l, x.shape[-1]).index_copy(0, self._tokens, x)
        return x.view(b, l, -1)

    def add(self, path: str, x: Float[Tensor, "*n i"], y: Float[Tensor, "*n o"]) -> Tensor:
        """y with every row's update added."""
        if x.ndim == 3:
            return self._add(path, x, y)
        made = self._add(path, self._whole(path, x), self._whole(path, y)).flatten(0, 1)
        if self._tokens is None:
            return made
        for kept in (self.alpha or {}, self.scores):
            if path in kept:
                here = kept[path].new_zeros(len(made), 1).index_fill(0, self._tokens, 1)
                kept[path] = kept[path].expand(*self.blocks[block_of(path)].shape[:2], -1)
                kept[path] = kept[path] * here.view(*kept[path].shape[:2], 1)
        return made[self._tokens]

    def _add(self, path: str, x: Float[Tensor, "b l i"], y: Float[Tensor, "b l o"]) -> Tensor:
        if len(self._groups) == 1:
            mix = self._groups[0][0]
            mixed = mix_at(mix, path, x, self._scope(mix, path))
            self._report(path, mixed)
            return y if mixed.update is None else y + mixed.update.to(y.dtype)
        k = max(mix.k for mix, _ in self._groups)
        order = [row for _, rows in self._groups for row in rows]
        back = torch.tensor(order, device=x.device).argsort()
        outs, every, scores = [], [], []
        gated = False
        for mix, rows in self._groups:
            block = self._scope(mix, path)
            mixed = mix_at(mix, path, _part(x, rows), None if block is None else _part(block, rows))
            here = _part(y, rows)
            outs.append(here if mixed.update is None else here + mixed.update.to(y.dtype))
            if self.alpha is not None:
                nothing = mixed.alpha.new_zeros(mixed.alpha.shape)
                gated = gated or mixed.scores is not None
                for kept, found in ((every, mixed.alpha), (scores, mixed.scores)):
                    wide = (nothing if found is None else found).float()
                    kept.append(F.pad(wide, (0, k - mix.k)))
        if self.alpha is not None:
            alpha = torch.cat(every)[back]
            self._report(path, Mixed(None, alpha, torch.cat(scores)[back] if gated else None))
        return torch.cat(outs)[back]

    def _scope(self, mix: PlainMix, path: str) -> Tensor | None:
        """The gate's input, where it is not the module's own."""
        gate = mix.decision.gate
        return None if gate is None else self.blocks.get(gate.scope(path))

    def _report(self, path: str, mixed: Mixed) -> None:
        if self.alpha is not None:
            self.alpha[path] = mixed.alpha
            if mixed.scores is not None:
                self.scores[path] = mixed.scores

    def weights(self, b: int, l: int, k: int) -> Float[Tensor, "b l layer module k"]:
        """The weights of the last traced forward, float16 on the CPU; 0 where nothing was mixed."""
        layers, modules = len(self.places.layers), len(self.places.modules)
        every = torch.zeros(layers, modules, b, l, k, dtype=torch.float16)
        for path, alpha in (self.alpha or {}).items():
            every[self.places.at[path]] = alpha.detach().expand(b, l, -1).to("cpu", torch.float16)
        self.alpha = None
        return every.permute(2, 3, 0, 1, 4)


def _part(x: Tensor, rows: Sequence[int]) -> Tensor:
    """These rows, without a copy where they follow each other."""
    first, count = rows[0], len(rows)
    return x[first : first + count] if rows[-1] - first == count - 1 else x[list(rows)]


class MixedLinear(nn.Module):
    """y = W x + sum_k alpha_k B_k A_k x, in place of the base model's linear layer."""

    def __init__(self, base: nn.Module, path: str, mixer: Mixer):
        super().__init__()
        self.base = base
        self.path = path
        self.mixer = mixer

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: some models read its dtype."""
        return self.base.get_parameter("weight")

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        y = self.base(x)
        return self.mixer.add(self.path, x, y) if self.mixer.mixes else y


@dataclass(frozen=True)
class MixedInstallation(Installation):
    """Mixed layers in a model, and what they share."""

    mixer: Mixer = field(kw_only=True)


def install(model: nn.Module, paths: Iterable[str]) -> MixedInstallation:
    """Install mixed layers at these module paths; raises ValueError where one exists already."""
    mixer = Mixer(find_places(paths := list(paths)))
    layers = {path: MixedLinear(model.get_submodule(path), path, mixer) for path in paths}
    scopes = {of(path) for path in paths for of in (block_of, parent_of)}
    handles = mixer.watch_experts(model) + watch_blocks(model, scopes, mixer.see)
    return MixedInstallation(**vars(wrap(model, layers, handles)), mixer=mixer)
