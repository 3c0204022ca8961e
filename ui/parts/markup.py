"""Untrusted text as inert HTML, and shortened.

Gradio's HTML component reads `${...}` and `{{...}}` as templates; `escaped` leaves neither.
"""

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ramole_core import AdapterCard


def escaped(text: object) -> str:
    """Text as HTML that is inert, in Gradio's templates too."""
    safe = html.escape(str(text), quote=True)
    return safe.replace("{", "&#123;").replace("$", "&#36;").replace("`", "&#96;")


def description_of(card: "AdapterCard", *, most: int, sentence: bool = False) -> str:
    """What an adapter's card says, on one line of at most `most` characters, without its heading
    and what every sample's card begins with; `sentence`: the first sentence alone."""
    words = " ".join(card.description.split()).removeprefix(f"# {card.name}").strip()
    words = words.removeprefix("This adapter ")
    words = words[:1].upper() + words[1:]
    if sentence:
        words = words.partition(". ")[0].removesuffix(".")
    return words if len(words) <= most else words[:most].rsplit(" ", 1)[0] + " …"
