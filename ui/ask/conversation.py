"""A conversation: its earlier turns, in the next request and on the page.

An earlier turn is sent with the adapters that it had, and so keeps them. The bare base beside an
answer reads the same turns, the mixture's answers included, all by itself.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import gradio as gr
import numpy as np

from ramole_core import Request

from ..charts.run import NAMED, UNCOMPARED, Run
from ..charts.tokens import TEMPLATE, token_script, view_of, view_of_run
from ..parts.events import script_beside, scripted

HTML = '<ol class="talk" aria-label="Earlier turns of this conversation"></ol>'
EMPTY: dict[str, Any] = {"turns": [], "asked": ""}
"""The view of no conversation."""


@dataclass(frozen=True)
class Turn:
    """One earlier turn, reduced to what the next request needs."""

    name: str
    """Name of its run, for the browser and for lookups."""
    user: str
    assistant: str
    adapters: tuple[str, ...]
    """Its adapters; none: the base alone."""


def turn_of(run: Run, name: str) -> Turn:
    """A run that has ended, as an earlier turn."""
    return Turn(name, run.request.prompt, run.answer.text, tuple(run.answer.adapters))


def continued(request: Request, turns: Sequence[Turn], *, drop: bool) -> Request:
    """The request after these turns; `drop`: without the oldest, where they do not fit."""
    history = [(turn.user, turn.assistant, turn.adapters) for turn in turns]
    asked = replace(request, history=history, drop_turns=drop and bool(turns))
    return asked.by_base() if request.method == "base" else asked


def shortened(run: Run) -> Run:
    """The run without its prompt's part of the trace, which grows with every turn."""
    trace = run.answer.trace
    if trace is None:
        return run
    cut = trace.prompt_length - 1
    arrays = {
        name: value[cut:].copy()
        for name, value in vars(trace).items()
        if isinstance(value, np.ndarray) and len(value) == len(trace.tokens)
    }
    tokens, ids = trace.tokens[cut:], trace.token_ids[cut:]
    short = replace(trace, tokens=tokens, token_ids=ids, prompt_length=1, **arrays)
    before = (*run.before, *trace.token_ids[:cut])
    return replace(run, answer=replace(run.answer, trace=short), before=before)


def conversation_view(*, elem_id: str) -> gr.HTML:
    """The component; its value is what `view_of_conversation` returns."""
    script = script_beside(__file__, "conversation.js")
    script = script.replace("'TEMPLATE'", json.dumps(TEMPLATE))
    script = script.replace("/* tokens.js */", token_script())
    return scripted(EMPTY, HTML, script, elem_id=elem_id)


def view_of_conversation(
    turns: Sequence[Turn], run_of: Callable[[str], Run | None], *, asked: str
) -> dict[str, Any]:
    """The view's value: the earlier turns, and the current question.

    `run_of` gives a turn's run by its name; without it the turn is text alone.
    """
    return {
        "turns": [_turn(turn, run_of(turn.name)) for turn in turns],
        "asked": asked,
    }


def turns_of(
    history: Sequence[Sequence[Any]], kind: str, there: Collection[str] | None = None
) -> tuple[Turn, ...]:
    """The earlier turns of a request; `there`: with those of their adapters alone that are here."""
    turns = []
    for place, (user, said, *names) in enumerate(history):
        had = names[0] or () if names else ()
        adapters = tuple(name for name in had if there is None or name in there)
        turns.append(Turn(f"{kind}-{place}", str(user), str(said), adapters))
    return tuple(turns)


def _turn(turn: Turn, run: Run | None) -> dict[str, Any]:
    shown = {"name": turn.name, "prompt": turn.user, "beside": None}
    if run is None:
        view = view_of([turn.assistant], [], [], run=turn.name, running=False)
        view |= {"plain": True, "meaning": ""}  # nothing is kept to open, or to name who led
        return {**shown, "how": ", ".join(turn.adapters) or "the base alone", "view": view}
    beside = run.beside.text if run.beside else None
    return {**shown, "beside": beside, "how": _how(run), "view": view_of_run(run, turn.name)}


def _how(run: Run) -> str:
    """The method, and the adapters found with their similarity."""
    scores = zip(run.answer.adapters, run.answer.scores, strict=True)
    without = UNCOMPARED if run.request.adapters is None else NAMED
    found = [f"{name} {without if isnan(score) else f'{score:.3f}'}" for name, score in scores]
    return f"{run.request.method}: " + (", ".join(found) or "no adapter")
