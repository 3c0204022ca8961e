"""The linear layers of a model that adapters may change: the module axis of every table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, eq=False)
class Sites:
    """Module paths in their order, and their sizes; one object for each loaded model."""

    paths: tuple[str, ...]
    shapes: Mapping[str, tuple[int, int]] = field(repr=False)
    """(i, o) of each path."""

    @cached_property
    def at(self) -> dict[str, int]:
        """The place of each path on the module axis."""
        return {path: n for n, path in enumerate(self.paths)}

    @cached_property
    def scopes(self) -> dict[str, dict[str, int]]:
        """The blocks or parents whose input a gate may read, by `Gate.per`; each with the place of
        one of its modules."""
        every = list(enumerate(self.paths))
        return {
            "block": {block_of(path): n for n, path in every},
            "parent": {parent_of(path): n for n, path in every},
        }

    @cached_property
    def blocks(self) -> dict[str, int]:
        """Path of each block that holds modules -> the size of its input (its first module's i)."""
        found: dict[str, int] = {}
        for path in self.shapes:
            found.setdefault(block_of(path), self.shapes[path][0])
        return found


def parent_of(path: str) -> str:
    """The parent module: `model.layers.3.mlp` of `model.layers.3.mlp.up_proj`."""
    return path.rpartition(".")[0]


def block_of(path: str) -> str:
    """The block that a module is in: `model.layers.3` of `model.layers.3.mlp.up_proj`."""
    found = re.match(r"(.*?\.\d+)\.", path)
    return found[1] if found else parent_of(path)
