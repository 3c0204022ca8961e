"""Each visitor's batch: begin, watch, pick a row, download, stop.

Whatever a browser says is believed only within its own session.
"""

import logging
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramole_core import Batch, RamoleError

from ..parts.errors import UNEXPECTED
from ..session.quota import quota_of
from ..session.store import Drawer
from .files import write_results
from .rows import read
from .run import BatchRun, run_of, watched
from .updates import Drawing, Look
from .views import row_html

if TYPE_CHECKING:
    from ramole_core import Ramole

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
