"""A fleet of real engines in threads of this process, which die when a test says so."""

import threading
from collections.abc import Callable, Sequence

from ramole_core.request import Step
from ramole_core.serving.engine_server import EngineServer
from ramole_core.serving.fleet import EngineLost, Item
from ramole_core.serving.wire import EngineMessage, Job


class ThreadFleet:
    """`Fleet` over engine servers; an engine that was killed is gone for whoever asked it."""

    def __init__(self, servers: dict[str, EngineServer]):
        self.servers = servers
        self.dead: set[str] = set()
        self.jobs: list[tuple[str, Job]] = []
        """All that was sent, with the engine."""
        self.kills: list[int] = []
        """After so many tokens of a job, counted anew for each job, its engine dies."""
        self.replies: list[Exception | None] = []
        """Errors that the next jobs get instead of an answer; None for one that is answered."""
        self.loses_cancelled = False
        """Whether a job that is cancelled loses its engine in that moment."""
        self.told: list[tuple[str, str, tuple[object, ...]]] = []
        """What an engine was told without being waited for."""
        self.revive = True
        """Whether an engine that died is there again under another key."""

    def keys(self) -> Sequence[str]:
        return [key for key in self.servers if key not in self.dead]

    def kill(self, key: str) -> None:
        self.dead.add(key)
        if self.revive:  # as a process that was started again
            name, _, number = key.partition("#")
            self.servers[f"{name}#{int(number or 0) + 1}"] = self.servers[key]

    def call(self, key: str, name: str, *args: object) -> object:
        if key in self.dead:
            raise EngineLost(key)
        return getattr(self.servers[key], name)(*args)

    def notify(self, key: str, name: str, *args: object) -> None:
        self.told.append((key, name, args))

    def answer(
        self, key: str, job: Job, receive: Callable[[Sequence[Item]], None]
    ) -> Callable[[], None]:
        if error := self.replies.pop(0) if self.replies else None:
            receive([error])
            return lambda: None
        self.jobs.append((key, job))
        ended = threading.Event()
        left = self.kills.pop(0) if self.kills else -1

        def deliver(item: EngineMessage) -> None:
            nonlocal left
            if ended.is_set():
                return
            if left == 0 or key in self.dead:
                if left == 0:
                    self.kill(key)
                left = -1
                ended.set()
                receive([EngineLost(key)])
                return
            if isinstance(item, Step):
                left -= 1
            receive([item])

        cancelled = threading.Event()

        def run() -> None:
            try:
                self.servers[key].answer(
                    job, deliver, cancelled=lambda: ended.is_set() or cancelled.is_set()
                )
            except Exception as error:
                if not ended.is_set():
                    receive([error])

        def cancel() -> None:
            cancelled.set()
            if self.loses_cancelled and not ended.is_set():
                ended.set()
                receive([EngineLost(key)])

        threading.Thread(target=run, daemon=True).start()
        return cancel

    def close(self) -> None:
        """The servers are the test's."""
