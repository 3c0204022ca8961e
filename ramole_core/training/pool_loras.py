"""The pool's adapters as LoRAs by module path, for training and measuring gates."""

from collections.abc import Mapping, Sequence

from ramole_core.composition import Lora
from ramole_core.pool import Limits, Pool
from ramole_core.settings import Settings


def read_loras(
    names: Sequence[str], *, settings: Settings, shapes: Mapping[str, tuple[int, int]]
) -> dict[str, dict[str, Lora]]:
    """The adapters of these names, scale folded into B; raises RamoleError for an unknown one."""
    pool = Pool(
        adapters_dir=settings.adapters_dir,
        data_dir=settings.data_dir,
        shapes=lambda: shapes,
        limits=Limits(max_rank=settings.max_rank),
        read_only=True,
    )
    return {
        name: {
            path: Lora(A=A, B=B) for path, (A, B) in pool.tensors(pool.card(name)).modules.items()
        }
        for name in names
    }
