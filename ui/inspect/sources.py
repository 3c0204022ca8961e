"""The runs that can be inspected: the answer in Ask and those that were recorded; each in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ..charts.recorded import recorded_run
from ..charts.run import Run
from ..parts.asked import counted, ending, mixed_words
from ..parts.link import link_to, link_to_recorded
from ..parts.markup import clipped

MAX_PROMPT = 400
"""Characters of a prompt."""
PICK = (
    '<p class="quiet">Pick a token, with a click or the arrow keys: it is marked in every picture, '
    "and this place says which adapters moved it.</p>"
)
NOBODY = (
    "No adapter was at work in this answer, so there is nothing to draw. Choose another run above, "
    "or ask in the tab Ask with a method that mixes adapters."
)
NO_TRACE = "This answer was kept without its trace, so there is nothing to draw."
NO_TOKEN = (
    "This answer ended before its first token, so there is nothing to draw. Ask again, or choose "
    "another run above."
)


def origin(run: Run) -> str:
    """`Recorded run: Capital letters`, or that it is the answer in Ask."""
    return f"Recorded run: {run.title}" if run.title else "Your answer in Ask"


def head_html(run: Run) -> str:
    """Where the run is from, its prompt, its method, and how it ended."""
    answer = run.answer
    turns = len(run.request.history)
    length = counted(len(run.pieces), "token")
    said = f"{mixed_words(run.request)}. {length}; {ending(answer.finish_reason)}."
    chat = f" Turn {turns + 1} of a conversation." if turns else ""
    return f'<h2>{escape(origin(run))}</h2>{_asked(run)}<p class="quiet">{escape(said + chat)}</p>'


def side_html(label: str, run: Run) -> str:
    """One of two runs that are compared."""
    return f"<div><h4>{escape(label)}: {escape(mixed_words(run.request))}</h4>{_asked(run)}</div>"


def _asked(run: Run) -> str:
    return f'<p class="asked">{escape(clipped(run.request.prompt, MAX_PROMPT))}</p>'


def empty_sentence(run: Run) -> str:
    """Why a run has no pictures."""
    if not run.experts:
        return NOBODY
    return NO_TRACE if run.answer.trace is None else NO_TOKEN


ALONE = 0.9
"""An adapter with this share of all contributions does the answer alone."""
FROM_ASK = "the answer in Ask"
TAB = "inspect"
ASKED = -1
"""In place of a recorded run's number: the answer in Ask."""


@dataclass(frozen=True)
class Inspected:
    """The run that is shown."""

    run: Run | None
    name: str
    """Name of the run, for the browser."""
    source: int
    """`ASKED`, or the number of a recorded run."""
    asked: Run | None
    """Run of Ask at that time; a newer one is shown when the tab is opened again."""


@dataclass(frozen=True)
class Sources:
    """The runs that can be chosen."""

    files: Sequence[Path]
    """Recorded ones."""

    def choices(self, asked: Run | None) -> list[tuple[str, int]]:
        """Names of all runs, each with its number."""
        live = [] if asked is None else [(_named(asked), ASKED)]
        return [
            *live,
            *((f"recorded: {self.recorded(n).title}", n) for n in range(len(self.files))),
        ]

    def recorded(self, n: int) -> Run:
        """Recorded run n."""
        return recorded_run(self.files[n])

    def link(self, source: int, asked: Run | None) -> str:
        """The end of an address that shows this run; empty where there is none."""
        if (run := self.run(source, asked)) is None:
            return ""
        if run.title:
            titles = {self.recorded(n).title: path.stem for n, path in enumerate(self.files)}
            return link_to_recorded(titles[run.title], tab=TAB) if run.title in titles else ""
        return link_to(run.request, beside=run.beside is not None, tab=TAB)

    def start(self) -> int:
        """The recorded run to begin with: the first one in which adapters share the work, so that
        there is something to see; the first of all, where there is none."""
        for n in range(len(self.files)):
            shares = self.recorded(n).shares
            if shares.size and shares.mean(0).max() < ALONE:
                return n
        return 0

    def run(self, source: int, asked: Run | None) -> Run | None:
        """The run of this number; None where there is none."""
        if source == ASKED:
            return asked
        return self.recorded(source) if 0 <= source < len(self.files) else None


def _named(asked: Run) -> str:
    return f"{FROM_ASK} (recorded: {asked.title})" if asked.title else FROM_ASK
