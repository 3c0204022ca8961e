"""`python -m tests.batch_page`: a server with the tabs Ask and Batch over a fake system.

STEP_SECONDS is the time of a token; LENGTH the tokens of an answer.
"""

import os

import gradio as gr

from tests.fake_ramole import FakeRamole
from ui import header
from ui.ask import tab as ask
from ui.batch import tab as batch_tab
from ui.serve import serve


def main() -> None:
    ramole = FakeRamole(
        pause=float(os.environ.get("STEP_SECONDS", "0.02")),
        length=int(os.environ.get("LENGTH", "8")),
    )
    with gr.Blocks(title="RAMoLE", analytics_enabled=False) as page:
        header.header(ramole)
        with gr.Tabs(selected="batch"):
            batch_tab.tab(ramole)
            ask.tab(ramole)
    serve(page, ramole)


if __name__ == "__main__":
    main()
