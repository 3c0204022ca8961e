"""Recorded runs, as files (`charts/recorded.py`).

They show a visitor an answer before any model is loaded. `python -m ui.ask.record` makes them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from ..charts.recorded import recorded_run
from ..charts.run import Run
from ..parts.choices import choices
from ..parts.prompts import LIVE, Example

MAX_VISIBLE = 6
"""Recorded runs outside the fold."""
MORE = "More prompts to try"


def _live(of: str, **changes: Any) -> Example:
    """A prompt to try, recorded under its own title or another one."""
    (found,) = (one for one in LIVE if one.title == of)
    return replace(found, **changes)


FACTS = "Facts to a sentence"
RECORDED = (
    _live("Capital letters"),
    _live("Words without spaces"),
    _live("Voice command to JSON"),
    _live("Question to SQL"),
    _live("Question to SQL", title="A chat: capital letters, then SQL", after="Capital letters"),
    Example("Nothing fits: who are you?", "Who are you?"),
    _live("Python function"),
    _live(FACTS),
    _live("One sentence into two"),
    _live("Words to regex"),
    _live("Answer from a text"),
    _live("Missing commas"),
    _live("Sum in words"),
    _live("Spam?"),
    Example(
        "Two tasks at once, by MeteoRA: one is left out",
        "Fix the capital letters in the following text: on friday anna left oslo.\n"
        "Segment this text into words: thefirstferrycrossed",
        method="meteora",
    ),
    Example(
        "Retrieval fails: a wrong adapter is taken",
        "Count the words in this sentence: the boat left early.",
    ),
    _live(FACTS, title="Facts to a sentence, by MeteoRA", method="meteora",
          adapters=("dart", "e2e_nlg", "common_gen")),
    _live(FACTS, title="Facts to a sentence, by the trained gate", method="ramole"),
)  # fmt: skip
"""Runs of `python -m ui.ask.record`; the first is open when the page opens."""


def earlier_runs(run: Run, files: Sequence[Path]) -> dict[int, Run]:
    """Of the earlier turns of a recorded chat, by place, those that are recorded themselves."""
    known = [recorded_run(path) for path in files] if run.request.history else []
    return {
        place: one
        for place, (user, assistant, *_) in enumerate(run.request.history)
        for one in reversed(known)
        if (one.request.prompt, one.answer.text) == (user, assistant) and not one.request.history
    }


def example_choices(
    recorded: Sequence[str], live: Sequence[str]
) -> tuple[gr.HTML, gr.HTML, gr.HTML]:
    """Recorded runs, as many as fit into a line or two; folded, the others, and the live prompts
    that are not recorded."""
    runs = {i: ("examples", title) for i, title in enumerate(recorded)}
    asked = {i: ("asked now", title) for i, title in enumerate(live) if title not in recorded}
    first = {i: run for i, run in runs.items() if i < MAX_VISIBLE}
    label = "Recorded runs, shown without the model"
    kept = choices(first, label, elem_id="examples-recorded", kind="recorded")
    with gr.Accordion(MORE, open=False, elem_id="examples-fold", visible=bool(asked)):
        rest = {i: run for i, run in runs.items() if i not in first}
        others = choices(rest, label, elem_id="examples-more", kind="recorded")
        label = "Live prompts, asked now"
        prompts = choices(asked, label, elem_id="examples-live", kind="live")
    return kept, others, prompts
