"""The head of the page: one line of introduction, and the model's state."""

from collections.abc import Sequence
from html import escape

import gradio as gr

from ramole_core import Ramole, model_notes, model_words

from .model.loading import Status, loading_of
from .parts.events import AT_ONCE, PLAIN, open_page
from .parts.markup import notice_html

LIMITS = "It is small, errs and makes things up."
HERO = """
<header class="hero">
  <h1>RAMoLE</h1>
  <p>A small model, the base, with COUNT: your words pick them, colours show
  them. <a href="#learn">How it works</a> · <a href="#pool">Add yours</a></p>
</header>
"""


def header(ramole: Ramole) -> None:
    """Build the head inside the Blocks that is open; a timer polls until the model is loaded."""
    page = open_page()
    with gr.Row(elem_id="head", equal_height=True):
        hero = gr.HTML(hero_html(len(ramole.pool.cards())), elem_id="hero", **PLAIN)
        status = gr.HTML(elem_id="status", **PLAIN)
    timer = gr.Timer(1.0)

    def on_tick():
        state = loading_of(ramole).status()
        said = status_html(
            state,
            exact=ramole.exact,
            model=model_words(ramole),
            notes=model_notes(ramole),
        )
        count = len(ramole.pool.cards())  # the operator may have added some since the start
        return hero_html(count), said, gr.Timer(active=not state["ready"])

    page.load(on_tick, None, [hero, status, timer], **AT_ONCE)
    timer.tick(on_tick, None, [hero, status, timer], **AT_ONCE)


def hero_html(adapters: int) -> str:
    """The introduction, with the number of shared adapters."""
    count = f"{adapters} add-ons (LoRA adapters)" if adapters > 1 else "add-ons (LoRA adapters)"
    return HERO.replace("COUNT", count)


def status_html(status: Status, *, exact: bool, model: str, notes: Sequence[str] = ()) -> str:
    """The model's state in one line, with the share that is loaded. Once it is ready: its notes,
    and folded which it is and what others can change of an answer (`exact` is `Ramole.exact`)."""
    if status["ready"]:
        said = escape(f"{model}. {LIMITS} {promise(exact=exact)}")
        fold = f"<summary>The model is ready</summary><p>{said}</p>"
        said = f'<div role="status"><details class="notice ready">{fold}</details></div>'
        return said + "".join(map(notice_html, notes))
    if status["error"]:
        return notice_html(f"{status['error']} Ask to try again.", kind="wrong")
    done = f'value="{status["fraction"]}" aria-label="Loading"'
    share = f'<progress class="work" max="1" {done}></progress>'
    said = f"Loading the model, {status['fraction']:.0%}: {status['stage']}"
    told = f"{said}, {model}. Recorded runs work already."
    return f'<div title="{escape(told)}">{share}{notice_html(said, kind="busy")}</div>'


def promise(*, exact: bool) -> str:
    """A sentence on whether other requests can change an answer."""
    if exact:
        return "On this CPU an answer is to the bit what it is alone, whoever else asks."
    return (
        "On this device others change an answer within rounding, so where two tokens are about as "
        "likely, another one may come."
    )
