"""An adapter as a zip to download: its own files alone."""

import zipfile
from pathlib import Path

from ..parts.downloads import fresh_folder

FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "README.md",
    "examples.jsonl",
    "train.json",
)


def write_bundle(folder: Path, name: str) -> Path:
    """`<name>.zip` in a new folder of Gradio's cache, whose name nobody can guess; in it the files
    of `folder`, in a folder `<name>`.

    The weights are stored, not packed: they do not shrink. Times are fixed, so that the same
    adapter gives the same bytes.
    """
    target = fresh_folder() / f"{name}.zip"
    with zipfile.ZipFile(target, "w") as bundle:
        for file in FILES:
            path = folder / file
            if path.is_file() and not path.is_symlink():
                entry = zipfile.ZipInfo(f"{name}/{file}", date_time=(2024, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                stored = file.endswith(".safetensors")
                entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                with path.open("rb") as source, bundle.open(entry, "w") as goal:
                    while block := source.read(2**20):
                        goal.write(block)
    return target
