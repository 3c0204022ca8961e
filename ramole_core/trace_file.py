"""A finished answer and its trace as one file: `.npz` for numpy, `.json` for everything else.

Both hold the same fields, which `trace.schema.json` describes and `python -m ramole_core trace`
checks. The npz opens with `numpy.load(path)`, which needs no pickle:

    version      4; 3 has no effects, 2 no request and no facts; files without one are older still:
                 their weights are 0 where an adapter lacks the module, and they have no
                 contribution, no present
    request      what was asked, without its defaults; `Request(**request)` asks it again. In the
                 npz request and facts are JSON in a string
    facts        base model, checksums of base, trained weights and adapters
    weights      float16 [T, layer, module, k], row t the gate that predicts token t+1
    contribution float16 [T, layer, module, k], |weight times the adapter's update| / |the layer's
                 output|: what came of it
    present      bool [T, layer, module, k], which adapter has the module; in the json 0 and 1
    shares       float32 [T, k], each adapter's share of what all contributed to a token
    effects      float32 [T - prompt_length, k], what each adapter did to each token of the answer,
                 in nats; 0 for adapters of earlier turns alone. Absent (in the json null) where
                 they were not asked for, as are the next three
    logprob      float32 [T - prompt_length], log probability of each token in the run
    base_logprob float32 [T - prompt_length], the base's; logprob is this and the sum of the effects
    subset_logprob float32 [T - prompt_length, 2^k], log probability of each token with each subset
                 of adapters: column c has those whose bit is set in c. Absent (in the json null) in
                 older files, and of more than 4 adapters
    effects_by   "shapley", or "leave_one_out" of more than 4 adapters, whose sum is another one
    token_ids    int64 [T], the prompt first;  tokens: their texts
    prompt_length, adapters [k], scores [k] (nan: none), layers [layer], modules [module]
    answer, finish_reason
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson

from ramole_core.effects import among, rule_of
from ramole_core.errors import RamoleError
from ramole_core.facts import asked_fields
from ramole_core.request import Generation, Request, Trace

VERSION = 4


def write_trace(
    generation: Generation,
    path: Path | str,
    *,
    request: Request | None = None,
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write the trace of an answer to `path`, whose ending decides the format; returns the path.

    `request` is what was asked, `facts` what it was answered with (`facts_of`). Raises RamoleError
    where the answer has no trace, or where the ending is neither.
    """
    path = Path(path)
    generation = _last(generation)
    if generation.trace is None:
        raise RamoleError("This answer has no trace; ask again with trace=True.")
    if path.suffix == ".npz":
        _write_npz(generation, generation.trace, path, _said(request, facts))
    elif path.suffix == ".json":
        told = _fields(generation, generation.trace, _said(request, facts))
        path.write_bytes(orjson.dumps(told, default=list, option=orjson.OPT_SERIALIZE_NUMPY))
    else:
        raise RamoleError(f"A trace is written as .npz or .json, not {path.name!r}; rename it.")
    return path


def _fields(
    generation: Generation,
    trace: Trace,
    said: Mapping[str, str],
) -> dict[str, object]:
    """The fields of the JSON, with numbers as arrays."""
    return {
        "version": VERSION,
        **{name: orjson.Fragment(text) for name, text in said.items()},
        "answer": generation.text,
        "finish_reason": generation.finish_reason,
        "adapters": trace.adapters,
        "scores": [None if math.isnan(score) else score for score in _scores(generation, trace)],
        "prompt_length": trace.prompt_length,
        "tokens": trace.tokens,
        "token_ids": trace.token_ids,
        "layers": trace.layers,
        "modules": trace.modules,
        "weights": _rounded(trace.weights, 4),
        "contribution": None if trace.contribution is None else _rounded(trace.contribution, 6),
        "present": None if trace.present is None else trace.present.astype(np.int8),
        "shares": _rounded(trace.shares, 4),
        **{
            name: _rounded(value, 4) if isinstance(value, np.ndarray) else value
            for name, value in _effects(generation, trace).items()
        },
    }


def _last(generation: Generation) -> Generation:
    """The answer itself, or to the last part of its prompt, in whose trace the others are turns."""
    return generation.parts[-1] if generation.parts else generation


def _said(request: Request | None, facts: Mapping[str, object] | None) -> dict[str, str]:
    """The request and the facts of the model as JSON, null where not given: by `json`, which takes
    numbers of any size, and tokens as keys."""
    told = {
        "request": None if request is None else asked_fields(request),
        "facts": None if facts is None else dict(facts),
    }
    return {name: json.dumps(value) for name, value in told.items()}


def _effects(generation: Generation, trace: Trace) -> dict[str, np.ndarray | str | None]:
    """What stands of effects; the trace's adapters that the answer had not have 0."""
    effects = generation.effects
    if effects is None:
        return dict.fromkeys(("effects", "logprob", "base_logprob", "subset_logprob", "effects_by"))
    T = len(trace.tokens) - trace.prompt_length  # of an answer in parts the trace is the last one's
    told = np.zeros((T, len(trace.adapters)), np.float32)
    at = [trace.adapters.index(name) for name in generation.adapters]
    told[:, at] = effects[-T:]
    assert generation.logprob is not None and generation.base_logprob is not None
    subsets = among(generation.subset_logprob, at, len(trace.adapters))
    return {
        "effects": told,
        "logprob": generation.logprob[-T:],
        "base_logprob": generation.base_logprob[-T:],
        "subset_logprob": None if subsets is None else subsets[-T:],
        "effects_by": rule_of(effects.shape[1]),
    }


def _rounded(values: np.ndarray, digits: int) -> np.ndarray:
    return np.ascontiguousarray(np.round(values.astype(np.float64), digits))


def _scores(generation: Generation, trace: Trace) -> list[float]:
    """One for each adapter of the trace; those of earlier turns stand behind the answer's own."""
    earlier = len(trace.adapters) - len(generation.scores)
    return [*generation.scores, *[math.nan] * earlier]


def _write_npz(generation: Generation, trace: Trace, path: Path, said: Mapping[str, str]) -> None:
    arrays = {
        "version": np.array(VERSION),
        **{name: np.array(text) for name, text in said.items()},
        "answer": np.array(generation.text),
        "finish_reason": np.array(generation.finish_reason),
        "adapters": np.array(trace.adapters, dtype=np.str_),
        "scores": np.array(_scores(generation, trace), dtype=np.float32),
        "prompt_length": np.array(trace.prompt_length),
        "tokens": np.array(trace.tokens, dtype=np.str_),
        "token_ids": np.array(trace.token_ids, dtype=np.int64),
        "layers": np.array(trace.layers, dtype=np.int64),
        "modules": np.array(trace.modules, dtype=np.str_),
        "weights": trace.weights,
        "shares": trace.shares,
    }
    if trace.contribution is not None:
        arrays["contribution"] = trace.contribution
    if trace.present is not None:
        arrays["present"] = trace.present
    told = _effects(generation, trace)
    arrays |= {name: np.array(value) for name, value in told.items() if value is not None}
    np.savez_compressed(path, allow_pickle=False, **arrays)
