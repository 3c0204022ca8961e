"""The notice sentence, and the words for how an answer ended."""

from html import escape

ENDINGS = {
    "eos": "the model ended its answer",
    "stop": "a stop string was reached",
    "length": "the token limit was reached",
    "cancelled": "stopped by you",
}


def notice_html(text: str, *, kind: str = "quiet", share: float | None = None) -> str:
    """A sentence: `quiet`, `busy`, `ready` or `wrong`; nothing for an empty one. `share` of the
    work that is done, 0 to 1: a bar, and its number behind the sentence."""
    if not text:
        return ""
    role = "alert" if kind == "wrong" else "status"
    if share is None:
        return f'<p class="notice {kind}" role="{role}">{escape(text)}</p>'
    said = f"{escape(text)} <span class='share'>{100 * share:.0f} %</span>"
    bar = f'<progress class="work" max="1" value="{share:.2f}" aria-label="Work done"></progress>'
    return f'<p class="notice {kind}" role="{role}">{said}</p>{bar}'


def ending(reason: str) -> str:
    """The `finish_reason` of an answer in words."""
    return ENDINGS.get(reason, reason)
