"""What a visitor reads: thirty written prompts, who was found for each, and how its answer begins.

    python -m lab visits

By the default method, as the page asks it. Of a chat the last answer counts. Nothing was fitted on
these prompts (`prompts/visits.json`); whether an answer is of use, somebody who reads them says.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lab import harness
from ramole_core.request import Generation, Request

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

PROMPTS = Path(__file__).parent / "prompts" / "visits.json"
FIRST = 200
"""So many characters of an answer are kept."""


def found_for(answer: Generation) -> list[str]:
    """The adapters that answered, part by part; `base` where none did."""
    runs = [part.adapters or ["base"] for part in answer.parts] or [answer.adapters or ["base"]]
    return [name for run in runs for name in run]


def answer_to(ramole: "Ramole", turns: list[str]) -> Generation:
    """The answer to the last of these messages, each of which is asked with those before it."""
    talk: list[tuple[str, str, list[str]]] = []
    answer = None
    for text in turns:
        request = Request(text, history=tuple(talk), max_new_tokens=128, trace=False)
        answer = ramole.generate([request])[0]
        talk.append((text, answer.text, answer.adapters))
    assert answer is not None
    return answer


def main(threads: harness.Threads = 0, out: harness.Out = harness.RESULTS / "visits.json") -> None:
    """Ask the thirty prompts, and write down what came."""
    asked = json.loads(PROMPTS.read_text("utf-8"))
    with harness.served() as ramole:
        results = harness.Results(out, harness.facts_of(ramole))
        rows = []
        for one in asked:
            turns = one["prompt"] if isinstance(one["prompt"], list) else [one["prompt"]]
            answer = answer_to(ramole, turns)
            rows.append({**one, "found": found_for(answer), "begins": answer.text[:FIRST]})
            print(f"{turns[-1][:70]!r}: {', '.join(rows[-1]['found'])}: {answer.text[:70]!r}")
        right = [set(row["right"]) <= set(row["found"]) for row in rows]
        results.write(found_right=sum(right), of=len(right), rows=rows)
