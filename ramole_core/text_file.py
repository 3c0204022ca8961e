"""Text files that people write."""

from io import StringIO
from pathlib import Path

from ramole_core.errors import RamoleError


def decode(data: bytes, name: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark; RamoleError for anything else."""
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(coding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RamoleError(f"{name} is not UTF-8 text at line {line}; save it as UTF-8.") from None


def read_text(path: Path, name: str = "") -> str:
    """Read and `decode` a file; lines end in a line feed alone. An error says `name`, else the
    path; RamoleError where no file is there."""
    name = name or str(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RamoleError(f"There is no file {name}; give one that is there.") from None
    return StringIO(decode(data, name), newline=None).read()
