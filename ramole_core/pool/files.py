"""Choose and copy the files of an upload.

Only five file names are ever copied; everything else is named in a note or refused.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Limits
from ramole_core.pool.config import CONFIG
from ramole_core.pool.examples_and_readme import EXAMPLES, LISTED, README
from ramole_core.pool.inspection import WEIGHTS

USED = (WEIGHTS, CONFIG, README, EXAMPLES, LISTED)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
_OWN = ("manifest.json", "train.json")
"""Written by RAMoLE itself; an upload's are not believed, and not worth a note."""
_SILENT = (".DS_Store", "Thumbs.db", ".gitattributes", ".gitignore", *_OWN)
CHUNK = 2**20


def choose(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names to use of those in one folder, and notes; raises AdapterRefused."""
    names = sorted(names)
    if pickles := [name for name in names if Path(name).suffix.lower() in PICKLES]:
        raise pickled(pickles)
    for wanted in (WEIGHTS, CONFIG):
        if wanted not in names:
            there = ", ".join(map(repr, names[:6])) or "nothing"
            raise AdapterRefused(
                f"{wanted} is missing (found {there[:300]}); add what PEFT's save_pretrained "
                "writes."
            )
    ignored = [n for n in names if n not in USED and n not in _SILENT and not n.startswith("._")]
    notes = []
    if ignored:
        shown = ", ".join(map(repr, ignored[:8])) + (", ..." if ignored[8:] else "")
        notes.append(f"Not used: {shown[:400]}.")
    return [name for name in USED if name in names], notes


def copy_stream(read: Callable[[int], bytes], target: Path, *, left: int, limits: Limits) -> int:
    """Copy at most `left` bytes, returns how many; raises AdapterRefused when there are more."""
    copied = 0
    with open(target, "xb") as file:
        while chunk := read(CHUNK):
            copied += len(chunk)
            if copied > left:
                raise too_large(limits)
            file.write(chunk)
    return copied


def too_large(limits: Limits) -> AdapterRefused:
    return AdapterRefused(
        f"The upload is larger than {limits.max_upload_mb} MiB; make it smaller (a lower rank, "
        "bfloat16), or raise RAMOLE_MAX_UPLOAD_MB."
    )


def pickled(names: Sequence[str]) -> AdapterRefused:
    shown = ", ".join(PurePosixPath(name).name for name in names[:4])
    return AdapterRefused(
        f"{shown[:200]} can run code when it is opened (pickle); only safetensors are taken: save "
        "with PEFT's save_pretrained (safe_serialization=True) and leave such files out."
    )
