"""`python -m tests.ask_page`: the head and the tab Ask over a fake system, as a server of its own.

With GATE the model is not there before that file is; STEP_SECONDS is the time of a token.
"""

import os
from dataclasses import replace
from pathlib import Path

import gradio as gr

from ramole_core import Request
from tests.fake_ramole import FakeRamole
from ui import ask, examples, header
from ui.answer import answer
from ui.examples import Example, write_run
from ui.run import Live
from ui.serve import serve

REPLACED = Example("A made-up run", "Which boats?")


def record(folder: Path) -> None:
    """One recorded run of the fake system, so that these tests need no real one."""
    ramole, live = FakeRamole(), Live()
    for _ in answer(ramole, Request(REPLACED.prompt), live, beside=True):
        pass
    explained = {i: ramole.explain(live.run.request, i + 1) for i in range(len(live.run.pieces))}
    write_run(
        replace(live.run, title=REPLACED.title, explained=explained), folder / "01-made-up.json"
    )


def main() -> None:
    folder = Path(os.environ["RECORDED"])
    record(folder)
    examples.FOLDER = folder
    pause = float(os.environ.get("STEP_SECONDS", "0.02"))
    gate = Path(os.environ["GATE"]) if "GATE" in os.environ else None
    ramole = FakeRamole(
        loaded=gate is None,
        pause=pause,
        length=int(os.environ.get("LENGTH", "8")),
        gate=gate,
    )
    with gr.Blocks(title="RAMoLE", analytics_enabled=False) as page:
        header.header(ramole)
        with gr.Tabs(selected="ask"):
            ask.tab(ramole)
    serve(page, ramole)


if __name__ == "__main__":
    main()
