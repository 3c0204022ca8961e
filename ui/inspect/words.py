"""A run in words: where it is from, what was asked and how."""

from html import escape

from ..charts.run import Run
from ..parts.asked import ending, mixed_words
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
    said = f"{mixed_words(run.request)}. {len(run.pieces)} tokens; {ending(answer.finish_reason)}."
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
