"""Examples of the tab Ask: live prompts, each of another skill of the pool, and recorded runs.

A recorded run is everything the page shows of an answer, kept as a file, so that a visitor sees one
before any model is there. `python -m ui.ask.record` makes them.
"""

import base64
import json
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ramole_core import Explanation, Generation, Request, Trace

from ..charts.run import Found, Run
from .form import METHOD

FOLDER = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Example:
    """A prompt to try, under a short title."""

    title: str
    prompt: str
    max_new_tokens: int = 64
    method: str = METHOD
    """What a recorded run was mixed with; a live prompt takes what the form says."""


RECORDED_TITLES = (
    "Voice command to JSON",
    "Capital letters",
    "Question to SQL",
    "Facts to a sentence",
    "Python function",
)
LIVE = (
    Example(
        "Clickbait?",
        "Is the following a clickbait title? 17 Kitchen Tricks That Will Change Your Life Forever\n"
        "OPTIONS:\n- no\n- yes",
    ),
    Example(
        "Voice command to JSON",
        "Convert this voice command to JSON with its intent and slots: "
        "Put the new Sigrid song on my sunday morning playlist",
    ),
    Example(
        "Capital letters",
        "Fix the capital letters in the following text: on friday the night train from oslo to "
        "bergen was two hours late, said anna berg of the railway.",
    ),
    Example(
        "Question to SQL",
        "Tables: boats(BoatId, Name, Town, Length)\n"
        "Question: What are the names of the boats in Bergen?\nSQL:",
    ),
    Example(
        "What does the user want?",
        'A user says: "how many litres of fuel are left in my van"\n'
        "What is the intent?\nOPTIONS:\n- gas\n- traffic\n- tire pressure\n- directions\n"
        "- oil change when\n- distance\n- gas type\n- schedule maintenance",
    ),
    Example(
        "Facts to a sentence",
        "Turn these triples into text: The Copper Kettle eatType coffee shop; The Copper Kettle "
        "area riverside; The Copper Kettle customer rating 5 out of 5; The Copper Kettle "
        "familyFriendly yes",
    ),
    Example(
        "One sentence into two",
        "The novel was published in 1952 and it was translated into nine languages , but the "
        "author never saw any of the money .\n\nRewrite the above as two sentences.",
    ),
    Example(
        "Word problem",
        "Math problem: Lena picked 46 plums and her brother picked 27 plums. How many plums did "
        "they pick in all?\nWhat is the numeric answer?",
    ),
    Example(
        "Answer from a text",
        "Read this passage and answer the question.\n\nThe lighthouse on Utsira was lit for the "
        "first time in 1844. It stood beside a twin tower, which was put out in 1890.\n\n"
        "Q: In which year was the lighthouse first lit?",
    ),
    Example(
        "Python function",
        "Write a function to reverse a string.\nYour code should pass this test:\n"
        'assert reverse("boat") == "taob"',
    ),
    Example("Shell command", "Write a bash command: find all .py files in the current directory"),
    Example(
        "Bad review made good",
        "Rewrite this review so that it sounds positive instead of negative: "
        "the waiter was rude and the food was cold .",
    ),
    Example(
        "Words without spaces", "Segment this text into words: Thefirstferrycrossedthefjordin1887."
    ),
    Example(
        "Spam?",
        "SMS: You have WON a free cruise! Call 0900 123 456 now to claim it, 1.50 a minute\n"
        "Is this text message spam?\nOPTIONS:\n- no\n- yes",
    ),
)

RECORDED = (
    *(one for one in LIVE if one.title in RECORDED_TITLES),
    *(
        replace(one, title=f"{one.title}, by the trained gate", method="ramole")
        for one in LIVE
        if one.title == "Facts to a sentence"
    ),
)
"""What `python -m ui.ask.record` runs."""


def recorded_files(folder: Path | None = None) -> list[Path]:
    """The recorded runs in `folder` (unset: ours), in the order of their names."""
    return sorted((folder or FOLDER).glob("*.json"))


def write_run(run: Run, path: Path) -> None:
    """Keep a run, with its explanations, as one compact JSON file."""
    answer, trace = run.answer, run.answer.trace
    if trace is None:
        raise ValueError("a recorded run needs a trace")
    packed = zlib.compress(np.ascontiguousarray(trace.weights, "<f2").tobytes(), 9)
    record = {
        "title": run.title,
        "request": _set(run.request),
        "answer": {**_plain(answer), "trace": None},
        "trace": {
            **{name: value for name, value in vars(trace).items() if name != "weights"},
            "shape": list(trace.weights.shape),
            "weights": base64.b64encode(packed).decode("ascii"),
        },
        "beside": None if run.beside is None else {**_plain(run.beside), "trace": None},
        "pieces": list(run.pieces),
        "found": [[one.name, round(one.score, 4), one.taken] for one in run.found],
        "explained": {
            str(i): [[[t, round(p, 4)] for t, p in side] for side in (found.base, found.mixture)]
            for i, found in run.explained.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


def read_run(path: Path) -> Run:
    """The run that `write_run` kept."""
    record = json.loads(path.read_text("utf-8"))
    kept = dict(record["trace"])
    shape = kept.pop("shape")
    raw = zlib.decompress(base64.b64decode(kept.pop("weights")))
    trace = Trace(**kept, weights=np.frombuffer(raw, "<f2").reshape(shape).astype(np.float16))
    beside = record["beside"]
    return Run(
        request=Request(**record["request"]),
        answer=Generation(**{**record["answer"], "trace": trace}),
        pieces=tuple(record["pieces"]),
        found=tuple(Found(*one) for one in record["found"]),
        beside=None if beside is None else Generation(**beside),
        explained={
            int(i): Explanation(*([(t, p) for t, p in side] for side in sides))
            for i, sides in record["explained"].items()
        },
        title=record["title"],
    )


def _set(request: Request) -> dict[str, object]:
    """The fields that differ from a bare request's."""
    bare = asdict(Request(request.prompt))
    return {
        name: value
        for name, value in asdict(request).items()
        if name == "prompt" or value != bare[name]
    }


def _plain(answer: Generation) -> dict[str, object]:
    """The fields of an answer without its trace; times to the tenth of a millisecond."""
    fields = asdict(replace(answer, trace=None))
    fields["scores"] = [round(score, 4) for score in answer.scores]
    fields["extra"] = {name: round(value, 4) for name, value in answer.extra.items()}
    for name in ("seconds", "first_token_seconds"):
        fields[name] = round(fields[name], 4)
    return fields
