"""An engine served to other processes, by plain data.

It has no pool: an adapter is a checksum, read from the store. The transport (Ray, a test) calls it
from many threads.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Candidate, Composition, Response, Trained
from ramole_core.composition.trained import WeightsFolder
from ramole_core.engine.prompt import Prepared, Prompt
from ramole_core.engine.prompt_reader import Likely
from ramole_core.engine.reader import ModelFacts
from ramole_core.own_model import load_here
from ramole_core.request import Generation, Request
from ramole_core.serving.store import AdapterStore, Mirror
from ramole_core.serving.wire import EngineMessage, Job, QueuePlace, read_by, turns_read_by
from ramole_core.settings import Settings
from ramole_core.turns import Source, never

CONTENT = re.compile("[0-9a-f]{64}-[0-9a-f]{16}")
"""Form of an adapter's checksum; a method's own adapters have other keys."""


class EngineServer:
    """An engine for remote callers; owns the model until `close`."""

    def __init__(self, settings: Settings):
        """Loads the model; raises RamoleError where it cannot."""
        s = settings
        self._weights_folder = WeightsFolder(s.adapters_dir, own=s.trained_dir)
        base, self._engines = load_here(s, lambda *_: None, weights=self._weights)
        self._store = AdapterStore(s.store)
        self._mirror = Mirror(self._store, s.data_dir / "mirror", shapes=read_shapes(base.folder))
        self._engines.start()
        self._forget_removed(s.data_dir / "units", s.data_dir / "mirror")
        self._warm_up()

    @property
    def alive(self) -> bool:
        """Whether the thread that runs the model is alive."""
        return self._engines.alive

    def model_facts(self) -> ModelFacts:
        return self._engines.facts

    def answer(
        self, job: Job, deliver: Callable[[EngineMessage], None], *, cancelled: Callable[[], bool]
    ) -> None:
        """Answer a request; `deliver` gets its results in the caller's thread, a Generation last.
        Raises the request's errors, Busy where too many wait."""
        stream = self._engines.stream(
            [self._prepared(job)],
            session=job.session,
            address=job.address,
            cancelled=cancelled,
            waiting=lambda _, place: deliver(QueuePlace(place)),
            fitting=lambda _, how: deliver(how),
        )
        for _, item in stream:
            deliver(item)

    def examine(
        self,
        prompts: Sequence[Prompt],
        adapters: Sequence[Sequence[Candidate]],
        source: Source = ("", ""),
    ) -> list[list[Response]]:
        """Return each adapter's response to the end of its prompt."""
        found = [read_by(self._mirror.loras, part) for part in adapters]
        return self._engines.examine(prompts, found, source=source)

    def next_tokens(self, jobs: Sequence[Job], ids: Sequence[int], top: int) -> list[Likely]:
        """The likeliest tokens after `ids`, as each request would have them."""
        return self._engines.next_tokens(list(map(self._prepared, jobs)), ids, top=top)

    def stats(self) -> Mapping[str, int | float]:
        return {**self._engines.stats(), "store_reads": self._mirror.reads}

    def forget(self, contents: Sequence[str]) -> None:
        """Delete everything of these removed adapters from this machine's disk."""
        self._engines.store.drop(contents)
        self._mirror.forget(contents)

    def close(self) -> None:
        self._engines.close()

    def _prepared(self, job: Job) -> Prepared:
        return self._engines.complete(
            replace(job, turns=turns_read_by(self._mirror.loras, job.turns))
        )

    def _weights(self, method: Composition) -> Trained | None:
        return self._weights_folder.get(method.row, needed=method.needs_weights)

    def _forget_removed(self, *folders: Path) -> None:
        """Delete adapters that were removed while this engine was down."""
        names = {file.name for folder in folders if folder.is_dir() for file in folder.iterdir()}
        held = {found[0] for name in names if (found := CONTENT.match(name))}
        if gone := [content for content in sorted(held) if not self._store.holds(content)]:
            self.forget(gone)

    def _warm_up(self) -> None:
        """Generate two tokens of the base: the first forward of a process is slow."""
        request = Request("warm up", method="base", raw=True, max_new_tokens=2, trace=False)
        prepared = self._engines.prepare(request, ())
        ended = self._engines.stream([prepared], cancelled=never, waiting=lambda index, place: None)
        assert any(isinstance(item, Generation) for _, item in ended)
