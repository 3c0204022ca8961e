"""A run as files: a recorded run, with everything that the page shows of it, and a trace to take
away."""

import base64
import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ramole_core import (
    Evidence,
    Explanation,
    Generation,
    Ramole,
    Request,
    Trace,
    asked_fields,
    facts_of,
    write_trace,
)

from ..parts.downloads import fresh_folder
from .run import FoundAdapter, Run

ARRAYS = ("weights", "contribution", "present")
"""Array fields of a trace."""
MEASURED = ("effects", "logprob", "base_logprob", "subset_logprob")
"""Fields of an answer whose effects were measured."""
UNSAID = ("evidence", "notes", "part", "parts", "method", "weights", "prompt_logprobs")
"""Fields of an answer that are saved where they are set."""
FOLDER = Path(__file__).parents[1] / "ask" / "recorded"
"""The runs that come with the page."""
MAX_LETTERS = 40
"""Letters of the prompt in the name of a trace's file."""


def write_run(run: Run, path: Path) -> None:
    """Keep a run, with its explanations, as one compact JSON file."""
    answer, trace = run.answer, run.answer.trace
    if trace is None:
        raise ValueError("a recorded run needs a trace")
    record = {
        "title": run.title,
        "request": asked_fields(run.request),
        "answer": {**_plain(answer), "trace": None},
        "trace": {
            **{name: value for name, value in vars(trace).items() if name not in ARRAYS},
            "shape": list(trace.weights.shape),
            **{name: _packed(getattr(trace, name)) for name in ARRAYS},
        },
        "beside": None if run.beside is None else {**_plain(run.beside), "trace": None},
        "pieces": list(run.pieces),
        "found": [_found(one) for one in run.found],
        "explained": {
            str(i): [[[t, round(p, 4)] for t, p in side] for side in (found.base, found.mixture)]
            for i, found in run.explained.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


def read_run(path: Path) -> Run:
    """Read the run that `write_run` wrote."""
    record = json.loads(path.read_text("utf-8"))
    kept = dict(record["trace"])
    shape = kept.pop("shape")
    kept |= {name: _unpacked(kept[name], shape, name) for name in ARRAYS}
    trace = Trace(**kept)
    beside = record["beside"]
    return Run(
        request=Request(**record["request"]),
        answer=_answer({**record["answer"], "trace": trace}),
        pieces=tuple(record["pieces"]),
        found=tuple(
            FoundAdapter(name, math.nan if score is None else score, *more)
            for name, score, *more in record["found"]
        ),
        beside=None if beside is None else _answer(beside),
        explained={
            int(i): Explanation([(t, p) for t, p in base], [(t, p) for t, p in mixture])
            for i, (base, mixture) in record["explained"].items()
        },
        title=record["title"],
    )


def recorded_files(folder: Path | None = None) -> list[Path]:
    """The recorded runs in `folder` (unset: ours), in the order of their names."""
    return sorted((folder or FOLDER).glob("*.json"))


@cache
def recorded_run(path: Path) -> Run:
    """The run in a file that comes with the page, read once: all visitors share it."""
    return read_run(path)


def trace_files(ramole: Ramole, run: Run, owner: str | None) -> tuple[str, str]:
    """The paths of `write_files`, with facts of this server, but for a recorded run."""
    names = run.answer.adapters
    facts = None if run.title else facts_of(ramole, adapters=names, owner=owner)
    npz, as_json = write_files(run, facts=facts)
    return str(npz), str(as_json)


def write_files(
    run: Run, *, facts: Mapping[str, object] | None = None, into: Path | None = None
) -> tuple[Path, Path]:
    """The run's trace as `.npz` and `.json`, with the request and `facts`, in a new folder; old
    folders are removed."""
    words = re.findall(r"[a-z0-9]+", run.request.prompt.lower())
    start = "-".join(words)[:MAX_LETTERS].strip("-")
    name = "-".join(part for part in ("ramole", run.request.method, start) if part)
    folder = fresh_folder(into)
    npz, as_json = (
        write_trace(run.answer, folder / f"{name}.{kind}", request=run.request, facts=facts)
        for kind in ("npz", "json")
    )
    return npz, as_json


def _found(one: FoundAdapter) -> list[object]:
    """Its fields, in their order."""
    score = None if math.isnan(one.score) else round(one.score, 4)
    return [one.name, score, one.taken, one.without, one.about]


def _packed(array: np.ndarray) -> str:
    """float16, or bits where they are switches; compressed, as text."""
    raw = np.packbits(array) if array.dtype == np.bool_ else np.ascontiguousarray(array, "<f2")
    return base64.b64encode(zlib.compress(raw.tobytes(), 9)).decode("ascii")


def _unpacked(text: str, shape: list[int], name: str) -> np.ndarray:
    raw = zlib.decompress(base64.b64decode(text))
    if name == "present":
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=math.prod(shape))
        return bits.astype(np.bool_).reshape(shape)
    return np.frombuffer(raw, "<f2").reshape(shape).astype(np.float16)


def _answer(fields: dict[str, Any]) -> Generation:
    """Read the answer that `_plain` wrote."""
    said = fields.get("evidence")
    notes = tuple(map(str, fields.get("notes", ())))
    arrays = {
        name: np.array(found, np.float32)
        for name in MEASURED
        if (found := fields.get(name)) is not None
    }
    made = {**fields, **arrays, "evidence": said and Evidence(**said), "notes": notes}
    return Generation(**made)


def _plain(answer: Generation) -> dict[str, object]:
    """The fields of an answer without its trace; times to the tenth of a millisecond."""
    fields = asdict(replace(answer, trace=None))
    for name in MEASURED:
        found = fields.pop(name)
        if found is not None:
            fields[name] = np.round(found.astype(np.float64), 4).tolist()
    for name in UNSAID:
        if not fields[name]:
            del fields[name]
    fields["scores"] = [round(score, 4) for score in answer.scores]
    fields["extra"] = {name: round(value, 4) for name, value in answer.extra.items()}
    for name in ("seconds", "first_token_seconds"):
        fields[name] = round(fields[name], 4)
    return fields
