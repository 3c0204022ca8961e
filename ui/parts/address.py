"""The address of the page: tabs are in the browser's history, and a link opens one."""

from pathlib import Path

from .events import QUIET, open_page


def addressed() -> None:
    """Let the page that is being built follow its address."""
    script = (Path(__file__).parent / "address.js").read_text("utf-8")
    open_page().load(None, js=script, **QUIET)
