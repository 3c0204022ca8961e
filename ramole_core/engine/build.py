"""Build the engine from settings and a checked base model."""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from ramole_core.base.files import count_parameters, weights_checksum
from ramole_core.base.model import BaseModel, pick_device, pick_dtype, pick_quantization
from ramole_core.composition import Composition, Trained
from ramole_core.engine.engine import Engine, EngineSizes
from ramole_core.engine.load_check import Verdict, remember, remembered
from ramole_core.engine.own_forward import OwnForward, run_own
from ramole_core.engine.reader import context_of
from ramole_core.errors import RamoleError, Unsupported
from ramole_core.kernels.code_cache import FOLDER
from ramole_core.kernels.vectors import LANES
from ramole_core.kernels.ways import ways_here
from ramole_core.settings import Settings

SERVING_PACKAGES = ("base", "engine", "layers", "kernels")
"""Packages whose code determines the served numbers."""


def engine_of(
    base: BaseModel,
    settings: Settings,
    *,
    shapes: Mapping[str, tuple[int, int]],
    weights: Callable[[Composition], Trained | None],
) -> Engine:
    """Build the engine of a base model from the settings; `shapes`: (i, o) of its linear layers,
    `weights` gives a method's trained weights. Raises RamoleError for an architecture that is not
    served as its own code computes it."""
    s = settings
    sizes = EngineSizes(
        max_batch=s.max_batch,
        max_queue=s.max_queue,
        prefill_chunk=s.prefill_chunk,
        draft_rows=s.draft_rows,
        kv_cache_bytes=s.kv_cache_mb * 2**20,
        device_cache_bytes=s.device_cache_mb * 2**20,
        host_cache_bytes=s.host_cache_mb * 2**20,
        units_dir=s.data_dir / "units",
        reference_dir=s.data_dir / "reference",
    )

    def make(own: OwnForward | None) -> Engine:
        return Engine(
            base,
            shapes=shapes,
            weights=weights,
            sizes=sizes,
            fused=s.fused_mixing,
            graphs=s.cuda_graphs,
            own=own,
        )

    return checked_engine(base, make, file=verdict_file(s, base.folder))


def checked_engine(
    base: BaseModel, make: Callable[[OwnForward | None], Engine], *, file: Path | None
) -> Engine:
    """The engine that `make` returns, compared once with the base's own forward; the verdict is
    kept in the file (None: not kept)."""
    try:
        verdict = remembered(file)
        if verdict is not None:
            engine = make(None)
            engine.allow_exact(verdict.exact)
            return engine
        weights = count_parameters(base.folder)
        engine = make(run_own(base.model, context=context_of(base.model), weights=weights))
        if engine.verdict is not None:
            remember(file, engine.verdict)
        return engine
    except Exception as error:
        known = isinstance(error, RamoleError) and not isinstance(error, Unsupported)
        if known or isinstance(error, MemoryError | OSError | torch.OutOfMemoryError):
            raise  # nothing that the architecture is to blame for
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, Unsupported):
            reason = f"its code fails here ({reason[:200]})"
        raise RamoleError(
            f"{base.name} cannot be served: {reason.rstrip('.')}; this architecture "
            f"({type(base.model).__name__}) is not supported, choose another base model (a table "
            "of those that are is in docs/hosting.md)."
        ) from error


def verdict_file(settings: Settings, folder: Path) -> Path:
    """Path of the verdict on a base in `folder`, keyed by all that it depends on."""
    s = settings
    device = pick_device(s.device)
    kind = pick_quantization(s.quantization, device=device, folder=folder)
    versions = [metadata.version(name) for name in ("torch", "transformers", "bitsandbytes")]
    what = (
        weights_checksum(folder, data_dir=s.data_dir),
        (folder / "config.json").read_text(),
        (kind, s.head, str(pick_dtype(s.dtype)), device.type),
        (FOLDER.name, LANES, ways_here(), versions, _code()),
    )
    name = hashlib.sha256(repr(what).encode()).hexdigest()[:32]
    return s.data_dir / "base" / "checked" / f"{name}.json"


def kept_verdict(settings: Settings, folder: Path) -> Verdict | None:
    """The kept verdict on a base in `folder` with these settings; None: there is none."""
    return remembered(verdict_file(settings, folder))


@cache
def _code() -> str:
    """Digest of the serving code."""
    digest = hashlib.sha256()
    core = Path(__file__).parents[1]
    for file in sorted(one for room in SERVING_PACKAGES for one in (core / room).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
