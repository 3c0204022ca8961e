"""The measured JSON files as plain data: what is missing, broken or older is a sentence, no crash.

A file is read again only when its time or size has changed. What a file lacks is left out; what it
has beyond this is not looked at.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .values import Raw, table, text

RESULTS = Path(__file__).parents[2] / "results"
COMMANDS = {
    "evaluation.json": "python -m ramole_core evaluate",
    "evaluation_dev.json": "python -m ramole_core evaluate --skip 60 --rows 40",
    "situations_dev.json": "python -m ramole_core evaluate --situations phrased,switch",
    "methods_dev.json": "python -m ramole_core evaluate --skip 60 --rows 40 --tasks ...",
    "methods_further_dev.json": "python -m ramole_core evaluate --situations switch,unseen",
    "methods.json": "python -m lab method_speed",
    "composite_n.json": "python -m lab composite_n --data data",
    "ca_lora.json": "python -m lab ca_lora_table --data data",
    "llava_mole.json": "python -m lab llava_mole_table --data data",
    "retriever.json": "python -m lab retriever_table --data data",
    "adapters_dev.json": "python -m lab dev_table --data data",
    "ablations.json": "python -m lab evidence_table --data data",
    "router_ablations.json": "python -m lab router_ablations --data data",
    "router_dev.json": "python -m lab router_table --data data",
    "speed.json": "python -m ramole_core benchmark",
    "many_users.json": "python -m lab many_users",
}
"""What writes a file that is not there yet; a file that is there says its own."""
CHECKSUMS = {
    "base_checksum": "base weights, SHA-256",
    "router_checksum": "router, SHA-256",
    "router_sha256": "router, SHA-256",
    "gate_checksum": "gate, SHA-256",
    "retriever_checksum": "retriever, SHA-256",
    "encoder_checksum": "sentence encoder, SHA-256",
}


@dataclass(frozen=True)
class Unmeasured:
    """Why there is no table, and the command that makes it."""

    sentence: str
    command: str


@dataclass(frozen=True)
class Made:
    """How a table was made: the command, and what can be checked."""

    command: str
    date: str = ""
    facts: tuple[tuple[str, str], ...] = ()


def load(folder: Path, name: str) -> Raw | Unmeasured:
    """The object in a file of `folder`, or the sentence that stands in its place."""
    path, command = folder / name, COMMANDS.get(name, "")
    try:
        state = path.stat()
        raw = _read(path, state.st_mtime_ns, state.st_size)
    except FileNotFoundError:
        return Unmeasured(f"Not measured yet. This command writes results/{name}:", command)
    except (OSError, ValueError, RecursionError):
        return unreadable(name)
    return raw if isinstance(raw, dict) else unreadable(name)


def unreadable(name: str) -> Unmeasured:
    """For a file that is broken, or of an older form."""
    return Unmeasured(
        f"Not measured yet: results/{name} is broken, older or unfinished. This command writes it "
        "anew:",
        COMMANDS.get(name, ""),
    )


@lru_cache(maxsize=32)
def _read(path: Path, changed: int, size: int) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def stamp(folder: Path) -> str:
    """What changes when a file does."""
    states = []
    for name in COMMANDS:
        try:
            state = (folder / name).stat()
            states.append(f"{name} {state.st_mtime_ns} {state.st_size}")
        except OSError:
            states.append(f"{name} -")
    return "; ".join(states)


def made_of(raw: Raw, name: str, *facts: tuple[str, str]) -> Made:
    """Command, date, base, versions and checksums, as far as a file says them; `facts` first."""
    told = [fact for fact in facts if fact[1]]
    base = " in ".join(filter(None, (text(raw.get("base_model")), text(raw.get("quantization")))))
    if base:
        told.append(("base model", base))
    versions = table(raw.get("versions"))
    if versions:
        told.append(("versions", ", ".join(f"{k} {text(v)}" for k, v in versions.items())))
    told += [(label, text(raw[key])) for key, label in CHECKSUMS.items() if text(raw.get(key))]
    command = text(raw.get("command")) or COMMANDS.get(name, "")
    return Made(command, text(raw.get("date")), tuple(told))
