"""Text as HTML: untrusted text made inert and clipped, and the notice sentence.

Gradio's HTML component reads `${...}` and `{{...}}` as templates; `escaped` leaves neither.
"""

import html
from collections.abc import Iterable

from ramole_core import AdapterCard


def escaped(text: object) -> str:
    """Text as HTML that is inert, in Gradio's templates too."""
    safe = html.escape(str(text), quote=True)
    return safe.replace("{", "&#123;").replace("$", "&#36;").replace("`", "&#96;")


def clipped(text: str, most: int) -> str:
    """The text, or where it is longer than `most` characters, its beginning and `…`."""
    return text if len(text) <= most else text[: most - 1] + "…"


def shortened(text: str, most: int) -> str:
    """The text on one line; the first words of it and `…`, where it has over `most` characters."""
    words = " ".join(text.split())
    return words if len(words) <= most else words[:most].rsplit(" ", 1)[0] + " …"


def description_of(card: AdapterCard, *, most: int, sentence: bool = False) -> str:
    """Return a card's description on one line of at most `most` characters, without its heading and
    every sample's first words; `sentence`: the first sentence alone."""
    words = " ".join(card.description.split()).removeprefix(f"# {card.name}").strip()
    words = words.removeprefix("This adapter ")
    words = words[:1].upper() + words[1:]
    if sentence:
        words = words.partition(". ")[0].removesuffix(".")
    return shortened(words, most)


def table_html(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Cells of HTML under their heads; the first of each row names it."""
    head = "".join(f'<th scope="col">{words}</th>' for words in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def notice_html(text: str, *, kind: str = "quiet", share: float | None = None) -> str:
    """A sentence: `quiet`, `busy`, `ready` or `wrong`; nothing for an empty one. `share` of the
    work that is done, 0 to 1: a bar, and its number behind the sentence.

    That number, and a count behind "…" of a busy one, change many times a second: a screen reader
    is spared them.
    """
    if not text:
        return ""
    role = "alert" if kind == "wrong" else "status"
    words, dots, count = text.partition("… ") if kind == "busy" else (text, "", "")
    said = html.escape(words + dots)
    said += f'<span aria-hidden="true">{html.escape(count)}</span>' if count else ""
    if share is None:
        return f'<p class="notice {kind}" role="{role}">{said}</p>'
    said += f" <span class='share' aria-hidden=\"true\">{100 * share:.0f} %</span>"
    bar = f'<progress class="work" max="1" value="{share:.2f}" aria-label="Work done"></progress>'
    return f'<p class="notice {kind}" role="{role}">{said}</p>{bar}'
