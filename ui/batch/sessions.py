"""Each visitor's batch: begin, watch, pick a row, download, stop.

Whatever a browser says is believed only within its own session.
"""

import logging
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ramole_core import Batch, RamoleError

from ..parts.errors import UNEXPECTED
from ..parts.markup import notice_html
from ..session.quota import quota_of
from ..session.store import Drawer
from .files import write_results
from .picture import picture_of
from .rows import read
from .run import BatchRun, run_of, watched
from .views import HEADERS, progress_html, row_html, standing_html, table_of

if TYPE_CHECKING:
    from ramole_core import Ramole

Look = tuple[Any, ...]
"""Notice, progress, picture, table, and the run once it has ended: `BatchLayout.looks`."""


class Drawing:
    """The values of notice, progress, picture and table for each update of a run.

    All four have a value each time, as Gradio's browser half reads it: a component that is left
    out would be built anew, at ten times the cost. The table is made only where it has grown.
    """

    def __init__(self):
        self._ended = -1
        self._table: dict[str, Any] = {}

    def look(self, run: BatchRun) -> Look:
        """The run as it stands."""
        over, count = run.ended.is_set(), run.count()
        ended = len(run.items) - count["waits"] - count["runs"]
        if ended != self._ended or over:
            self._ended, self._table = ended, _table(run)
        kept = run if over else gr.skip()
        return standing_html(run), progress_html(run), picture_of(run), self._table, kept

    def wrong(self, sentence: str, before: BatchRun | None) -> Look:
        """No new run, with the reason; the one before stays visible."""
        said = notice_html(sentence, kind="wrong")
        return said, progress_html(before), picture_of(before), _table(before), before


def _table(run: BatchRun | None) -> dict[str, Any]:
    return {"headers": HEADERS, "data": table_of(run), "metadata": None}


log = logging.getLogger(__name__)


class Sessions:
    """The last run of each session."""

    def __init__(self, ramole: "Ramole"):
        self._ramole = ramole
        self._runs: Drawer[BatchRun] = quota_of(ramole).presence.sessions.drawer(
            weigh=lambda run: run.weight, end=lambda run: run.cancelled.set()
        )

    def read(
        self, owner: str | None, text: str, kind: str, method: str, k: int, length: int
    ) -> Batch:
        """The rows of a text, good and bad; raises RamoleError where there is none."""
        defaults = {"method": method, "k": k, "max_new_tokens": length}
        return read(self._ramole, text, kind, defaults=defaults, owner=owner)

    def busy(self, session: str) -> bool:
        """Whether a run is on its way and not stopped."""
        run = self._runs.get(session)
        return run is not None and not run.ended.is_set() and not run.cancelled.is_set()

    def looks(
        self, session: str, owner: str | None, *rows: Any, address: str = ""
    ) -> Generator[Look, None, None]:
        """Run the rows (as `read` takes them); yields updates, the last after the end."""
        drawing, before = Drawing(), self._runs.get(session)
        try:
            batch = self.read(owner, *rows)
            if not batch.rows:
                raise RamoleError("No row can run; what is wrong with each stands by the text.")
            run = run_of(batch, owner=owner, address=address)
            self._runs.put(session, run)
            yield drawing.look(run)
            with closing(watched(self._ramole, run)) as turns:
                for _ in turns:
                    yield drawing.look(run)
        except RamoleError as error:
            yield drawing.wrong(str(error), before)
        except Exception:
            log.exception("A batch failed.")
            yield drawing.wrong(UNEXPECTED, before)
        finally:
            if (run := self._runs.get(session)) is not None:
                self._runs.put(session, run)  # with what it weighs now

    def stop(self, session: str) -> None:
        """Stop the session's run; its updates end with what came."""
        self._runs.end_of(session)

    def keep(self, session: str, run: BatchRun | None) -> None:
        """Keep a run that ended in another process, as on ZeroGPU."""
        if run is not None:
            self._runs.put(session, run)

    def row_html(self, session: str, said: object) -> str:
        """One row in full: `said` is what the picture sent, the run's name and the row's number."""
        said = said if isinstance(said, dict) else {}
        run, number = self._runs.get(session), said.get("n")
        if run is None or run.name != said.get("run") or not isinstance(number, int):
            return ""
        return row_html(run, number)

    def results(self, session: str) -> tuple[Path, Path]:
        """The results so far as files, jsonl and csv; raises RamoleError where nothing ran."""
        run = self._runs.get(session)
        if run is None:
            raise RamoleError("There are no results yet; run some rows first.")
        return write_results(run)
