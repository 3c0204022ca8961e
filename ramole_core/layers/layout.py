"""The layout of a model's linear layers: groups with one input, repeated over blocks.

Projections with one input (q, k, v; gate, up) can share the first product of their adapters. Who
shares is not guessed from names: one forward of one token shows which layers get the same tensor.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from ramole_core.base.experts import Expert
from ramole_core.composition import Sites


@dataclass(frozen=True)
class TraceAxes:
    """The axes of a trace: layers, module names, and each module path's place among them."""

    layers: tuple[int, ...]
    modules: tuple[str, ...]
    """Short names (`q_proj`); two with the same last part keep their parent's name before it."""
    at: dict[str, tuple[int, int]]
    """Module path -> (index into layers, index into modules)."""


def find_places(paths: Iterable[str]) -> TraceAxes:
    """Sort module paths such as `model.layers.0.self_attn.q_proj` into layers and short names."""
    split = {path: _split(path) for path in paths}
    tails = list(dict.fromkeys(tail for _, tail in split.values()))
    last = [tail.rpartition(".")[2] for tail in tails]
    short = {
        tail: name if last.count(name) == 1 else _with_parent(tail)
        for tail, name in zip(tails, last, strict=True)
    }
    layers = tuple(sorted({layer for layer, _ in split.values()}))
    modules = tuple(dict.fromkeys(short.values()))
    at = {
        path: (layers.index(layer), modules.index(short[tail]))
        for path, (layer, tail) in split.items()
    }
    return TraceAxes(layers, modules, at)


def _with_parent(tail: str) -> str:
    """`mlp.up_proj`, or `experts.3.up_proj` where the parent is one of many."""
    parts = tail.split(".")
    return ".".join(parts[-3:] if len(parts) > 2 and parts[-2].isdigit() else parts[-2:])


def _split(path: str) -> tuple[int, str]:
    found = re.search(r"\.(\d+)\.(.+)$", path)
    return (int(found[1]), found[2]) if found else (0, path)


@dataclass(frozen=True)
class Group:
    """m linear layers with one input in each of L blocks of equal sizes."""

    paths: tuple[tuple[str, ...], ...]
    """[L][m] module paths."""
    i: int
    o: tuple[int, ...]
    of_experts: bool = False
    """Whether they run on some of a forward's tokens, or on none."""

    @property
    def m(self) -> int:
        return len(self.o)

    @property
    def unit_numbers(self) -> int:
        """Numbers in one rank unit of the group: the sum of i + o."""
        return len(self.paths) * (self.m * self.i + sum(self.o))


@dataclass(frozen=True)
class Layout:
    """All mixed layers of a model: by group, block and module, which is also their flat order."""

    groups: tuple[Group, ...]
    places: TraceAxes

    @cached_property
    def flat(self) -> tuple[str, ...]:
        """Every module path, in flat order."""
        return tuple(path for group in self.groups for block in group.paths for path in block)

    @cached_property
    def sites(self) -> Sites:
        """The layout as `Sites` for composition methods, modules in flat order."""
        shapes = {
            path: (group.i, o)
            for group in self.groups
            for block in group.paths
            for path, o in zip(block, group.o, strict=True)
        }
        return Sites(self.flat, shapes)

    @cached_property
    def has_experts(self) -> bool:
        """Whether some layers run on only some of a forward's tokens."""
        return any(group.of_experts for group in self.groups)

    def address(self, n: int) -> tuple[int, int, int]:
        """Group, block and place in the group of the n-th module."""
        g = max(g for g, start in enumerate(self.starts) if start <= n)
        block, j = divmod(n - self.starts[g], self.groups[g].m)
        return g, block, j

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Flat index of each group's first module."""
        sizes = [len(group.paths) * group.m for group in self.groups]
        return tuple(sum(sizes[:g]) for g in range(len(sizes)))

    def first(self, g: int, block: int) -> int:
        """Flat index of the first module of a group in a block."""
        return self._firsts[g][block]

    @cached_property
    def _firsts(self) -> list[list[int]]:
        return [
            [start + block * group.m for block in range(len(group.paths))]
            for start, group in zip(self.starts, self.groups, strict=True)
        ]

    @cached_property
    def trace_order(self) -> list[int]:
        """Place of each flat module in a trace's (layer, module) axes, row-major."""
        width = len(self.places.modules)
        return [row * width + column for row, column in (self.places.at[p] for p in self.flat)]

    def as_trace(self, flat: Shaped[Tensor, "l modules k"]) -> Shaped[Tensor, "l layer module k"]:
        """From flat order to a trace's axes; 0 where there is no such module."""
        layers, modules = len(self.places.layers), len(self.places.modules)
        if len(self.flat) == layers * modules:  # all are there, as in most models
            every = flat.index_select(1, self._in_trace_order.to(flat.device))
        else:
            every = flat.new_zeros(len(flat), layers * modules, flat.shape[-1])
            every[:, self.trace_order] = flat
        return every.view(len(flat), layers, modules, -1)

    @cached_property
    def _in_trace_order(self) -> Int[Tensor, "modules"]:
        """The flat module at each place of a trace, where every place has one."""
        return torch.tensor(self.trace_order).argsort()

    @property
    def unit_numbers(self) -> int:
        """Numbers in one rank unit over all modules: the sum of i + o."""
        return sum(group.unit_numbers for group in self.groups)


def find_layout(model: nn.Module, shapes: Mapping[str, tuple[int, int]]) -> Layout:
    """Group the linear layers at the paths of `shapes`, (i, o) each, by the input they share."""
    blocks = _shared_inputs(model, list(shapes))
    order = {path: n for n, path in enumerate(shapes)}
    kinds: dict[tuple, list[tuple[str, ...]]] = {}
    for block in blocks:
        tails = tuple(path.rpartition(".")[2] for path in block)
        within = isinstance(model.get_submodule(block[0].rpartition(".")[0]), Expert)
        kind = (within, tails, *(shapes[path] for path in block))
        kinds.setdefault(kind, []).append(tuple(block))
    groups = [
        Group(
            tuple(sorted(paths, key=lambda block: order[block[0]])),  # called or not
            i=shapes[paths[0][0]][0],
            o=tuple(shapes[p][1] for p in paths[0]),
            of_experts=kind[0],
        )
        for kind, paths in kinds.items()
    ]
    return Layout(tuple(groups), find_places(shapes))


@torch.inference_mode()
def _shared_inputs(model: nn.Module, paths: list[str]) -> list[list[str]]:
    """Paths in the order of their call, those with the very same input tensor together."""
    calls: list[tuple[str, Tensor]] = []

    def watch(path: str):
        return lambda module, args: calls.append((path, args[0]))

    device = next(model.parameters()).device
    handles = [model.get_submodule(path).register_forward_pre_hook(watch(path)) for path in paths]
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device))
    finally:
        for handle in handles:
            handle.remove()
    blocks: list[list[str]] = []
    seen: dict[str, Tensor] = {}
    for path, x in calls:
        if path in seen:
            continue
        seen[path] = x
        if blocks and seen[blocks[-1][0]] is x:
            blocks[-1].append(path)
        else:
            blocks.append([path])
    return blocks + [[path] for path in paths if path not in seen]  # such as an idle expert
