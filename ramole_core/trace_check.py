"""Check trace files: fields by `trace.schema.json`, and arrays by each other."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jsonschema
import numpy as np
from numpy.lib.npyio import NpzFile

from ramole_core.effects import columns_of, effects_of
from ramole_core.errors import RamoleError

SCHEMA = Path(__file__).with_name("trace.schema.json")
GATES = ("weights", "contribution", "present")
"""[T, layer, module, k]."""
MAX_GAP = 2e-3
"""Largest error in nats of a sum of effects, since a json has rounded numbers."""
MAX_QUOTED = 160
"""Characters of a value that an error quotes."""


@dataclass(frozen=True)
class TraceFacts:
    """A trace file's facts."""

    version: int
    tokens: int
    prompt_length: int
    adapters: tuple[str, ...]
    layers: int
    modules: int


def check_trace(path: Path | str) -> TraceFacts:
    """Check the trace in a `.json` or `.npz`; returns its facts, raises RamoleError with one
    sentence where it is none: what was found, and what belongs there."""
    path = Path(path)
    try:
        held = _read(path)
    except RamoleError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and json each raise errors of their own
        raise RamoleError(f"{path.name} cannot be read as a trace ({_short(error)}).") from error
    fault = next(iter(_checker().iter_errors(held)), None)
    if fault is not None:
        where = "/".join(map(str, fault.absolute_path)) or "the file"
        raise RamoleError(f"{path.name} is no trace: {where}: {_short(fault.message)}.")
    _check_sizes(path.name, held)
    return TraceFacts(
        held["version"], len(held["tokens"]), held["prompt_length"], tuple(held["adapters"]),
        len(held["layers"]), len(held["modules"]),
    )  # fmt: skip


@cache
def _checker() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))


def _read(path: Path) -> dict:
    if path.suffix == ".json":
        held = json.loads(path.read_text("utf-8"))
        if not isinstance(held, dict):
            raise RamoleError(f"{path.name} holds a {type(held).__name__}; a trace is an object.")
        return held
    if path.suffix != ".npz":
        raise RamoleError(f"{path.name} is neither .json nor .npz; name a trace file.")
    with path.open("rb") as opened, NpzFile(opened, allow_pickle=False) as arrays:
        held = {name: arrays[name].tolist() for name in arrays.files}
    for name in ("request", "facts"):
        if name in held:
            held[name] = json.loads(held[name])
    held["scores"] = [None if score != score else score for score in held.get("scores", [])]
    if "present" in held:
        held["present"] = np.asarray(held["present"]).astype(int).tolist()
    return held


def _check_sizes(name: str, held: dict) -> None:
    """Raise RamoleError where two fields do not belong together."""
    T, k = len(held["tokens"]), len(held["adapters"])
    layers, modules = len(held["layers"]), len(held["modules"])
    wanted = {"token_ids": (T,), "scores": (k,), "shares": (T, k)}
    wanted |= dict.fromkeys(GATES, (T, layers, modules, k))
    answered = max(T - held["prompt_length"], 0)
    wanted |= {"effects": (answered, k), "logprob": (answered,), "base_logprob": (answered,)}
    wanted |= {"subset_logprob": (answered, 2**k)}
    for field, size in wanted.items():
        if held.get(field) is None:
            continue
        try:
            found = np.asarray(held[field]).shape
        except ValueError:  # rows of unequal lengths
            found = None
        if found != size and 0 not in size:
            said = "rows of unequal lengths" if found is None else f"size {found}"
            raise RamoleError(
                f"{name} is no trace: {field} has {said}, where its {T} tokens, {layers} layers, "
                f"{modules} modules and {k} adapters need {size}."
            )
    if held["prompt_length"] > T:
        raise RamoleError(
            f"{name} is no trace: its prompt has {held['prompt_length']} tokens, and all are {T}."
        )
    if held.get("effects_by") == "shapley":
        _check_sums(name, held)


def _check_sums(name: str, held: dict) -> None:
    """Raise RamoleError where effects and the base's log probability are not the run's."""
    effects, *logprobs = (
        np.asarray(held.get(field) or [], np.float64)
        for field in ("effects", "logprob", "base_logprob")
    )
    if not effects.shape[:1] == logprobs[0].shape == logprobs[1].shape:
        raise RamoleError(
            f"{name} is no trace: effects come with logprob and base_logprob, one of each a token."
        )
    off = np.abs(logprobs[0] - logprobs[1] - effects.sum(-1)) if len(effects) else np.zeros(0)
    if (off > MAX_GAP).any():
        at = int(off.argmax())
        raise RamoleError(
            f"{name} is no trace: at token {at} of the answer base_logprob and effects miss "
            f"logprob by {off[at]:.4f} nats."
        )
    k, rows = len(held["adapters"]), held.get("subset_logprob") or []
    if {len(row) for row in rows} not in (set(), {2**k}) or len(rows) not in (0, len(effects)):
        raise RamoleError(
            f"{name} is no trace: subset_logprob has {2**k} numbers for each token of the answer."
        )
    if not rows:
        return
    columns = np.asarray(rows, np.float64)
    made = effects_of(dict(zip(columns_of(k), columns.T, strict=True)), k)
    off = np.abs(made - effects).max(-1, initial=0.0)
    if (off > MAX_GAP).any():
        raise RamoleError(
            f"{name} is no trace: at token {int(off.argmax())} of the answer effects are not those "
            "that subset_logprob makes."
        )


def _short(what: object) -> str:
    words = " ".join(str(what).split())
    return words if len(words) <= MAX_QUOTED else words[:MAX_QUOTED] + "…"
