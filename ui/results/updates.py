"""Updates of the tab Results, from the current files."""

from pathlib import Path
from typing import Any

import gradio as gr

from ..parts.errors import html_or_sentence
from ..parts.markup import notice_html
from .adapters import ADAPTERS
from .answers import ANSWERS, by_task, differences
from .figure import scores_figure
from .html import html, section_html
from .layout import ResultsLayout
from .methods import METHODS
from .retrieval import RETRIEVAL
from .scores import Evaluation, evaluation, label
from .short import short_html
from .situations import STRESSES
from .speed import SPEED
from .who import WHO

REST = (METHODS, WHO, STRESSES, RETRIEVAL, ADAPTERS, SPEED)
"""The sections below the closer look."""


def opened(ui: ResultsLayout, folder: Path) -> dict[Any, Any]:
    """The whole tab, from the files as they are now."""
    found = evaluation(folder)
    drawn = {
        ui.top: html_or_sentence(lambda: top_html(folder), _refusal),
        ui.rest: html_or_sentence(lambda: rest_html(folder), _refusal),
        ui.chosen: gr.Accordion(visible=isinstance(found, Evaluation)),
    }
    if not isinstance(found, Evaluation):
        return drawn
    names = [(label(name), name) for name in found.settings]
    choice = gr.Radio(choices=names, value=names[0][1], visible=len(names) > 1)
    return {**drawn, ui.setting: choice, **closer(ui, folder, names[0][1])}


def closer(ui: ResultsLayout, folder: Path, wanted: str | None) -> dict[Any, Any]:
    """One setting: picture, differences, tasks; as it was where the setting is not there."""
    found = evaluation(folder)
    if not (isinstance(found, Evaluation) and isinstance(wanted, str) and wanted in found.cells):
        return {ui.plot: gr.skip()}
    return {
        ui.plot: scores_figure(found, wanted),
        ui.ahead: "".join(map(html, differences(found, wanted))),
        ui.by_task: "".join(map(html, by_task(found, wanted))),
    }


def top_html(folder: Path) -> str:
    """What most readers want, and the answers in detail."""
    return short_html(folder) + section_html(ANSWERS, folder)


def rest_html(folder: Path) -> str:
    """Every section below the closer look."""
    return "".join(section_html(section, folder) for section in REST)


def _refusal(sentence: str) -> str:
    return notice_html(sentence, kind="wrong")
