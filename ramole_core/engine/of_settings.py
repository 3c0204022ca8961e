"""The engine in the sizes that the settings say."""

from collections.abc import Callable, Mapping

from ramole_core.base.model import BaseModel
from ramole_core.composition import Composition, Trained
from ramole_core.engine.engine import Engine, EngineSizes
from ramole_core.settings import Settings


def engine_of(
    base: BaseModel,
    settings: Settings,
    *,
    shapes: Mapping[str, tuple[int, int]],
    weights: Callable[[Composition], Trained | None],
) -> Engine:
    """The engine of a base model in the sizes that the settings say; `shapes`: (i, o) of its linear
    layers, `weights` gives a method's trained weights."""
    s = settings
    sizes = EngineSizes(
        max_batch=s.max_batch,
        max_queue=s.max_queue,
        prefill_chunk=s.prefill_chunk,
        kv_cache_bytes=s.kv_cache_mb * 2**20,
        device_cache_bytes=s.device_cache_mb * 2**20,
        host_cache_bytes=s.host_cache_mb * 2**20,
        units_dir=s.data_dir / "units",
        reference_dir=s.data_dir / "reference",
    )
    return Engine(
        base,
        shapes=shapes,
        weights=weights,
        sizes=sizes,
        fused=s.fused_mixing,
        graphs=s.cuda_graphs,
    )
