"""Find the methods with trained weights for the base model's layers.

A page lists methods before torch is imported and before a base is fetched, so names and sizes are
read from the headers of the files alone. `MODULE.A_r` [s, i], `MODULE.B_r` [o, s] and their like
must find a weight of the base under the same name in its block; `base_shapes` in the record of a
training run is read in the same way, for weights that name no module.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ramole_core.base.fetch import find_base
from ramole_core.base.files import read_head, read_json, weight_shapes, weights_checksum
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST, Method
from ramole_core.settings import trained_folder

DOWN, UP = ("A", "A_r", "a1", "W"), ("B", "B_r", "a2")
"""Tensors whose last size is the input of their layer, and whose first is its output."""
BLOCK = re.compile(r"[^./]+\.\d+(\.|$)")
"""Part of a module path that is the same in every wrapper class: `layers.0.`"""


class WeightsHere:
    """The trained weights beside a sample pool, checked against one base model."""

    def __init__(self, adapters_dir: Path, *, base_model: str, data_dir: Path):
        self._adapters, self._base_model, self._data_dir = adapters_dir, base_model, data_dir
        self._judged: dict[tuple[str, int, Path | None], bool] = {}

    def methods(self) -> tuple[Method, ...]:
        """Those that can answer, in the order of every list."""
        return tuple(row for row in METHOD_LIST if self.answers(row))

    def answers(self, row: Method) -> bool:
        """Whether the method needs no training, or was trained for this base."""
        return row.is_trained_in(self._folder(row)) and self.fits(row)

    def fits(self, row: Method) -> bool:
        """Whether the method's weights, if any, fit this base."""
        file = row.weights_in(self._folder(row))
        if file is None or not file.is_file():
            return True
        base = find_base(self._base_model, data_dir=self._data_dir)
        key = (row.name, file.stat().st_mtime_ns, base)
        if key not in self._judged:
            self._judged[key] = self._judge(row, file, base)
        return self._judged[key]

    def require(self, row: Method) -> None:
        """Raise RamoleError where the method has no trained weights here, or another base's."""
        if not row.is_trained_in(self._folder(row)):
            raise RamoleError(
                f"No trained weights are here of method {row.name!r}; choose one of "
                f"{', '.join(one.name for one in self.methods())}."
            )
        self.check(row)

    def check(self, row: Method) -> None:
        """Raise RamoleError where the method's weights are of another base."""
        if not self.fits(row):
            of = self._record(row).get("base_model", "another base model")
            raise RamoleError(
                f"The trained weights of {row.name} are of {of}, and {self._base_model} has other "
                f"layers; train them with `python -m ramole_core train method "
                f"{row.name}`, or choose another method, such as mixture."
            )

    def _folder(self, row: Method) -> Path:
        """The parent folder of its weights: the user's own, or the sample pool."""
        own = self._data_dir / "trained"
        return trained_folder(row.weights, self._adapters, own=own).parent if row.weights else own

    def _judge(self, row: Method, file: Path, base: Path | None) -> bool:
        record = self._record(row)
        same_name = record.get("base_model", self._base_model) == self._base_model
        try:
            wanted = list(_wanted(read_head(file), record))
            there = {} if base is None else _by_block(weight_shapes(base))
        except (OSError, ValueError):
            return True  # broken: its reader says so
        if base is None or not there or not wanted:
            return same_name
        if all(_is_there(path, sizes, there) for path, sizes in wanted):
            return True
        if not same_name:
            return False
        # trained on this very base, which names its weights otherwise on disk than in memory
        return record.get("base_checksum") == weights_checksum(base, data_dir=self._data_dir)

    def _record(self, row: Method) -> Mapping[str, object]:
        file = row.weights_in(self._folder(row))
        return {} if file is None else read_json(file.with_name(f"{file.stem}_config.json"))


def _wanted(
    head: Mapping[str, tuple[int, ...]], record: Mapping[str, object]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The layers that the weights depend on, with the sizes required."""
    for name, shape in head.items():
        path, _, leaf = name.rpartition("/")[2].rpartition(".")
        if path:
            yield path, shape[-1:] if leaf in DOWN else shape[:1] if leaf in UP else ()
    shapes = record.get("base_shapes")
    for path, sizes in shapes.items() if isinstance(shapes, dict) else ():
        yield str(path), tuple(sizes)


def _is_there(path: str, sizes: tuple[int, ...], there: Mapping[str, set[int]]) -> bool:
    """Whether the base has the layer, or the block, with such sizes."""
    begins = BLOCK.search(path)
    place = path[begins.start() :] if begins else path
    return set(sizes) <= there[place] if place in there else False


def _by_block(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, set[int]]:
    """The sizes of each weight of the base, and of all in each part of a block, by their place."""
    found: dict[str, set[int]] = {}
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        begins = BLOCK.search(path)
        if leaf != "weight" or begins is None:
            continue
        parts = path[begins.start() :].split(".")
        for n in range(2, len(parts) + 1):  # `layers.0`, `layers.0.mlp`, `layers.0.mlp.up_proj`
            found.setdefault(".".join(parts[:n]), set()).update(shape)
    return found
