"""A finished answer and its trace as one file: `.npz` for numpy, `.json` for everything else.

Both hold the same fields. The npz opens with `numpy.load(path)`, which needs no pickle:

    version      2; files without one are older: their weights are 0 where an adapter lacks the
                 module, and they have no contribution and no present
    weights      float16 [T, layer, module, k], row t the gate that predicts token t+1
    contribution float16 [T, layer, module, k], |weight times the adapter's update| / |the layer's
                 output|: what came of it
    present      bool [T, layer, module, k], who has the module; in the json 0 and 1
    shares       float32 [T, k], each adapter's share of what all contributed to a token
    token_ids    int64 [T], the prompt first;  tokens: their texts
    prompt_length, adapters [k], scores [k] (nan: none), layers [layer], modules [module]
    answer, finish_reason
"""

import json
import math
from pathlib import Path

import numpy as np

from ramole_core.errors import RamoleError
from ramole_core.request import Generation, Trace

VERSION = 2


def write_trace(generation: Generation, path: Path | str) -> Path:
    """Write the trace of an answer to `path`, whose ending decides the format; returns the path.

    Raises RamoleError where the answer has no trace, or where the ending is neither.
    """
    path = Path(path)
    if generation.trace is None:
        raise RamoleError("This answer has no trace; ask again with trace=True.")
    if path.suffix == ".npz":
        _write_npz(generation, generation.trace, path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(trace_as_json(generation), ensure_ascii=False), "utf-8")
    else:
        raise RamoleError(f"A trace is written as .npz or .json, not {path.name!r}; rename it.")
    return path


def trace_as_json(generation: Generation) -> dict[str, object]:
    """The answer and its trace in lists, strings and numbers; weights and shares with four digits,
    contributions with six. What an older trace has not got is null."""
    trace = generation.trace
    if trace is None:
        raise RamoleError("This answer has no trace; ask again with trace=True.")
    return {
        "version": VERSION,
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
        "present": None if trace.present is None else trace.present.astype(np.int8).tolist(),
        "shares": _rounded(trace.shares, 4),
    }


def _rounded(values: np.ndarray, digits: int) -> list:
    return np.round(values.astype(np.float64), digits).tolist()


def _scores(generation: Generation, trace: Trace) -> list[float]:
    """One for each adapter of the trace; those of earlier turns stand behind the answer's own."""
    earlier = len(trace.adapters) - len(generation.scores)
    return [*generation.scores, *[math.nan] * earlier]


def _write_npz(generation: Generation, trace: Trace, path: Path) -> None:
    arrays = {
        "version": np.array(VERSION),
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
    np.savez_compressed(path, allow_pickle=False, **arrays)
