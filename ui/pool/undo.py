"""Removals that can be undone: a line and a button each, while there is time."""

from collections.abc import Sequence

from ..parts.markup import escaped
from ..session.removed import SECONDS, Removal

UNDO = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('.rm-undo');
  if (button) trigger('click', {token: button.dataset.token});
});
"""
FOCUS = """
() => { setTimeout(() => document.querySelector('#pool-undo .rm-undo')?.focus(), 150); }
"""


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
