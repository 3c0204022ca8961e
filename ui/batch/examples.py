"""Texts to try in the tab Batch: one of each kind that it reads."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

from ..parts.prompts import LIVE


@dataclass(frozen=True)
class BatchExample:
    """A text for the editor under a short title."""

    title: str
    kind: str
    """Its name in the page's list of kinds."""
    make: Callable[[int], str]
    """Its text for a server whose answers have at most so many tokens."""

    @property
    def badge(self) -> str:
        """The kind in one word."""
        return self.kind.split()[-1].replace("line", "lines")


SUMS = (
    "Nadia had 31 stamps and gave 12 of them to her cousin. How many are left?",
    "A tram with 18 people stops and 7 more get on. How many people are on the tram?",
    "Six boxes hold 9 candles each. How many candles are there?",
    "Ole read 45 pages on Monday and 28 on Tuesday. How many pages did he read?",
    "Four friends share 36 plums equally. How many does each get?",
    "A rope of 50 metres is cut into pieces of 5 metres. How many pieces are there?",
)
LOWER = (
    "in january the museum of trondheim opened a hall for maps drawn by ella lund.",
    "the river spree flows through berlin before it meets the havel.",
    "on friday doctor amina osei flew from accra to lisbon.",
    "the novel was written in dublin by patrick keane during the winter of 1911.",
    "every august the choir of saint olav sings in reykjavik.",
    "mount kenya was climbed by a team from nairobi and oslo.",
)
HEADLINES = (
    "This One Trick With Lemons Will Leave You Speechless",
    "Parliament passes budget after two days of talks",
    "You Won't Believe What Her Cat Did Next",
    "Ferry line to the islands adds a morning crossing",
    "11 Signs You Grew Up In A Small Town",
    "Earthquake of magnitude 5.1 felt near the coast",
)
COMMANDS = (
    "play the new album by ingrid moe on the kitchen speaker",
    "will it rain in bergen tomorrow at noon",
    "book a table for four at a thai place tonight",
    "add this song to my running playlist",
    "give the last crime novel I read four stars",
    "find the film the silent harbour at the nearest cinema",
)
METHODS = ("base", "selection", "mixture", "fusion", "ramole", "ramole_plus")


def _each_task(most: int) -> str:
    return _jsonl(
        {"id": one.title, "prompt": one.prompt, "max_new_tokens": min(one.max_new_tokens, most)}
        for one in LIVE
    )


def _many(most: int) -> str:
    sums = [("sum", f"Solve: {text}") for text in SUMS]
    cases = [("case", f"Fix the capital letters in the following text: {text}") for text in LOWER]
    baits = [
        ("headline", f"Headline: {t}\nIs it clickbait?\nOPTIONS:\n- no\n- yes") for t in HEADLINES
    ]
    told = [("command", f"{t}\n\nExtract the intent and slot values as JSON.") for t in COMMANDS]
    mixed = [row for four in zip(sums, cases, baits, told, strict=True) for row in four]
    return _jsonl(
        {"id": task, "prompt": text, "max_new_tokens": min(32, most)} for task, text in mixed
    )


def _methods(most: int) -> str:
    prompt = LIVE[1].prompt
    table = io.StringIO(newline="")
    write = csv.writer(table, lineterminator="\n").writerow
    write(["prompt", "method", "k", "adapters", "weights"])
    for method in METHODS:
        write([prompt, method, 3, "", ""])
    write([prompt, "mixture", "", "snips_json|dart", "0.8|0.2"])
    return table.getvalue()


def _lines(most: int) -> str:
    return "".join(f"Solve: {text}\n" for text in SUMS)


def _jsonl(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


EXAMPLES = (
    BatchExample("Fourteen skills", "jsonl", _each_task),
    BatchExample("24 rows of four tasks", "jsonl", _many),
    BatchExample("One prompt, seven ways", "csv", _methods),
    BatchExample("Plain lines", "one prompt a line", _lines),
)
