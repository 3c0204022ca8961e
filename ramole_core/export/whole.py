"""Files and folders that are there whole or not at all, and never take another's place."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramole_core.errors import RamoleError


def refuse_taken(path: Path) -> None:
    """Raises RamoleError where something is there already, or could not be."""
    if os.path.lexists(path):
        raise RamoleError(f"{path} is there already; name another place, or remove it first.")
    if not path.parent.is_dir():
        raise RamoleError(f"There is no folder {path.parent} to write {path.name} into; make it.")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or folder to, which gets its name at the end; whatever
    goes wrong, nothing is left of it. An error of the disk becomes a RamoleError."""
    refuse_taken(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield part
        refuse_taken(path)
        os.rename(part, path)
    except OSError as error:
        raise RamoleError(
            f"{path} could not be written ({error.strerror or error}), and nothing is left of it; "
            "make room there, or name another place."
        ) from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
