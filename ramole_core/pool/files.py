"""The files of an upload: chosen, and copied from a folder or an untrusted zip.

Only five file names are ever copied; everything else is named in a note or refused. Every member of
a zip is checked before one is unpacked, and bytes are counted.
"""

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Limits
from ramole_core.pool.config import CONFIG
from ramole_core.pool.examples_and_readme import EXAMPLES, EXAMPLES_JSON, README
from ramole_core.pool.inspection import WEIGHTS

T = TypeVar("T")
SourceInfo = tuple[str | None, list[str]]
"""The name that a source suggests, and notes on its files."""
USED = (WEIGHTS, CONFIG, README, EXAMPLES, EXAMPLES_JSON)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
_OWN = ("manifest.json", "train.json")
"""Files that RAMoLE writes; those of an upload are ignored without a note."""
_SILENT = (".DS_Store", "Thumbs.db", ".gitattributes", ".gitignore", *_OWN)
CHUNK = 2**20
MAX_MEMBERS = 64
MAX_DIRECTORY = 2**18
"""Bytes of the zip's own table of contents."""
MAX_RATIO = 100
"""Unpacked over packed; weights shrink by a factor of 1 to 3."""
_SMALL = 2**16
"""A member below this many bytes may have any ratio."""
_UNSOUND = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
"""Exceptions of zipfile for damaged bytes."""
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".jar", ".whl")


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


def copy_chosen(
    files: Mapping[str, T], opened: Callable[[T], IO[bytes]], into: Path, *, limits: Limits
) -> list[str]:
    """Copy the files to use of one folder into `into`, and return notes; raises AdapterRefused."""
    used, notes = choose(files)
    left = limits.bytes
    for name in used:
        with opened(files[name]) as source, open(into / name, "xb") as target:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise too_large(limits)
                target.write(chunk)
    return notes


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


def copy_zip(path: Path, into: Path, *, limits: Limits) -> list[str]:
    """Unpack the adapter's files into `into` and return notes; raises AdapterRefused."""
    if path.stat().st_size > limits.bytes:
        raise too_large(limits)
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.filename.startswith("__MACOSX/")]
            _check_members(members, limits)
            files = _folder_of({_plain(m.filename): m for m in members if not m.is_dir()})
            return copy_chosen(files, archive.open, into, limits=limits)
    except _UNSOUND as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # a full disk is not the zip's fault
        raise AdapterRefused(
            f"{path.name} is damaged or incomplete ({str(error)[:100]}); upload it again, or pack "
            "the adapter's folder anew."
        ) from None


def _check_directory(path: Path) -> None:
    """Bound the table of contents before zipfile reads it into memory."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 22 - 2**16))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise AdapterRefused(
            f"{path.name} is damaged or incomplete: a zip's end is missing; upload it again, or "
            "pack the adapter's folder anew."
        )
    count, size = struct.unpack("<HI", tail[at + 10 : at + 16])
    is_zip64 = b"PK\x06\x07" in tail[max(0, at - 20) : at]
    if is_zip64 or count > MAX_MEMBERS or size > MAX_DIRECTORY:
        what = (
            "a zip64 directory" if is_zip64 else f"{count} members in a directory of {size} bytes"
        )
        raise AdapterRefused(
            f"{path.name} has {what}; expected at most {MAX_MEMBERS} files: pack only the "
            "adapter's folder."
        )


def _check_members(members: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(members) > MAX_MEMBERS:
        raise AdapterRefused(
            f"The zip has {len(members)} members; expected at most {MAX_MEMBERS}: pack only the "
            "adapter's folder."
        )
    seen = set()
    for member in members:
        if wrong := _fault(member, seen):
            raise AdapterRefused(wrong)
        seen.add(_plain(member.filename))
    if sum(member.file_size for member in members) > limits.bytes:
        raise too_large(limits)


def _fault(member: zipfile.ZipInfo, seen: Set[str]) -> str | None:
    """Why a member is refused; `seen` has those before it."""
    name, path = member.filename, PurePosixPath(member.filename)
    shown = repr(name if len(name) <= 120 else name[:117] + "...")
    again = "pack the adapter's folder again."
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"The zip holds {shown}, a link or device; pack the files themselves."
    if not path.parts and name != "./":
        return f"The zip holds a file without a name; {again}"
    if path.is_absolute() or any(odd in name for odd in "\\:\0"):
        return f"The zip holds the absolute or odd path {shown}; pack the adapter's folder."
    if ".." in path.parts:
        return f"The zip holds {shown}, which climbs out with '..'; pack the adapter's folder."
    if path.suffix.lower() in _ARCHIVES:
        return f"The zip holds another archive, {shown}; pack the adapter's files themselves."
    if member.flag_bits & 1:
        return f"{shown} in the zip is encrypted; pack without a password."
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"{shown} in the zip is compressed in a rare way; pack with plain deflate."
    if _plain(name) in seen:
        return f"The zip holds {shown} twice; {again}"
    if member.file_size > max(_SMALL, MAX_RATIO * member.compress_size):
        return (
            f"{shown} in the zip unpacks to {member.file_size} bytes from "
            f"{member.compress_size}; expected at most {MAX_RATIO} times as many: pack real "
            "weights."
        )
    return None


def _plain(name: str) -> str:
    """A member's path without `./` and doubled slashes, which some programs write."""
    return str(PurePosixPath(name))


def _folder_of(files: dict[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files at the top, or in the one folder on top."""
    tops = {PurePosixPath(name).parts[0] for name in files if "/" in name}
    loose = [name for name in files if "/" not in name]
    if loose or not tops:
        return {name: files[name] for name in loose}
    if len(tops) > 1:
        raise AdapterRefused(
            f"The zip holds {len(tops)} folders ({', '.join(sorted(tops)[:4])[:200]}); pack one "
            "adapter in one zip."
        )
    (top,) = tops
    inside = {name.removeprefix(top + "/"): member for name, member in files.items()}
    return {name: member for name, member in inside.items() if "/" not in name}
