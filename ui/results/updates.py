"""What the tab Results holds, from the files as they are now."""

from pathlib import Path
from typing import Any

import gradio as gr

from ..parts.errors import html_or_sentence
from ..parts.notice import notice_html
from . import adapters, answers, methods, retrieval, router, speed, stresses
from .closer import by_task_html, differences_html
from .figure import scores_figure
from .glance import glance_html
from .layout import Layout
from .scores import Evaluation, earlier, evaluation
from .short import short_html


def opened(ui: Layout, folder: Path) -> dict[Any, Any]:
    """The whole tab, from the files as they are now."""
    found, missing = evaluation(folder)
    drawn = {
        ui.top: html_or_sentence(
            lambda: (
                short_html(found)
                + glance_html(folder, found)
                + answers.answers_html(found, missing, earlier(folder))
            ),
            _refusal,
        ),
        ui.rest: html_or_sentence(lambda: rest_html(folder, found), _refusal),
        ui.chosen: gr.Accordion(visible=found is not None),
    }
    if found is None:
        return drawn
    names = [(answers.choice(name), name) for name in found.settings]
    first = names[0][1]
    choice = gr.Radio(choices=names, value=first, visible=len(names) > 1)
    return {**drawn, ui.setting: choice, **closer(ui, folder, first)}


def closer(ui: Layout, folder: Path, wanted: str | None) -> dict[Any, Any]:
    """One setting: picture, differences, tasks; as it was where the setting is not there."""
    found, _ = evaluation(folder)
    if found is None or not isinstance(wanted, str) or wanted not in found.settings:
        return {ui.plot: gr.skip()}
    return {
        ui.plot: scores_figure(found, wanted),
        ui.ahead: differences_html(found, wanted),
        ui.by_task: by_task_html(found, wanted),
    }


def rest_html(folder: Path, found: Evaluation | None) -> str:
    """Every section below the closer look."""
    return "".join(
        (
            methods.html(folder),
            stresses.html(folder),
            retrieval.html(folder, found),
            adapters.html(folder),
            router.html(folder),
            speed.html(folder),
        )
    )


def _refusal(sentence: str) -> str:
    return notice_html(sentence, kind="wrong")
