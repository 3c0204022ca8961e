"""A row of buttons to choose a text from; a press is a `select` event with the button's index."""

from collections.abc import Mapping
from html import escape

import gradio as gr

from .events import PLAIN

CHOOSE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-index]');
  if (button) trigger('select', { index: Number(button.dataset.index) });
});
"""


def choices(
    titles: Mapping[int, tuple[str, str]],
    label: str,
    *,
    elem_id: str,
    kind: str,
    script: str = "",
) -> gr.HTML:
    """A button for each (badge, title), by the index that a press sends; not seen where there is
    none. `kind` colours the badges; one that all share stands once, before the buttons.

    `script` runs beside the buttons' own when the component is mounted.
    """
    return gr.HTML(
        choices_html(titles, label, kind=kind),
        js_on_load=CHOOSE + script,
        elem_id=elem_id,
        visible=bool(titles),
        **PLAIN,
    )


def choices_html(titles: Mapping[int, tuple[str, str]], label: str, *, kind: str) -> str:
    """What such a row holds; also its value where it changes."""
    badges = {
        badge: f'<span class="badge {kind}">{escape(badge)}</span>' for badge, _ in titles.values()
    }
    once = "".join(badges.values()) if kind != "tag" and len(badges) == 1 else ""
    buttons = "".join(
        f'<button type="button" data-index="{i}">{"" if once else badges[badge]}'
        f"{escape(title)}</button>"
        for i, (badge, title) in titles.items()
    )
    return f'<div class="choices" role="group" aria-label="{escape(label)}">{once}{buttons}</div>'
