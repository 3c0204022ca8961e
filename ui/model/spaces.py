"""ZeroGPU on a Hugging Face Space: the `spaces` package lends a GPU for one call at a time."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

ELSEWHERE = find_spec("spaces") is not None
"""Whether handlers that generate run in a process of their own."""
Handler = TypeVar("Handler", bound=Callable[..., Any])


def gpu(duration: int | Callable[..., int] = 60) -> Callable[[Handler], Handler]:
    """Decorate a handler that generates; seconds, or a function of the handler's arguments.

    Where the `spaces` package is not installed the handler stays as it is.
    """
    if not ELSEWHERE:
        return lambda handler: handler
    return import_module("spaces").GPU(duration=duration)
