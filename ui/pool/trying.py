"""A prompt to try on an adapter, one of its own examples: a press brings it to Ask."""

from typing import TYPE_CHECKING

from ..parts.markup import escaped

if TYPE_CHECKING:
    from ramole_core import AdapterCard

SHOWN = 80
"""Characters of the prompt on the button."""
TRY = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('.rm-try');
  const tab = document.getElementById('ask-tab-button');
  if (!button || !tab) return;
  tab.click();
  const put = (tries) => {
    const box = document.querySelector('#prompt textarea');
    if (!box?.getClientRects().length) return tries && setTimeout(put, 100, tries - 1);
    box.focus();
    box.select();
    document.execCommand('insertText', false, button.dataset.prompt); // so it can be undone
  };
  put(50);
});
"""


def try_html(card: "AdapterCard") -> str:
    """The button; nothing for an adapter without examples."""
    if not card.examples:
        return ""
    prompt = card.examples[0]
    words = " ".join(prompt.split())
    short = words if len(words) <= SHOWN else words[:SHOWN].rsplit(" ", 1)[0] + " …"
    return (
        '<p class="rm-offer">A prompt to try: <button type="button" class="rm-try" '
        f'data-prompt="{escaped(prompt)}">{escaped(short)}</button></p>'
    )
