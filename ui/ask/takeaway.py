"""A run to take away: buttons that copy it as a link and as Python."""

import gradio as gr

from ramole_core import Request, asked_fields

from ..charts.run import Run
from ..parts.events import script_beside, scripted
from ..parts.link import link_to, link_to_recorded

HTML = """
<div class="takeaway" hidden>
<button type="button" class="link">Copy link</button>
<button type="button" class="python">Copy as Python</button>
</div>
"""
PYTHON = """from ramole_core import Ramole, Request, Settings

request = Request({fields})
with Ramole(Settings()) as ramole:
    (answer,) = ramole.generate([request])
print(answer.text, answer.adapters)
"""


def takeaway_view(*, elem_id: str) -> gr.HTML:
    """The buttons; their value is what `takeaway_of` returns."""
    return scripted({}, HTML, script_beside(__file__, "takeaway.js"), elem_id=elem_id)


def takeaway_of(run: Run | None, *, recorded: str = "") -> dict[str, str]:
    """The end of an address and the lines of Python; `recorded`: the file of a recorded run."""
    if run is None:
        return {}
    beside = run.beside is not None
    link = link_to_recorded(recorded) if recorded else link_to(run.request, beside=beside)
    return {"link": link, "python": python_words(run.request), "prompt": run.request.prompt}


def python_words(request: Request) -> str:
    """Lines to paste; an upload of one's own has to be added to the pool there first."""
    fields = {name: value for name, value in asked_fields(request).items() if name != "trace"}
    said = "".join(f"\n    {name}={_literal(value)}," for name, value in fields.items())
    return PYTHON.format(fields=f"{said}\n")


def _literal(value: object) -> str:
    """As Python writes it, where named tuples are plain ones."""
    if isinstance(value, tuple | list):
        parts = [_literal(one) for one in value]
        return f"({', '.join(parts)},)" if len(parts) == 1 else f"({', '.join(parts)})"
    return repr(value)
