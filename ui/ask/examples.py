"""Recorded runs: everything that the page shows of an answer, as files (`charts/recorded.py`).

With them a visitor sees an answer before any model is there. `python -m ui.ask.record` makes them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..charts.recorded import FOLDER, read_run
from ..charts.run import Run
from ..parts.prompts import LIVE

RECORDED_TITLES = (
    "Voice command to JSON",
    "Capital letters",
    "Question to SQL",
    "Facts to a sentence",
    "Python function",
)
RECORDED = (
    *(one for one in LIVE if one.title in RECORDED_TITLES),
    *(
        replace(one, title=f"{one.title}, by the trained gate", method="ramole")
        for one in LIVE
        if one.title == "Facts to a sentence"
    ),
    *(
        replace(one, title="A chat: capital letters, then SQL", after="Capital letters")
        for one in LIVE
        if one.title == "Question to SQL"
    ),
)
"""What `python -m ui.ask.record` runs."""


def recorded_files(folder: Path | None = None) -> list[Path]:
    """The recorded runs in `folder` (unset: ours), in the order of their names."""
    return sorted((folder or FOLDER).glob("*.json"))


def earlier_runs(run: Run, files: Sequence[Path]) -> dict[int, Run]:
    """Of the earlier turns of a recorded chat, by place, those that are recorded themselves."""
    known = [read_run(path) for path in files] if run.request.history else []
    return {
        place: one
        for place, (user, assistant, *_) in enumerate(run.request.history)
        for one in reversed(known)
        if (one.request.prompt, one.answer.text) == (user, assistant) and not one.request.history
    }
