"""Shared fields of the forms: method, k and the length of an answer."""

from collections.abc import Sequence
from html import escape
from typing import Any, Literal

import gradio as gr

from ramole_core import DEFAULT_METHOD, MEASURED, TRAINING_STEPS, Ramole, RamoleError, untrained

MAX_K = 8
TOKENS = "Most new tokens (pieces of words)"
USUAL = {
    "ramole_plus": "finds what fits; where nothing does, the base answers",
    "ramole": "as published: a trained gate sets the weights for each token (piece of a word)",
    "selection": "the one adapter that is nearest",
    "mixture": "the k nearest, each as strong as the others",
    "base": "no adapter at all",
}
"""The methods that most people need, in a few words each."""


def method_choices(ramole: Ramole) -> list[tuple[str, str]]:
    """Every method by name: the usual ones first, with a sentence; then, under a line of their own
    (`style.css`), papers' and controls."""
    rows = {row.name: row for row in ramole.methods()}
    usual = [(f"{name}: {USUAL[name]}", name) for name in USUAL if name in rows]
    others = [
        (f"{name} ({'a control' if row.paper == 'control' else 'from papers'})", name)
        for name, row in rows.items()
        if name not in USUAL
    ]
    return [*usual, *others]


def method_field(
    ramole: Ramole, *, value: str = DEFAULT_METHOD, elem_id: str | None = None, min_width: int
) -> gr.Dropdown:
    """The choice among them."""
    return gr.Dropdown(
        method_choices(ramole),
        value=value,
        label="Method",
        elem_id=elem_id,
        elem_classes=["methods"],
        min_width=min_width,
    )


def untrained_html(ramole: Ramole) -> str:
    """For another base model: a folded block with the methods that lack trained weights, and the
    commands that train them; nothing where every gate is trained."""
    names = untrained(ramole)
    if not names:
        return ""
    lines = "\n".join(
        f"{step.command}   # {step.minutes} minutes: {step.gives}" for step in TRAINING_STEPS
    )
    return (
        '<details id="untrained" class="quiet"><summary>Not in the list, because nothing was '
        f"trained for this base model: {escape(', '.join(names))}</summary>"
        f"<p><code>{DEFAULT_METHOD}</code> and the others in the list need no training. "
        "On the server, with your adapters A, B, C in the pool and a folder DATA of their tasks "
        "(docs/files.md), train what you want, and start again:</p>"
        f"<pre>{escape(lines)}</pre>"
        f"<p>Minutes are those of {escape(MEASURED)}. Weights go into "
        "RAMOLE_DATA_DIR/trained, where they are found before those that are shipped; what is "
        "there is replaced only with <code>--overwrite</code>, so give each base a "
        "RAMOLE_DATA_DIR of its own.</p></details>"
    )


def k_field(value: float, *, elem_id: str | None = None, min_width: int) -> gr.Slider:
    """How many adapters are mixed."""
    return gr.Slider(
        1,
        MAX_K,
        value,
        step=1,
        label="k, adapters to mix",
        elem_id=elem_id,
        min_width=min_width,
        buttons=[],
    )


def length_field(
    ramole: Ramole,
    value: float,
    *,
    min_width: int = 160,
    buttons: list[Literal["reset"]] | None = None,
) -> gr.Slider:
    """The longest answer, up to what the server allows."""
    most = ramole.settings.max_new_tokens
    return gr.Slider(
        1,
        most,
        min(value, most),
        step=1,
        label=TOKENS,
        min_width=min_width,
        buttons=buttons,
    )


def allowed_length(ramole: Ramole, asked: int) -> tuple[int, str]:
    """The longest answer of a link, at most what the server allows; and a sentence where the link
    has more."""
    most = ramole.settings.max_new_tokens
    if asked <= most:
        return asked, ""
    return most, f"This link asks for {asked:,} tokens; an answer here has at most {most:,}."


def offered(names: Sequence[str], chosen: Sequence[str] | str | None) -> dict[str, Any]:
    """Update a choice of names; what was chosen and is not among them is chosen no more."""
    if chosen is None or isinstance(chosen, str):
        left = chosen if chosen in names else None
    else:
        left = [name for name in chosen if name in names]
    same = chosen is None or len(left or ()) == len(chosen)
    return gr.update(choices=names) if same else gr.update(choices=names, value=left)


def whole(value: object, name: str) -> int:
    """The value of a field for whole numbers; raises RamoleError for any other value."""
    if not isinstance(value, int | float) or value % 1:
        raise RamoleError(f"{name} is {value!r}; give a whole number.")
    return int(value)


def run_and_stop(*, running: bool) -> tuple[gr.Button, gr.Button]:
    """The button that begins and the one that stops, of which one can be pressed."""
    return gr.Button(interactive=not running), gr.Button(interactive=running)
