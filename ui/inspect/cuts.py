"""The pictures of a run: title, hint, figure and table."""

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from ..charts.effect_bars import effect_figure, effect_table, evenness_figure, evenness_table
from ..charts.grid import Grid, grid_of
from ..charts.heat import WINNER, HeatMap, map_figure, map_table, one_layer, one_module, whole
from ..charts.loads import Side, loads_figure, loads_of, loads_table
from ..charts.plots import Table
from ..charts.run import CONTRIBUTION, EFFECT, MEASURES, Run
from ..charts.spans import PER


@dataclass(frozen=True)
class Choice:
    """The choices for the pictures, as gradio passes them."""

    what: str | None = EFFECT
    per: str | None = PER[0]
    expert: int | None = WINNER
    layer: float | None = None
    module: str | None = None


@dataclass(frozen=True)
class RunView:
    """A run with a choice that fits it."""

    run: Run
    what: str
    """Measure of the loads: one of MEASURES."""
    grid: Grid
    """Contributions or weights."""
    expert: int
    layer: int
    module: str

    @property
    def side(self) -> Side:
        """Its loads, under a title."""
        return Side("this run", loads_of(self.run, what=self.what))

    def beside(self, pinned: Run | None) -> "RunPair":
        """The loads of both; an adapter that both have keeps its letter and colour."""
        run = self.run
        other = run if pinned is None else pinned
        unmeasured = self.what == EFFECT and other.effects is None
        what = CONTRIBUTION if unmeasured else self.what
        first = Side("this run", loads_of(run, what=what))
        loads = loads_of(other, what=what, before=[*run.met, *run.experts])
        return RunPair((first, Side("pinned run", loads)), what)


@dataclass(frozen=True)
class RunPair:
    """Two runs that are compared, this one first."""

    sides: tuple[Side, Side]
    what: str

    @property
    def table(self) -> Table:
        """The table of their loads."""
        return loads_table(self.sides, what=self.what)


@dataclass(frozen=True)
class Cut:
    """One picture, with its twin."""

    name: str
    title: str
    look: str
    """Hint on what to look for."""
    figure: Callable[[RunView], go.Figure]
    table: Callable[[RunView], Table]


def seen(run: Run | None, choice: Choice) -> RunView | None:
    """The run with a choice that fits it; None where no adapter was at work."""
    if run is None:
        return None
    what = choice.what if choice.what in MEASURES else EFFECT
    grid = grid_of(run, what=what, per=choice.per if choice.per in PER else PER[0])
    if grid is None:
        return None
    if run.effects is None:
        what = grid.what
    wanted = choice.layer
    layer = grid.layers[len(grid.layers) // 2]
    if isinstance(wanted, int | float) and wanted == wanted:
        layer = min(grid.layers, key=lambda one: abs(one - wanted))
    module = choice.module if choice.module in grid.modules else grid.modules[0]
    expert = choice.expert if choice.expert in range(len(grid.experts)) else WINNER
    return RunView(run, what, grid, WINNER if expert is None else expert, layer, module)


def _map(name: str, title: str, look: str, part: Callable[[RunView], HeatMap]) -> Cut:
    return Cut(
        name,
        title,
        look,
        lambda seen: map_figure(seen.grid, part(seen), seen.expert),
        lambda seen: map_table(seen.grid, part(seen), seen.expert),
    )


EFFECTS = Cut(
    "effects",
    "Effect of each adapter",
    "Look for columns of one colour, which one adapter made likelier; for flat ones, which the "
    "base would have said as readily; and for what hangs below the line, where an adapter spoke "
    "against the token. The mark is their sum.",
    lambda seen: effect_figure(seen.run, per=seen.grid.per),
    lambda seen: effect_table(seen.run, per=seen.grid.per),
)
LAYERS = _map(
    "layers",
    "All layers",
    "Look for bands: layers in which one adapter leads from the first token to the last, and for "
    "tokens at which the lead changes in many layers at once.",
    lambda seen: whole(seen.grid),
)
LAYER = _map(
    "layer",
    "One layer",
    "Look for modules that never change hands, and for rows that stay blank because the adapter "
    "does not have that module.",
    lambda seen: one_layer(seen.grid, seen.layer),
)
MODULE = _map(
    "module",
    "One module",
    "Look for the height at which it matters: early layers (below), late ones (above), or all.",
    lambda seen: one_module(seen.grid, seen.module),
)
LOADS = Cut(
    "loads",
    "Load of each adapter",
    "Look for an adapter that was found and then hardly used, and for one that leads no token and "
    "still did something at many.",
    lambda seen: loads_figure([seen.side], what=seen.what),
    lambda seen: loads_table([seen.side], what=seen.what),
)
ENTROPY = Cut(
    "entropy",
    "How even the gate was",
    "Look for dips, where one adapter has nearly all the weight (0: all of it), and for tokens "
    "near the dashed line, where all adapters weigh the same.",
    lambda seen: evenness_figure(seen.run, per=seen.grid.per),
    lambda seen: evenness_table(seen.run, per=seen.grid.per),
)
CUTS = (EFFECTS, LAYERS, LAYER, MODULE, LOADS, ENTROPY)
