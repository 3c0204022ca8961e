"""A request as Python that asks it again."""

from ramole_core import Request, asked_fields

WORDS = """from ramole_core import Ramole, Request, Settings

request = Request({fields})
with Ramole(Settings()) as ramole:
    (answer,) = ramole.generate([request])
print(answer.text, answer.adapters)
"""


def python_words(request: Request) -> str:
    """Lines to paste; an upload of one's own has to be added to the pool there first."""
    fields = {name: value for name, value in asked_fields(request).items() if name != "trace"}
    said = "".join(f"\n    {name}={_literal(value)}," for name, value in fields.items())
    return WORDS.format(fields=f"{said}\n")


def _literal(value: object) -> str:
    """As Python writes it, where named tuples are plain ones."""
    if isinstance(value, tuple | list):
        parts = [_literal(one) for one in value]
        return f"({', '.join(parts)},)" if len(parts) == 1 else f"({', '.join(parts)})"
    return repr(value)
