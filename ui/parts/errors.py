"""Errors of handlers: one sentence, never a traceback."""

import html
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from ramole_core import RamoleError

from ..watch.events import refused

log = logging.getLogger(__name__)

UNEXPECTED = "Something went wrong on the server; its log says what. Try again."


@contextmanager
def one_sentence(*, markup: bool = True) -> Iterator[None]:
    """Turn any error of the block into a `gr.Error` of one sentence; unexpected ones are logged.

    The page renders the sentence as HTML, so it is escaped; `markup=False`, for callers of the API,
    leaves it as it is.
    """
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        sentence = sentence_of(error)
        text = html.escape(sentence, quote=False) if markup else sentence
        raise gr.Error(text, title="Not done", print_exception=False) from None


def sentence_of(error: Exception) -> str:
    """The one sentence of a handler's error, which is counted; an unexpected one is logged."""
    refused(error)
    if isinstance(error, RamoleError):
        return str(error)
    log.exception("A handler failed.", exc_info=error)
    return UNEXPECTED


def html_or_sentence(make: Callable[[], str], refusal: Callable[[str], str]) -> str:
    """The HTML that `make` gives, or `refusal` of the one sentence of its error (`sentence_of`)."""
    try:
        return make()
    except Exception as error:
        return refusal(sentence_of(error))
