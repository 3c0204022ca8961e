"""Each visitor's batch: begin, look, pick a row, take the results, stop, leave.

Whatever a browser says is believed only within its own session.
"""

import logging
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ramole_core import Batch, RamoleError

from .batch_files import write_results
from .batch_picture import picture_of
from .batch_rows import read
from .batch_run import BatchRun, run_of, watched
from .batch_views import HEADERS, progress_html, row_html, standing_html, table_of
from .errors import UNEXPECTED
from .found import notice_html

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)
Look = tuple[Any, ...]
"""Notice, progress, picture, table, and the run once it has ended."""


class Sessions:
    """The last run of each session."""

    def __init__(self, ramole: "Ramole"):
        self._ramole = ramole
        self._runs: dict[str | None, BatchRun] = {}

    def read(
        self, owner: str | None, text: str, kind: str, method: str, k: int, length: int
    ) -> Batch:
        """The rows of a text, good and bad; raises RamoleError where there is none."""
        defaults = {"method": method, "k": k, "max_new_tokens": length}
        return read(self._ramole, text, kind, defaults=defaults, owner=owner)

    def busy(self, session: str | None) -> bool:
        """Whether a run is on its way that nobody has stopped."""
        run = self._runs.get(session)
        return run is not None and not run.ended.is_set() and not run.cancelled.is_set()

    def looks(
        self, session: str | None, owner: str | None, *rows: Any, address: str = ""
    ) -> Generator[Look, None, None]:
        """Run the rows (what `read` takes); a look now and then, the last after the end."""
        drawing, before = Drawing(), self._runs.get(session)
        try:
            batch = self.read(owner, *rows)
            if not batch.rows:
                raise RamoleError("No row can run; what is wrong with each stands by the text.")
            run = self._runs[session] = run_of(batch, owner=owner, address=address)
            yield drawing.look(run)
            with closing(watched(self._ramole, run)) as turns:
                for _ in turns:
                    yield drawing.look(run)
        except RamoleError as error:
            yield drawing.wrong(str(error), before)
        except Exception:
            log.exception("A batch failed.")
            yield drawing.wrong(UNEXPECTED, before)

    def stop(self, session: str | None) -> None:
        """End the session's run; its own looks then end, with what came."""
        run = self._runs.get(session)
        if run is not None:
            run.cancelled.set()

    def leave(self, session: str | None) -> None:
        """The visitor has gone."""
        self.stop(session)
        self._runs.pop(session, None)

    def keep(self, session: str | None, run: BatchRun | None) -> None:
        """A run that ended in another process, as on ZeroGPU."""
        if run is not None:
            self._runs[session] = run

    def row_html(self, session: str | None, said: object) -> str:
        """One row in full: `said` is what the picture sent, the run's name and the row's number."""
        said = said if isinstance(said, dict) else {}
        run, number = self._runs.get(session), said.get("n")
        if run is None or run.name != said.get("run") or not isinstance(number, int):
            return ""
        return row_html(run, number)

    def results(self, session: str | None) -> tuple[Path, Path]:
        """The results so far as files, jsonl and csv; raises RamoleError where nothing ran."""
        run = self._runs.get(session)
        if run is None:
            raise RamoleError("There are no results yet; run some rows first.")
        return write_results(run)


class Drawing:
    """What notice, progress, picture and table hold, each time somebody looks at a run; and itself.

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
        """No new run, and why; the one before stays in sight."""
        said = notice_html(sentence, kind="wrong")
        return said, progress_html(before), picture_of(before), _table(before), before


def _table(run: BatchRun | None) -> dict[str, Any]:
    return {"headers": HEADERS, "data": table_of(run), "metadata": None}
