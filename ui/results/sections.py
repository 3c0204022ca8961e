"""The fold of each section: heading, how its table was made, or why there is none.

Every word comes from a file, so each passes `escaped` (see `ui/parts/markup.py`).
"""

from ..parts.markup import escaped
from .files import Made, Unmeasured

COPY = (
    '<button type="button" class="rm-copy" aria-label="Copy the command">'
    '<span aria-live="polite">Copy</span></button>'
)


def command_html(command: str) -> str:
    """A command, ready to copy."""
    if not command:
        return ""
    return (
        f'<div class="rm-command"><pre tabindex="0" aria-label="command"><code>{escaped(command)}'
        f"</code></pre>{COPY}</div>"
    )


def made_html(made: Made) -> str:
    """The foot of a section: the command, the date, and what can be checked."""
    told = "".join(f"<div><dt>{escaped(k)}</dt><dd>{escaped(v)}</dd></div>" for k, v in made.facts)
    when = f"Measured on {escaped(made.date)}" if made.date else ""
    title = f"{when}: versions and checksums" if when else "Versions and checksums"
    more = f'<p class="rm-under">{when}</p>' if when else ""
    if told:
        more = f"<details><summary>{title}</summary><dl>{told}</dl></details>"
    return f'<div class="rm-made"><h3>How it was made</h3>{command_html(made.command)}{more}</div>'


def unmeasured_html(missing: Unmeasured) -> str:
    """The sentence in place of a table, with the command that makes it."""
    return (
        f'<div class="rm-unmeasured"><p>{escaped(missing.sentence)}</p>'
        f"{command_html(missing.command)}</div>"
    )


def section(key: str, title: str, lead: str, body: str) -> str:
    """One section, folded under its heading; `lead` is text, `body` HTML."""
    return (
        f'<details class="rm-results rm-fold" id="results-{key}">'
        f'<summary><h2 id="results-{key}-title">{escaped(title)}</h2></summary>'
        f'<div class="rm-inside"><p class="lead">{escaped(lead)}</p>{body}</div></details>'
    )
