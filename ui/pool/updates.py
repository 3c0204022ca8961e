"""Updates of the tab Pool, as plain functions from the pool to HTML."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from ramole_core import AdapterRefused

from ..parts.markup import escaped
from ..session.quota import Quota
from ..session.removed import SECONDS, Removal
from ..session.uploads import EXAMPLE_ENDINGS, taken
from .cards import cards_html, matching
from .declared import examples_from_file, examples_from_lines
from .details import card_text, details_html, training_command, verdict_html
from .intake import judge, near

if TYPE_CHECKING:
    from ramole_core import Ramole

NOTHING = '<p class="rm-empty">Choose an adapter to see its numbers, neighbours and examples.</p>'
UNUSED = (
    "<p>A name and examples are for one adapter at a time, so what is typed was not used; it stays "
    "for the next one.</p>"
)
UNDO = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('.rm-undo');
  if (button) trigger('click', {token: button.dataset.token});
});
"""
FOCUS = """
() => { setTimeout(() => document.querySelector('#pool-undo .rm-undo')?.focus(), 150); }
"""


def listing(
    ramole: "Ramole", quota: Quota, search: str, show: str, order: str, *, owner: str | None
) -> str:
    """The cards that match, as HTML."""
    cards = ramole.pool.cards(owner)
    yours = {card.key for card in cards if quota.owns(card, owner)}
    found = matching(cards, search=search or "", show=show, order=order, yours=yours)
    return cards_html(found, yours=yours, total=len(cards))


def detail(
    ramole: "Ramole", quota: Quota, name: str | None, *, owner: str | None
) -> tuple[str, str]:
    """(HTML of one adapter, the command that trained it or nothing)."""
    if not name:
        return NOTHING, ""
    card = ramole.pool.card(name, owner)
    text, yours = card_text(card.folder), quota.owns(card, owner)
    shown = details_html(card, near(ramole, card, owner), yours=yours, card_text=text)
    return shown, training_command(card.folder) if card.sample else ""


def chosen(
    ramole: "Ramole", quota: Quota, name: str | None, *, owner: str | None
) -> tuple[Any, ...]:
    """The values of `Details.shown` for one adapter, or none."""
    html, trained_by = detail(ramole, quota, name, owner=owner)
    own = bool(name) and quota.owns(ramole.pool.card(name, owner), owner)
    return (
        html,
        gr.Textbox(trained_by, visible=bool(trained_by)),
        gr.Button(interactive=bool(name)),
        gr.Button(visible=own),
        gr.Accordion(visible=own),
        "",
    )


def added(
    ramole: "Ramole",
    quota: Quota,
    paths: Sequence[str] | None,
    *,
    name: str,
    lines: str,
    owner: str | None,
    address: str = "",
) -> Iterator[tuple[str, bool]]:
    """(the verdicts so far as HTML, whether all were usable and what was typed was used), one
    upload after the other."""
    shown, good = "", True
    name, examples = name.strip(), examples_from_lines(lines)
    verdicts = judge(
        ramole,
        quota,
        paths or (),
        owner=owner,
        address=address,
        name=name or None,
        examples=examples,
    )
    for number, verdict in enumerate(verdicts, start=1):
        shown += verdict.as_html()
        good = good and verdict.card is not None
        unused = number > 1 and bool(name or examples)
        yield f'<div role="status">{shown}{UNUSED if unused else ""}</div>', good and not unused


def chosen_name(name: object) -> str:
    """The name of the adapter that is chosen; raises AdapterRefused where that is no name."""
    if not name or not isinstance(name, str):
        raise AdapterRefused("No adapter is chosen; choose one first.")
    return name


def replace_examples(
    ramole: "Ramole",
    quota: Quota,
    name: str | None,
    lines: str,
    files: Sequence[str],
    *,
    owner: str | None,
) -> str:
    """Give an upload of one's own other examples, typed or in files; says what was done."""
    name = chosen_name(name)
    quota.owned(name, owner)
    examples = examples_from_lines(lines)
    with taken(files) as texts:
        for text in texts:
            if text.suffix.lower() not in EXAMPLE_ENDINGS:
                raise AdapterRefused(f"{text.name} is no .txt, .jsonl or .json file of examples.")
            examples += examples_from_file(text)
    if not examples:
        raise AdapterRefused("No example is given; type one a line, or drop a file of them.")
    card = ramole.pool.set_examples(name, examples, owner=owner)
    return verdict_html(
        card.name, "usable", f"Its vector is now made from {len(card.texts)} inputs."
    )


def removals_html(removals: Sequence[tuple[Removal, float]]) -> str:
    """A line for each, which vanishes when its seconds are over."""
    lines = "".join(
        f'<div class="rm-removed" style="animation-delay:{left:.0f}s"><p>'
        f"{escaped(one.name)} was removed. "
        f'<button type="button" class="rm-undo" data-token="{escaped(one.token)}">Undo'
        f'<span class="rm-hidden"> the removal of {escaped(one.name)}</span></button> '
        f'<span class="quiet">Possible for {SECONDS / 60:.0f} minutes from its removal, as long as '
        "this page stays open and its room is not needed.</span></p></div>"
        for one, left in removals
    )
    return f'<div role="status">{lines}</div>'
