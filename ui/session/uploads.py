"""Move uploaded files out of Gradio's cache, into a private folder.

Anyone with the URL of a file in Gradio's cache can download it. So an upload is moved out before it
is read, and a caller's path is accepted only where it points into that cache.
"""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gradio import route_utils
from gradio.utils import get_upload_folder
from starlette.datastructures import FormData, UploadFile

from ramole_core import AdapterRefused

from ..gradio_home import folder_within

ARCHIVE = ".zip"
PAIR = ("adapter_model.safetensors", "adapter_config.json")
NO_UPLOAD = "That is not an uploaded file; upload the file itself."
EXAMPLE_ENDINGS = (".jsonl", ".json", ".txt")


class OwnPlace(route_utils.GradioUploadFile):
    """A file that is written into Gradio's cache, at a path of its own.

    Gradio makes the place of the content alone: of two visitors who upload the same file, the one
    whose handler comes first takes it from the other.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sha.update(secrets.token_bytes(32))


_parse = route_utils.GradioMultiPartParser.parse


async def parse_or_delete(self: route_utils.GradioMultiPartParser) -> FormData:
    """Read a body of files; of one that is cut, refused or left, no file stays, and none of another
    field. Gradio deletes them where its own parser finds a fault, and nowhere else."""
    kept: set[str] = set()
    try:
        form = await _parse(self)
        kept = {one.file.name for one in form.getlist("files") if isinstance(one, UploadFile)}
        return form
    finally:
        for file in self._files_to_close_on_error:
            if file.name not in kept:
                file.close()
                Path(file.name).unlink(missing_ok=True)


def keep_uploads_apart() -> None:
    """Have Gradio give each upload a place of its own, and keep none that it does not serve."""
    route_utils.GradioUploadFile = OwnPlace
    route_utils.GradioMultiPartParser.parse = parse_or_delete


@dataclass(frozen=True)
class Drop:
    """One uploaded adapter: a zip, or a folder of loose files."""

    label: str
    """The file's own name, for the verdict."""
    path: Path
    size: int
    """Bytes."""


@contextmanager
def taken(paths: Sequence[str]) -> Iterator[list[Path]]:
    """The uploaded files, moved into a private folder that goes when the block ends.

    Raises AdapterRefused for what is not an upload, or is there no more.
    """
    if not isinstance(paths, list | tuple):
        raise AdapterRefused(NO_UPLOAD)
    with folder_within("upload-") as folder:
        yield [_take(path, Path(folder) / str(i)) for i, path in enumerate(paths)]


def _take(path: str, folder: Path) -> Path:
    cache = Path(get_upload_folder()).resolve()
    try:
        given = Path(path)
        cached = not given.is_symlink() and given.resolve().is_relative_to(cache)
    except (OSError, TypeError, ValueError):  # no path: a number, or a text of any length
        raise AdapterRefused(NO_UPLOAD) from None
    if not cached:
        raise AdapterRefused(NO_UPLOAD)
    folder.mkdir()
    target = folder / given.name
    try:
        shutil.copyfile(given, target)
    except OSError:  # the cache was full, or it lay there for too long
        raise AdapterRefused(f"{given.name} is no longer there; drop it again.") from None
    given.unlink(missing_ok=True)
    return target


def group(files: Sequence[Path], folder: Path) -> list[Drop]:
    """Group files into adapters: each zip is one, all loose files together are one.

    `folder` takes the loose files. A browser sends no folder names, so the files of two adapters
    cannot be distinguished; then AdapterRefused.
    """
    zips = [file for file in files if file.suffix.lower() == ARCHIVE]
    loose = [file for file in files if file.suffix.lower() != ARCHIVE]
    drops = [Drop(zipped.name, zipped, zipped.stat().st_size) for zipped in zips]
    if loose:
        names = [file.name for file in loose]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise AdapterRefused(
                f"{twice[0]} came {names.count(twice[0])} times, and a browser does not say from "
                "which folder each came; drop one folder at a time, or each adapter as a zip."
            )
        if len(loose) == 1 and loose[0].suffix.lower() in EXAMPLE_ENDINGS and names[0] not in PAIR:
            raise AdapterRefused(
                f"{names[0]} is not an adapter; drop adapter_model.safetensors and "
                "adapter_config.json with it, or give it as examples."
            )
        folder.mkdir(parents=True)
        for file in loose:
            shutil.move(file, folder / file.name)
        label = " + ".join(name for name in names if name in PAIR) or names[0]
        size = sum((folder / name).stat().st_size for name in names)
        drops.append(Drop(label, folder, size))
    return drops
