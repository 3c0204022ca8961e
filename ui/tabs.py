"""The tabs of the page, from left to right: a new one is a folder like these, and a line here."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .ask.examples import recorded_files
from .ask.tab import tab as ask
from .ask.takeaway import write_files
from .batch.tab import tab as batch
from .compare.tab import tab as compare
from .inspect.sources import Sources
from .inspect.tab import tab as inspect
from .learn.tab import tab as learn
from .pool.tab import tab as pool
from .results.tab import tab as results

if TYPE_CHECKING:
    import gradio as gr

    from ramole_core import Ramole


def runs() -> Sources:
    """The source of runs for Inspect: Ask's recorded runs, and its files."""
    return Sources(recorded_files(), write_files)


TABS: "tuple[Callable[[Ramole, gr.State], None], ...]" = (
    ask,
    lambda ramole, run: compare(ramole),
    lambda ramole, run: inspect(ramole, run, runs()),
    lambda ramole, run: pool(ramole),
    lambda ramole, run: batch(ramole),
    lambda ramole, run: results(),
    lambda ramole, run: learn(ramole),
)
