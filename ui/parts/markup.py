"""Untrusted text as inert HTML.

Gradio's HTML component reads `${...}` and `{{...}}` as templates; `escaped` leaves neither.
"""

import html


def escaped(text: object) -> str:
    """Text as HTML that is inert, in Gradio's templates too."""
    safe = html.escape(str(text), quote=True)
    return safe.replace("{", "&#123;").replace("$", "&#36;").replace("`", "&#96;")
