"""Where a model's linear layers are: module path -> (layer number, short name), in order."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Places:
    """The axes of a trace: layers, module names, and each module path's place among them."""

    layers: tuple[int, ...]
    modules: tuple[str, ...]
    """Short names (`q_proj`); two with the same last part keep their parent's name before it."""
    at: dict[str, tuple[int, int]]
    """Module path -> (index into layers, index into modules)."""


def find_places(paths: Iterable[str]) -> Places:
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
    return Places(layers, modules, at)


def _with_parent(tail: str) -> str:
    """`mlp.up_proj`, or `experts.3.up_proj` where the parent is one of many."""
    parts = tail.split(".")
    return ".".join(parts[-3:] if len(parts) > 2 and parts[-2].isdigit() else parts[-2:])


def _split(path: str) -> tuple[int, str]:
    found = re.search(r"\.(\d+)\.(.+)$", path)
    return (int(found[1]), found[2]) if found else (0, path)
