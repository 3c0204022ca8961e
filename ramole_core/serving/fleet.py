"""The page's interface to live engines, each addressed by a key; and the system over them.

What carries the calls is behind it: Ray (`ray_fleet.py`), threads or processes in tests.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ramole_core.errors import RamoleError
from ramole_core.serving.wire import Job, News

if TYPE_CHECKING:
    from ramole_core.engine.backend import Backend
    from ramole_core.ramole import BackendMaker, Progress, Ramole

Item = News | Exception
"""A message about a request: the engine's, or why it ended without an answer."""


class EngineLost(Exception):
    """The engine is gone; its requests may go to another."""


class PageSilent(EngineLost):
    """The engine dropped the request after too long without a sign of the page."""


class NoEngine(RamoleError):
    """No engine is live."""

    def __init__(self, seconds: float):
        super().__init__(
            f"No engine has answered for {seconds:.0f} seconds; they start, or were stopped: try "
            "again in a moment."
        )


class Fleet(Protocol):
    """Live engines; thread-safe."""

    def keys(self) -> Sequence[str]:
        """Keys of the live engines."""
        ...

    def call(self, key: str, name: str, *args: object) -> object:
        """Call the engine's method of that name; raises what it raises, EngineLost where the engine
        is gone."""
        ...

    def notify(self, key: str, name: str, *args: object) -> None:
        """Call without waiting; errors are dropped."""
        ...

    def answer(
        self, key: str, job: Job, receive: Callable[[Sequence[Item]], None]
    ) -> Callable[[], None]:
        """Begin a request; `receive` gets its results in order, in another thread: last a
        Generation or an exception. Returns a function that cancels it: the Generation then has what
        was made."""
        ...

    def close(self) -> None:
        """Release the connections to the engines."""
        ...


def engines_over(fleet: Fleet) -> "BackendMaker":
    """Make the `engines` argument of `Ramole`: pool and retrieval stay here, adapters go into the
    store, the fleet answers."""

    def make(ramole: "Ramole", tell: "Progress") -> "Backend":
        from ramole_core.base.fetch import fetch_base
        from ramole_core.base.files import weights_checksum
        from ramole_core.base.model import load_tokenizer
        from ramole_core.serving.placing import Placing
        from ramole_core.serving.publishing import Publishing
        from ramole_core.serving.remote_backend import RemoteBackend
        from ramole_core.serving.store import AdapterStore

        s = ramole.settings
        folder = fetch_base(
            s.base_model, data_dir=s.data_dir, progress=lambda stage, f: tell(stage, 0.6 * f)
        )
        ramole.check_adapters(tell)
        publishing = Publishing(
            ramole.pool, AdapterStore(s.store), gone=lambda contents: engines.forget(contents)
        )
        tell("waiting for the engines", 0.92)
        engines = RemoteBackend(
            fleet,
            Placing(s.placement),
            tokenizer=load_tokenizer(s.base_model, folder, chat_template=s.chat_template),
            weights=ramole.weights_of,
            hold=publishing.held,
            rows=s.max_batch,
        )
        if engines.facts.checksum != weights_checksum(folder, data_dir=s.data_dir):
            engines.close()
            raise RamoleError(
                f"The engines run other weights than those of {s.base_model} here; start them and "
                "the page with one RAMOLE_BASE_MODEL."
            )
        tell("publishing the adapters", 0.94)
        publishing.begin()
        ramole.pool.listeners.insert(0, publishing)
        return engines

    return make
