"""For another base model: methods without trained weights, and how to train them."""

from html import escape
from typing import TYPE_CHECKING

from ramole_core import DEFAULT_METHOD, MEASURED, TRAINING_STEPS, untrained

if TYPE_CHECKING:
    from ramole_core import Ramole


def untrained_html(ramole: "Ramole") -> str:
    """A folded block with the commands; nothing where every gate is trained."""
    names = untrained(ramole)
    if not names:
        return ""
    lines = "\n".join(
        f"{step.command}   # {step.minutes} minutes: {step.gives}" for step in TRAINING_STEPS
    )
    return (
        '<details id="untrained" class="quiet"><summary>Not in the list, because nothing was '
        f"trained for this base model: {escape(', '.join(names))}</summary>"
        f"<p><code>{DEFAULT_METHOD}</code> and the others in the list need no training. "
        "On the server, with your adapters A, B, C in the pool and a folder DATA of their tasks "
        "(docs/files.md), train what you want, and start again:</p>"
        f"<pre>{escape(lines)}</pre>"
        f"<p>Minutes are those of {escape(MEASURED)}. Weights go into "
        "RAMOLE_DATA_DIR/trained, where they are found before those that are shipped; what is "
        "there is replaced only with <code>--overwrite</code>, so give each base a "
        "RAMOLE_DATA_DIR of its own.</p></details>"
    )
