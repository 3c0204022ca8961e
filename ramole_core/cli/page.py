"""The command `page`: the page on a port of this machine."""

from importlib import import_module

from ramole_core.cli.opening import Json

PAGE = "ui.program"


def page(as_json: Json = False) -> None:
    """The page on http://127.0.0.1:7860, until Ctrl-C; the model loads behind it.

    The variables RAMOLE_* say the port, the base model and all else.
    """
    import_module(PAGE).run(as_json=as_json)
