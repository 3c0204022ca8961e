"""`python -m tests.support.ask_page`: the head and the tab Ask over a fake system, as a server.

With GATE the model is not there before that file is; STEP_SECONDS is the time of a token. With ROWS
only so many questions are answered at the same time, and one more than MOST may not even wait. With
ENDLESS an answer has LENGTH tokens, however few were asked for. With OPTIONS some methods have
options of their own; explanations wait for the file EXPLAIN_GATE, and an answer after each token
for the file ANSWER_GATE. TABS are the tabs beside Ask; Results shows the files of FOLDER. With
ELSEWHERE answers run as in a process of their own: Stop cuts their stream.
"""

import os
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import gradio as gr

from ramole_core import RamoleError, Request
from ramole_core.errors import Busy
from tests.support.fake_ramole import OPTIONS, FakeRamole
from ui import header
from ui.ask import tab as ask
from ui.ask.answer import Live, answer
from ui.batch import tab as batch
from ui.charts import recorded
from ui.charts.recorded import write_run
from ui.compare import tab as compare
from ui.inspect import tab as inspect
from ui.parts.link import addressed
from ui.parts.prompts import Example
from ui.results import tab as results
from ui.serve import serve

REPLACED = Example("A made-up run", "Which boats?")
PINNED = Example("By three that were named", "Whose boats?")
MANY = Example("By many", "How many boats?")
FAINT = Example("By five, of which one did nothing", "No boats?")
"""None of its tokens is the fifth adapter's."""
OPTIONS_PROMPT = "Which options?"
"""Is answered with the options of the request."""
SLOWLY = "Which boats take a minute to be found?"
"""Its adapters do, unless it is stopped."""
BUSY = "The server is busy: as many as may wait do so already; try again in a minute."


class CrowdedRamole(FakeRamole):
    """Calls beyond `rows` wait in line and are told their place; `most` may wait."""

    def __init__(self, *, rows: int, most: int, **options):
        super().__init__(**options)
        self._rows, self._most = rows, most
        self._line: list[object] = []
        self._lock = threading.Lock()

    def explain(self, *asked, **options):
        gate = Path(os.environ.get("EXPLAIN_GATE", "/"))
        while not gate.exists():
            time.sleep(0.05)
        return super().explain(*asked, **options)

    def stream_batch(
        self,
        requests,
        *,
        cancelled=lambda: False,
        waiting=lambda index, place: None,
        selected=lambda index, selection: None,
        **how,
    ):
        if requests[0].prompt == OPTIONS_PROMPT:
            raise RamoleError(f"The options are {getattr(requests[0], 'options', None)}.")
        until = time.monotonic() + 60
        while any(one.prompt == SLOWLY for one in requests) and time.monotonic() < until:
            if cancelled():
                return
            time.sleep(0.02)
        me, told = object(), 0
        with self._lock:
            if len(self._line) >= self._rows + self._most:
                raise Busy(BUSY)
            self._line.append(me)
        if "ENDLESS" in os.environ:
            requests = [replace(one, max_new_tokens=self.length) for one in requests]
        try:
            selected(0, self.select(requests[0]))
            while not cancelled():
                with self._lock:
                    place = self._line.index(me) - self._rows + 1
                if place <= 0:
                    break
                if place != told:
                    told = place
                    waiting(0, place)
                time.sleep(0.02)
            gate = Path(os.environ.get("ANSWER_GATE", "/"))
            how |= {"cancelled": cancelled, "waiting": waiting, "selected": selected}
            stream = super().stream_batch(requests, **how)
            with closing(stream):
                for item in stream:
                    yield item
                    while not (gate.exists() or cancelled()):
                        time.sleep(0.05)
        finally:
            with self._lock:
                self._line.remove(me)


def record(folder: Path) -> None:
    """Recorded runs of the fake system, so that these tests need no real one."""
    many = [f"a{n}" for n in range(21)]
    runs = (
        (REPLACED, {}),
        (PINNED, {"method": "meteora", "adapters": ["dog", "cat", "bee"]}),
        (MANY, {"method": "meteora", "adapters": many}),
        (FAINT, {"adapters": many[:5], "effects": True}),
    )
    for n, (example, fields) in enumerate(runs, 1):
        ramole, live = FakeRamole(), Live()
        ramole.pool.names = list(fields.get("adapters", ramole.pool.names))
        for _ in answer(ramole, Request(example.prompt, **fields), live, beside=True):
            pass
        explained = {
            i: ramole.explain(live.run.request, i + 1) for i in range(len(live.run.pieces))
        }
        run = replace(live.run, title=example.title, explained=explained)
        write_run(run, folder / f"{n:02}-{example.title.lower().replace(' ', '-')}.json")


class Elsewhere(ask.AskHandlers):
    """Handlers whose Stop does not reach the answer."""

    def on_stop(self, request: gr.Request):
        return None


def main() -> None:
    folder = Path(os.environ["RECORDED"])
    record(folder)
    recorded.FOLDER = folder
    if "ELSEWHERE" in os.environ:
        ask.ELSEWHERE, ask.AskHandlers = True, Elsewhere
    gate = Path(os.environ["GATE"]) if "GATE" in os.environ else None
    ramole = CrowdedRamole(
        rows=int(os.environ.get("ROWS", "32")),
        most=int(os.environ.get("MOST", "128")),
        loaded=gate is None,
        pause=float(os.environ.get("STEP_SECONDS", "0.02")),
        length=int(os.environ.get("LENGTH", "8")),
        gate=gate,
        options=OPTIONS if "OPTIONS" in os.environ else {},
    )
    with gr.Blocks(title="RAMoLE", analytics_enabled=False) as page:
        header.header(ramole)
        run = gr.State(None)
        with gr.Tabs(selected="ask", elem_id="tabs"):
            ask.tab(ramole, run)
            others = {
                "compare": lambda: compare.tab(ramole),
                "batch": lambda: batch.tab(ramole),
                "inspect": lambda: inspect.tab(ramole, run),
                "results": lambda: results.tab(Path(os.environ["FOLDER"])),
            }
            for name in os.environ.get("TABS", "compare").split():
                others[name]()
        addressed()
    serve(page, ramole)


if __name__ == "__main__":
    main()
