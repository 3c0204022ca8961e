"""The tabs of the page, from left to right: a new one is a folder like these, and a line here."""

from collections.abc import Callable

import gradio as gr

from ramole_core import Ramole

from .ask.tab import tab as ask
from .batch.tab import tab as batch
from .compare.tab import tab as compare
from .inspect.tab import tab as inspect
from .learn.tab import tab as learn
from .pool.tab import tab as pool
from .results.tab import tab as results

TABS: tuple[Callable[[Ramole, gr.State], None], ...] = (
    ask,
    lambda ramole, run: compare(ramole),
    inspect,
    lambda ramole, run: pool(ramole),
    lambda ramole, run: batch(ramole),
    lambda ramole, run: results(),
    lambda ramole, run: learn(ramole),
)
