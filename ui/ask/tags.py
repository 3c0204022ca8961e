"""Settings of the next request that differ from the defaults: tags that a press removes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..parts.choices import choices, choices_html
from ..parts.events import AT_ONCE, LATEST, number_in
from .form import FIELDS, Form
from .options import OptionField

if TYPE_CHECKING:
    from .layout import AskInputs

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
    "examples": lambda value: "your examples",
    "mix": lambda value: f"kept weights {value}",
}
"""Label of each field that has a tag."""
FITTED = {"examples", "mix"}
"""Tagged for the methods alone that have use for them."""


def tags_view() -> gr.HTML:
    """The row, empty."""
    return choices({}, LABEL, elem_id="tags", kind="tag")


def tagged(
    values: Sequence[Any],
    options: Sequence[OptionField] = (),
    fits: Collection[str] = (),
    *,
    usual: Mapping[str, Any] = USUAL,
) -> dict[int, str]:
    """The words of each field and option that is not as usual, by its place among `values`: those
    of FIELDS, then those of `options`. `fits`: the methods that have use for examples."""
    said = dict(zip(FIELDS, values, strict=False))
    words = {
        place: TAGGED[name](said[name])
        for place, name in enumerate(FIELDS)
        if name in TAGGED and (said[name] or usual[name]) and _differs(said[name], usual[name])
        if name not in FITTED or said["method"] in fits
    }
    for place, (option, value) in enumerate(zip(options, values[len(FIELDS) :], strict=True)):
        if option.method == said["method"] and value is not None and value != option.default:
            shown = ("off", "on")[value] if isinstance(value, bool) else f"{value:g}"
            words[len(FIELDS) + place] = f"{option.name} {shown}"
    return words


def _differs(value: Any, usual: Any) -> bool:
    return list(value or ()) != list(usual) if isinstance(usual, tuple) else value != usual


def connect(entry: "AskInputs") -> None:
    """The tags follow the form, and a press resets a field."""
    options, boxes = entry.options.fields, entry.values
    most = entry.fields["max_new_tokens"].maximum  # pyright: ignore[reportAttributeAccessIssue]
    usual = {**USUAL, "max_new_tokens": min(USUAL["max_new_tokens"], most)}
    resets = [*(usual[name] for name in FIELDS), *(one.default for one in options)]
    tags = [place for place, name in enumerate(FIELDS) if name in TAGGED]
    tags += range(len(FIELDS), len(boxes))

    def on_change(*values: Any):
        said = tagged(values, options, entry.pairs.fits, usual=usual)
        words = {place: ("×", one) for place, one in said.items()}
        return gr.HTML(choices_html(words, LABEL, kind="tag"), visible=bool(words))

    def on_press(event: gr.EventData):
        place = number_in(event, "index")
        if place not in tags:
            raise gr.Error("There is no such tag.", print_exception=False)
        value = resets[place]
        return {boxes[place]: list(value) if isinstance(value, tuple) else value}

    every: list[Any] = [*boxes]
    gr.on(
        [boxes[place].change for place in tags],  # pyright: ignore[reportAttributeAccessIssue]
        on_change,
        every,
        entry.tags,
        **LATEST,
    )
    entry.tags.select(on_press, None, [boxes[place] for place in tags], **AT_ONCE)
