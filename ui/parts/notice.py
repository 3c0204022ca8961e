"""The notice sentence, and the words for how an answer ended."""

from html import escape

ENDINGS = {
    "eos": "the model ended its answer",
    "stop": "a stop string was reached",
    "length": "the token limit was reached",
    "cancelled": "stopped by you",
}


def notice_html(text: str, *, kind: str = "quiet") -> str:
    """A sentence: `quiet`, `busy`, `ready` or `wrong`; nothing for an empty one."""
    if not text:
        return ""
    role = "alert" if kind == "wrong" else "status"
    return f'<p class="notice {kind}" role="{role}">{escape(text)}</p>'


def ending(reason: str) -> str:
    """The `finish_reason` of an answer in words."""
    return ENDINGS.get(reason, reason)
