"""What the next question is asked with, where it is not as usual: tags that a press removes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import gradio as gr
from gradio.components import Component

from ..parts.choices import choices, choices_html
from ..parts.events import QUIET, number_in
from .form import FIELDS, Form

USUAL = {one.name: getattr(Form(), one.name) for one in fields(Form)}
LABEL = "Not as usual; press one to undo it"
TAGGED: dict[str, Callable[[Any], str]] = {
    "method": lambda value: f"method {value}",
    "k": lambda value: f"k = {value:g}",
    "pinned": lambda value: "exactly " + ", ".join(value),
    "weights": lambda value: f"weights {value}",
    "exclude": lambda value: "never " + ", ".join(value),
    "mix_anyway": lambda value: "mix anyway",
    "max_new_tokens": lambda value: f"{value:g} tokens at most",
    "temperature": lambda value: f"temperature {value:g}",
    "top_p": lambda value: f"top-p {value:g}",
    "seed": lambda value: f"seed {value}",
    "system": lambda value: "a system prompt",
    "stop": lambda value: "stop strings",
    "raw": lambda value: "no chat template",
}
"""The words of each field that has a tag."""


def tags_view() -> gr.HTML:
    """The row, empty."""
    return choices({}, LABEL, elem_id="tags", kind="tag")


def tagged(values: Sequence[Any]) -> dict[int, str]:
    """The words of each field that is not as usual, by its place in FIELDS."""
    said = dict(zip(FIELDS, values, strict=True))
    return {
        place: TAGGED[name](said[name])
        for place, name in enumerate(FIELDS)
        if name in TAGGED and (said[name] or USUAL[name]) and _differs(said[name], USUAL[name])
    }


def _differs(value: Any, usual: Any) -> bool:
    return list(value or ()) != list(usual) if isinstance(usual, tuple) else value != usual


def connect(view: gr.HTML, boxes: Mapping[str, Component]) -> None:
    """The tags follow the fields, by name in the order of FIELDS, and a press resets one."""

    def on_change(*values: Any):
        words = {place: ("×", said) for place, said in tagged(values).items()}
        return gr.HTML(choices_html(words, LABEL, kind="tag"), visible=bool(words))

    def on_press(event: gr.EventData):
        place = number_in(event, "index")
        name = FIELDS[place] if place is not None and 0 <= place < len(FIELDS) else ""
        if name not in TAGGED:
            raise gr.Error("There is no such tag.", print_exception=False)
        usual = USUAL[name]
        return {boxes[name]: list(usual) if isinstance(usual, tuple) else usual}

    every: list[Any] = list(boxes.values())
    gr.on(
        [boxes[name].change for name in TAGGED],  # pyright: ignore[reportAttributeAccessIssue]
        on_change,
        every,
        view,
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    view.select(on_press, None, [boxes[name] for name in TAGGED], queue=False, **QUIET)
