"""The data of the textbook: recorded runs, and the vectors of one prompt, read once."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ramole_core import Evidence

from ..charts.recorded import recorded_files, recorded_run
from ..charts.run import Run

VECTORS = Path(__file__).parent / "recorded" / "vectors.json"
"""`python docs/learn_vectors.py` writes it."""
MEANING = 384
"""Numbers of a vector that come from the sentence encoder; the others count words."""
GATED = "Facts to a sentence, by the trained gate"
"""Title of the run that steps 6 and 7 walk through."""
DIFFER, AGREE, CLOSE, END = 14, 7, 13, 32
"""Tokens of that run: base and mixture part; they agree; several are as good; the last one."""
K = 3


@dataclass(frozen=True)
class PromptVectors:
    """The vector of the prompt, of two adapters, and the prompt's similarity to all."""

    prompt: str
    vector: tuple[float, ...]
    adapters: dict[str, tuple[float, ...]]
    similarities: dict[str, float]
    """Of every sample adapter, the nearest first."""
    judged: tuple[tuple[str, Evidence], ...]
    """Prompts that no adapter was made for."""


@cache
def runs() -> dict[str, Run]:
    """Every recorded run by its title, in the order of the files."""
    return {run.title: run for run in map(recorded_run, recorded_files())}


def gated() -> Run:
    """The run of steps 6 and 7."""
    return runs()[GATED]


def alone() -> list[Run]:
    """The runs of the page's own method that are no chat: one for each of several tasks."""
    return [run for run in runs().values() if run.answer.evidence and not run.request.history]


@cache
def vectors() -> PromptVectors:
    """The vectors as they were recorded."""
    raw = json.loads(VECTORS.read_text("utf-8"))
    ranked = sorted(raw["similarities"].items(), key=lambda pair: -pair[1])
    return PromptVectors(
        raw["prompt"],
        tuple(raw["vector"]),
        {name: tuple(raw["adapters"][name]) for name, _ in ranked if name in raw["adapters"]},
        dict(ranked),
        tuple((text, Evidence(**told)) for text, told in raw["judged"].items()),
    )


def judged() -> list[tuple[str, Evidence]]:
    """Prompts with an adapter, as they were recorded, and then those without."""
    fitting = [(run.request.prompt, run.answer.evidence) for run in alone()]
    return [*((prompt, told) for prompt, told in fitting if told), *vectors().judged]


def margin(evidence: Evidence) -> float:
    """The distance of the threshold above the base's similarity."""
    return evidence.threshold - evidence.base_similarity
