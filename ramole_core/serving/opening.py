"""`Ramole(settings, engines=engines_over(fleet))`: the same system over many engines."""

from typing import TYPE_CHECKING

from ramole_core.errors import RamoleError
from ramole_core.serving.fleet import Fleet

if TYPE_CHECKING:
    from ramole_core.engine.backend import Backend
    from ramole_core.ramole import BackendMaker, Progress, Ramole


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
        try:
            if engines.facts.checksum != weights_checksum(folder, data_dir=s.data_dir):
                raise RamoleError(
                    f"The engines run other weights than those of {s.base_model} here; start them "
                    "and the page with one RAMOLE_BASE_MODEL."
                )
            tell("publishing the adapters", 0.94)
            publishing.begin()
        except BaseException:
            engines.leave_fleet()  # the next try has the same fleet
            raise
        ramole.pool.listeners.insert(0, publishing)
        return engines

    return make
