"""`python -m tests.inspect_page`: the head, Ask and Inspect over a fake system, as a server."""

import os
from pathlib import Path

import gradio as gr

from tests.ask_page import record
from tests.fake_ramole import FakeRamole
from ui import header
from ui.ask import tab as ask
from ui.charts import recorded
from ui.inspect import tab as inspect
from ui.parts.link import addressed
from ui.serve import serve


def main() -> None:
    folder = Path(os.environ["RECORDED"])
    record(folder)
    recorded.FOLDER = folder
    ramole = FakeRamole(pause=0.01)
    with gr.Blocks(title="RAMoLE", analytics_enabled=False) as page:
        header.header(ramole)
        run = gr.State(None)
        with gr.Tabs(selected="ask", elem_id="tabs"):
            ask.tab(ramole, run)
            inspect.tab(ramole, run)
        addressed()
    serve(page, ramole)


if __name__ == "__main__":
    main()
