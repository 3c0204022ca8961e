"""The measured JSON files as blocks; missing, broken or older ones become a sentence.

A file is read again only when its time or size has changed. Missing fields are left out; unknown
ones are ignored.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ramole_core import shipped

from .tables import Block, Made, Unmeasured
from .values import Raw, at, text

RESULTS = shipped("results")
CORE, LAB = "python -m ramole_core", "python -m lab "
COMMANDS = {
    "test2.json": f"{CORE} evaluate --data data --split test2 --rows 50 --workers 2 --situations "
    "iid,ood,crowded,switch",
    "test2_parts.json": f"{LAB}parts_table --data data --split test2",
    "evaluation_dev.json": f"{CORE} evaluate --data data --rows 12 --skip 60 --situations iid,ood",
    "situations_dev.json": f"{CORE} evaluate --data data --rows 12 --skip 60 --situations "
    "iid,ood,crowded,phrased,follow-up,change,uploads,"
    "open,permuted,blind,composite,switch",
    "methods_dev.json": f"{CORE} evaluate --data data --rows 12 --skip 60 --situations iid",
    "methods_ood_dev.json": f"{CORE} evaluate --data data --rows 12 --skip 60 --situations ood",
    "method_speed.json": f"{LAB}method_speed",
    "papers.json": f"{LAB}papers",
    "second_half.json": f"{LAB}second_half",
    "usable.json": f"{LAB}usable",
    "effects.json": f"{LAB}effects --data data",
    "composite_n.json": f"{LAB}composite_n --data data",
    "ca_lora.json": f"{LAB}ca_lora_table --data data",
    "llava_mole.json": f"{LAB}llava_mole_table --data data",
    "lora_flow.json": f"{LAB}lora_flow_claim --data data",
    "lora_hub.json": f"{LAB}lora_hub_claim --data data",
    "other_base.json": f"{LAB}other_base --data data --tasks "
    "clickbait,clinc_intent,true_case,fix_punct,sms_spam,snips_json",
    "retriever.json": f"{LAB}retriever_table --data data",
    "adapters_dev.json": f"{LAB}dev_table --data data",
    "ablations.json": f"{LAB}evidence_table --data data",
    "router_claim.json": f"{LAB}router_claim --data data",
    "speed.json": f"{CORE} benchmark",
    "speed_amx.json": f"{CORE} benchmark --only llama_cpp --out results/speed_amx.json",
    "speed_avx512.json": f"{CORE} benchmark --only llama_cpp --out results/speed_avx512.json",
    "many_users.json": f"{LAB}many_users",
    "budget.json": f"{LAB}budget",
}
COMMANDS |= {
    name: f"{words} --out results/{name}"
    for name, words in COMMANDS.items()
    if "evaluate" in words or "test2" in words
}
"""What writes a file that is not there yet; an existing file has its own."""
EARLIER = "an earlier one, not the one that ships"
FACTS = "date tasks rows_per_task skipped split k base_model quantization machine cores threads"
FACTS = f"{FACTS} dtype system commit card clients rows_measured trained_on unseen".split()
"""Fields of a file with the measurement's setup."""


def load(folder: Path, name: str) -> Raw | Unmeasured:
    """The object in a file of `folder`, or the sentence that stands in its place."""
    path = folder / name
    try:
        state = path.stat()
        raw = _parse(path, state.st_mtime_ns, state.st_size)
    except FileNotFoundError:
        said = f"Not measured yet. This command writes results/{name}:"
        return Unmeasured(said, COMMANDS[name])
    except (OSError, ValueError, RecursionError):
        return unreadable(name)
    return raw if isinstance(raw, dict) else unreadable(name)


def read(folder: Path, name: str) -> Raw:
    """The object in a file of `folder`, empty where there is none."""
    raw = load(folder, name)
    return {} if isinstance(raw, Unmeasured) else raw


def unreadable(name: str) -> Unmeasured:
    """The sentence for a broken file, or one of an older form."""
    broken = f"Not measured yet: results/{name} is broken, older or unfinished."
    return Unmeasured(f"{broken} This command writes it anew:", COMMANDS[name])


def blocks_of(
    folder: Path,
    name: str,
    make: Callable[[Raw], Sequence[Block]],
    made: "Callable[[Raw, str], Made] | None" = None,
) -> list[Block]:
    """A file's tables and how they were made (unset: `made_of`), or the sentence that stands in
    their place."""
    raw = load(folder, name)
    if isinstance(raw, Unmeasured):
        return [raw]
    blocks = make(raw)
    return [*blocks, (made or made_of)(raw, name)] if blocks else [unreadable(name)]


def made_of(raw: Raw, name: str, more: Mapping[str, str] | None = None) -> Made:
    """Command, date, facts, versions and checksums, as far as a file has them, and `more`."""
    told = {key.replace("_", " "): text(raw.get(key)) for key in FACTS}
    told["tasks"] = told["tasks"] or text(len(at(raw, "tasks")) or None)
    told["versions"] = ", ".join(f"{k} {text(v)}" for k, v in at(raw, "versions").items())
    for key, value in raw.items():
        whose, _, kind = f"_{key}".rpartition("_")
        if kind in ("checksum", "sha256"):
            told[f"{whose[1:]}, SHA-256"] = text(value)
        elif at(value).get("checksum"):
            told[f"{key}, SHA-256"] = text(at(value).get("checksum"))
    told["pool"] = EARLIER if of_an_earlier_pool(raw) else ""
    facts = {key: fact for key, fact in {**told, **(more or {})}.items() if fact}
    return Made(text(raw.get("command")) or COMMANDS[name], facts)


def of_an_earlier_pool(raw: Raw, pool: Path | None = None) -> bool:
    """Whether adapters that a file names with their SHA-256 are not, or no longer, in the sample
    pool (unset: ours)."""
    found = {
        name: one if isinstance(one, str) else at(one).get("adapter_sha256")
        for name, one in at(raw, "adapters").items()
    }
    ours = pool or shipped("adapters")
    return any(one and one != checksum(name, ours) for name, one in found.items())


def checksum(name: str, pool: Path) -> str | None:
    """SHA-256 of an adapter's weights by its manifest; None where it is not in the pool."""
    try:
        manifest = json.loads((pool / name / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return at(at(manifest, "files"), "adapter_model.safetensors").get("sha256")


@lru_cache(maxsize=32)
def _parse(path: Path, changed: int, size: int) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def stamp(folder: Path) -> str:
    """A stamp that changes when a file does."""
    found = [(path, path.stat()) for path in sorted(folder.glob("*.json"))]
    return "; ".join(f"{path} {state.st_mtime_ns} {state.st_size}" for path, state in found)
