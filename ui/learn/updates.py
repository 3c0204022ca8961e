"""Updates of the tab Learn, from the reader's choices alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..charts.explained import explanation_html, token_html
from ..charts.path import path_html
from ..charts.plots import Axes, token_figure, token_table
from ..charts.tokens import view_of_run
from ..parts.markup import escaped
from .facts import facts, filled, word
from .frames import figure, table
from .guess import GUESSES, question_html, reveal_html
from .kept import gated, vectors
from .layout import LearnLayout
from .measured import scores_html
from .pictures import batch_html, judged_html, nearest_html, pool_html, vectors_html
from .steps import STEPS, TITLES, Step
from .switched import switched_html
from .toy import toy, toy_html

if TYPE_CHECKING:
    from ramole_core import AdapterCard

TOY_BY_HAND, TOY_GATED, WHY, AGAINST = 3, 4, 5, 6
"""Places of the steps that have more than a picture."""


def step_updates(
    ui: LearnLayout,
    place: int,
    cards: "Sequence[AdapterCard]",
    *,
    picked: int,
    guessed: dict[int, str],
    what: str,
    off: Sequence[str] = (),
    sliders: Sequence[float],
) -> dict[Any, Any]:
    """The whole page of one step."""
    step = STEPS[place]
    drawn = {
        ui.steps: gr.Radio(value=TITLES[place]),
        ui.back: gr.Button(interactive=place > 0),
        ui.ahead: gr.Button(interactive=place < len(STEPS) - 1),
        ui.words: words_html(place),
        ui.picture: picture_html(place, cards),
        ui.tries: tries_html(step),
        ui.toy: gr.Column(visible=place in (TOY_BY_HAND, TOY_GATED)),
        ui.answer: gr.Column(visible=place in (WHY, AGAINST)),
        ui.guess: gr.Column(visible=place in GUESSES),
    }
    if place in (TOY_BY_HAND, TOY_GATED):
        drawn[ui.by_hand] = gr.Row(visible=place == TOY_BY_HAND)
        drawn[ui.toy_view] = toy_updates(place, sliders)
    if place in (WHY, AGAINST):
        drawn[ui.tokens] = view_of_run(gated(), "learn") | {"meaning": ""}
        drawn |= token_updates(ui, place, picked, what, off=off)
    if place in GUESSES:
        guess, chosen = GUESSES[place], guessed.get(place)
        drawn[ui.question] = question_html(guess)
        drawn[ui.choice] = gr.Radio(choices=guess.experts, value=chosen)
        drawn |= guess_updates(ui, place, chosen)
    return drawn


def words_html(place: int) -> str:
    """The title and the paragraphs, with the papers at the end."""
    step, known = STEPS[place], facts()
    told = [filled(paragraph, known) for paragraph in step.says]
    links = ", ".join(
        f'<a href="https://arxiv.org/abs/{number}" target="_blank" rel="noopener noreferrer">'
        f"{name}, arXiv {number}</a>"
        for name, number in step.papers
    )
    papers = f'<p class="quiet">Papers: {links}</p>' if links else ""
    return (
        f'<p class="quiet">Step {place + 1} of {len(STEPS)}</p><h2 tabindex="-1">{step.title}</h2>'
        + "".join(f"<p>{paragraph}</p>" for paragraph in told if paragraph)
        + papers
    )


def picture_html(place: int, cards: "Sequence[AdapterCard]") -> str:
    """The picture of a step that needs nothing else; empty for the others."""
    pictures = {
        0: lambda: path_html(gated(), vectors().vector) + pool_html(cards),
        1: vectors_html,
        2: nearest_html,
        7: batch_html,
        8: judged_html,
        9: scores_html,
    }
    return pictures[place]() if place in pictures else ""


def tries_html(step: Step) -> str:
    """One line, and the button that goes there."""
    prompt = f' data-prompt="{escaped(step.prompt)}"' if step.prompt else ""
    put = " with this prompt" if step.prompt else ""
    return (
        f"<p><strong>Try it.</strong> {step.tries}</p>"
        f'<button type="button" data-step="{escaped(step.title)}" data-tab="{step.tab}"{prompt}>'
        f"Open {step.tab}{put}</button>"
    )


def toy_updates(place: int, sliders: Sequence[float]) -> str:
    """The toy at these sliders: x, then the weights, which the gate replaces in its step."""
    x, weights = sliders[:3], sliders[3:]
    return toy_html(toy(x, weights if place == TOY_BY_HAND else None))


def token_at(picked: int) -> int:
    """The place of a token of the recorded answer, whatever came."""
    return min(max(picked, 0), len(gated().pieces) - 1)


def token_updates(
    ui: LearnLayout, place: int, picked: int, what: str, *, off: Sequence[str] = ()
) -> dict[Any, Any]:
    """One token of the recorded answer: what each adapter did and its weights, or what base and
    mixture expected. `off` are switched off."""
    run, index = gated(), token_at(picked)
    if place == AGAINST:
        shown = explanation_html(run.explained[index], run.pieces[index])
        caption = (
            "The ten likeliest next tokens at the place of the picked token, ␣ for a space. The "
            "one that was taken is framed."
        )
        return {
            ui.what: gr.Radio(visible=False),
            ui.off: gr.CheckboxGroup(visible=False),
            ui.switched: "",
            ui.token: f"<h3>Token {index + 1} of {len(run.pieces)}: {word(run.pieces[index])}</h3>",
            ui.plot: gr.Plot(visible=False),
            ui.below: figure(shown, caption),
        }
    trace = run.answer.trace
    assert trace is not None  # it was recorded with one
    axes = Axes(run.experts, trace.layers, trace.modules, run.places)
    parts = {"weight": run.gates[index], "contribution": run.contribution[index]}
    named = "contribution" if what == "contributions" else "weight"
    heads, rows = token_table(parts, run.present[index], axes)
    twin = table("Every number", heads, ([str(cell) for cell in row] for row in rows))
    caption = (
        f"A field for each layer (from bottom to top) and module: the stronger the colour, the "
        f"larger the {named}. Empty: the adapter does not change that module."
    )
    return {
        ui.what: gr.Radio(visible=True),
        ui.off: gr.CheckboxGroup(choices=run.experts, value=list(off), visible=True),
        ui.switched: switched_html(index, off),
        ui.token: token_html(run, index, closable=False),
        ui.plot: gr.Plot(
            value=token_figure(parts[named], run.present[index], axes, what=named), visible=True
        ),
        ui.below: figure("", caption, twin=twin),
    }


def guess_updates(ui: LearnLayout, place: int, chosen: str | None) -> dict[Any, Any]:
    """The stretch without colours, or with them and the shares once a guess was made."""
    guess = GUESSES[place]
    return {
        ui.stretch: guess.view(revealed=chosen in guess.experts),
        ui.reveal: reveal_html(guess, chosen),
    }
