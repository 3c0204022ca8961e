"""Unpack untrusted zips: check every member before unpacking, and count bytes."""

import errno
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Limits
from ramole_core.pool.files import choose, copy_stream, too_large

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
"""What zipfile raises for spoiled bytes."""
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".jar", ".whl")


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
            used, notes = choose(files)
            left = limits.bytes
            for name in used:
                with archive.open(files[name]) as member:
                    left -= copy_stream(member.read, into / name, left=left, limits=limits)
    except _UNSOUND as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # a full disk is not the zip's fault
        raise AdapterRefused(
            f"{path.name} is damaged or incomplete ({str(error)[:100]}); upload it again, or pack "
            "the adapter's folder anew."
        ) from None
    return notes


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
        name = member.filename
        shown = repr(name if len(name) <= 120 else name[:117] + "...")
        path = PurePosixPath(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise AdapterRefused(
                f"The zip holds {shown}, a link or device; pack the files themselves."
            )
        if not path.parts and name != "./":
            raise AdapterRefused(
                "The zip holds a file without a name; pack the adapter's folder again."
            )
        if path.is_absolute() or "\\" in name or ":" in name or "\0" in name:
            raise AdapterRefused(
                f"The zip holds the absolute or odd path {shown}; pack the adapter's folder."
            )
        if ".." in path.parts:
            raise AdapterRefused(
                f"The zip holds {shown}, which climbs out with '..'; pack the adapter's folder."
            )
        if path.suffix.lower() in _ARCHIVES:
            raise AdapterRefused(
                f"The zip holds another archive, {shown}; pack the adapter's files themselves."
            )
        if member.flag_bits & 1:
            raise AdapterRefused(f"{shown} in the zip is encrypted; pack without a password.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise AdapterRefused(
                f"{shown} in the zip is compressed in a rare way; pack with plain deflate."
            )
        if _plain(name) in seen:
            raise AdapterRefused(f"The zip holds {shown} twice; pack the adapter's folder again.")
        seen.add(_plain(name))
        if member.file_size > max(_SMALL, MAX_RATIO * member.compress_size):
            raise AdapterRefused(
                f"{shown} in the zip unpacks to {member.file_size} bytes from "
                f"{member.compress_size}; expected at most {MAX_RATIO} times as many: pack "
                "real weights."
            )
    if sum(member.file_size for member in members) > limits.bytes:
        raise too_large(limits)


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
