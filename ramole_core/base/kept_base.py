"""Keep a converted base model: written to a folder of its own, then renamed.

So a conversion that was killed leaves nothing half-written behind, and of two processes that need
the same model one makes it.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from ramole_core.base.checksum import sha256
from ramole_core.errors import RamoleError

MARKER = "source.json"
"""Says where the model came from; a folder without it is not whole."""


def is_kept(folder: Path) -> bool:
    """Whether the folder holds a complete model."""
    return (folder / MARKER).is_file()


def keep_base(
    final: Path, make: Callable[[Path, Path], Mapping[str, object]], *, source: str
) -> Path:
    """Make the folder `final` if missing, and return it: `make(part, model)` writes the model into
    the new folder `model`, with `part` to work in, and returns where it is from.

    Raises RamoleError where nothing can be kept there.
    """
    home = final.parent
    if is_kept(final):
        return final
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(str(home / f".{final.name}.lock")):
            if not is_kept(final):  # another process may have made it meanwhile
                _make_final(final, make, source=source)
    except OSError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RamoleError(
            f"The base model cannot be kept under {home} ({reason}); make room there, or set "
            "RAMOLE_DATA_DIR to a folder that can be written."
        ) from error
    return final


def _make_final(
    final: Path, make: Callable[[Path, Path], Mapping[str, object]], *, source: str
) -> None:
    """Make the folder elsewhere and rename it; delete leftovers of killed processes."""
    for left in final.parent.glob(f"{final.name}.part-*"):
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"{final.name}.part-", dir=final.parent))
    made = part / "model"
    try:
        said = make(part, made)
        sums = {file.name: sha256(file) for file in sorted(made.glob("*.safetensors"))}
        origin = {"source": source, **said, "weights_sha256": sums}
        (made / MARKER).write_text(json.dumps(origin, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        made.replace(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)
