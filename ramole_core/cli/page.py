"""The command `page`: the page on a port of this machine."""

from importlib import import_module

PAGE = "ui.program"


def page() -> None:
    """The page on http://127.0.0.1:7860, until Ctrl-C; the model loads behind it. Settings say the
    port and all else."""
    import_module(PAGE).run()
