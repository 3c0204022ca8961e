"""Logs without users' texts: an error is its type and frames, never its message.

Messages quote input. Gradio prints whole tracebacks for malformed calls, and warns with their
values; both become one line here.
"""

import logging
import sys
import threading
import traceback
import warnings
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType

from uvicorn.config import LOGGING_CONFIG

log = logging.getLogger(__name__)
PATTERN = "%(levelname)s %(name)s: %(message)s"


class Quiet(logging.Formatter):
    """A formatter whose tracebacks have places, and no messages."""

    def formatException(self, ei) -> str:  # noqa: N802 logging's own name
        """The types of an error and of its causes, with their frames: only code of the program."""
        return "\n".join(_frames(ei[1])) if ei and ei[1] is not None else ""


def quiet_logs() -> None:
    """Let every line of this process go through `Quiet`: ours, uvicorn's, asyncio's, threads'. What
    a terminal's locale cannot write is escaped: Gradio prints emoji."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(Quiet(PATTERN))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("ui").setLevel(logging.INFO)
    threading.excepthook = _thread_failed
    warnings.showwarning = _warned


def quiet_server() -> None:
    """Quiet uvicorn's loggers when it begins to listen, and for the modules of Gradio that are
    loaded: before it listens, since the first call may come at once."""
    for formatter in LOGGING_CONFIG["formatters"].values():
        formatter.clear()
        formatter.update({"()": Quiet, "fmt": PATTERN})
    for name, module in list(sys.modules.items()):
        used = getattr(module, "traceback", None)
        if name.startswith("gradio.") and isinstance(used, ModuleType):
            module.traceback = _OneLine("traceback")  # pyright: ignore[reportAttributeAccessIssue]


def one_line(error: BaseException) -> str:
    """`TypeError at gradio/blocks.py:1837`: where it was raised, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}{f' at {_place(frames[-1])}' if frames else ''}"


class _OneLine(ModuleType):
    """Python's `traceback`, whose `print_exc` logs one line."""

    def __getattr__(self, name: str) -> object:
        return getattr(traceback, name)

    @staticmethod
    def print_exc(*_: object, **__: object) -> None:
        """Log a call that Gradio could not pass to a handler."""
        error = sys.exception()
        if error is not None:
            log.warning("A call was badly formed, or failed in Gradio: %s", one_line(error))


def _frames(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{type(error).__name__} (its message may quote a visitor, and is left out)"]
    lines += [f"  {_place(frame)} {frame.name}" for frame in frames]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines if cause is None else [*_frames(cause), "and then", *lines]


def _place(frame: traceback.FrameSummary) -> str:
    return f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}"


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else "unknown"
        log.error("The thread %r failed.", name, exc_info=args.exc_value)


def _warned(message, category, filename, lineno, file=None, line=None) -> None:
    log.warning("%s at %s:%d", category.__name__, "/".join(Path(filename).parts[-3:]), lineno)
