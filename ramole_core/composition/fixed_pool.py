"""The base of methods with a fixed pool: the adapters that they were trained on.

Their weights are tensors with a row for each adapter of that pool, a table for each module or
block. A request that names some of them reads those rows, in its own order.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ramole_core.composition.decision import Ask
from ramole_core.composition.lora import wide
from ramole_core.composition.method import Candidate, Composition
from ramole_core.composition.sites import Sites
from ramole_core.composition.trained import Trained
from ramole_core.errors import RamoleError


class FixedPool(Composition):
    """A method over a fixed pool: all of it where none are named; later adapters are refused."""

    def __init__(self):
        self._kept: tuple[object, dict[str, Tensor]] = (None, {})

    def pool(self, trained: Trained | None) -> Mapping[str, str] | None:
        return None if trained is None else trained.adapters

    def check(self, candidates: Sequence[Candidate], trained: Trained | None) -> None:
        if trained is not None:
            trained.places(candidates, method=self.row.name)

    def places(self, ask: Ask) -> list[int]:
        """The place of each adapter among those of the trained weights."""
        assert ask.trained is not None  # the row names them
        return ask.trained.places(ask.adapters, method=self.row.name)

    def tables(self, ask: Ask, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """Rows of the request's adapters by tensor, in their order, in float32 or wider; `shapes`
        are those of one row. Raises RamoleError where the weights are of another base.

        The last is kept: most requests take the whole pool.
        """
        trained, rows = ask.trained, self.places(ask)
        assert trained is not None
        key = (trained.checksum, ask.sites, tuple(rows), tuple(shapes))
        kept_for, kept = self._kept  # once: another thread may replace it
        if trained.checksum and kept_for == key:
            return kept
        count, made = len(trained.adapters), {}
        every = list(range(count))
        for name, shape in shapes.items():
            tensor = trained.tensors.get(name)
            if tensor is None or tuple(tensor.shape) != (count, *shape):
                found = "nothing" if tensor is None else str(tuple(tensor.shape))
                raise RamoleError(
                    f"The trained weights of {self.row.name} have {found} as {name}, where this "
                    f"base model and their {count} adapters need {(count, *shape)}; train them "
                    f"again with `python -m ramole_core train method {self.row.name}`."
                )
            made[name] = wide(tensor if rows == every else tensor[rows])
        if trained.checksum:
            self._kept = (key, made)
        return made

    def linear(self, ask: Ask, inputs: Mapping[str, int]) -> dict[str, Tensor]:
        """W [k, i] by module or block path, of the trained `PATH.W`; `inputs` are the i of each."""
        made = self.tables(ask, {f"{path}.W": (i,) for path, i in inputs.items()})
        return {path: made[f"{path}.W"] for path in inputs}


def inputs_of(sites: Sites) -> dict[str, int]:
    """i of each module."""
    return {path: i for path, (i, _) in sites.shapes.items()}
