"""kill -9 at random moments: every adapter is whole or absent, and a batch ends as it would have.

In turn while adapters are added, removed and given other examples, while a batch is answered, and
while an answer is streamed. What a change had told as done before the kill must be there.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.campaigns.children import awaited, forked
from tests.campaigns.figures import Figures
from tests.campaigns.pool_changes import Held, change_on, looked_at, replayed, write_sources

KINDS = ("add", "remove", "set examples", "batch", "streaming")
PROMISED = ("does_not_open", "half_written", "lost_or_undone", "another_answer")
SECONDS = 120
MOMENT = 0.2
"""Seconds within which a change is killed; it takes some hundredths of one."""
BATCHED = 4
"""Kills of one batch, before it may end."""


def run(
    root: Path,
    *,
    count: int,
    seed: int,
    end: float = float("inf"),
    kinds: Sequence[str] = KINDS,
) -> Figures:
    """`count` kills, of each kind in turn."""
    figures, dice = Figures(PROMISED), random.Random(seed)
    write_sources(root)
    held: Held = {}
    system = None
    for number in range(count):
        if time.monotonic() > end:
            break
        kind = kinds[number % len(kinds)]
        if kind in ("add", "remove", "set examples"):
            held = kill_change(root, kind, held, figures, dice)
        else:
            system = system or System(root / "system", figures, dice)
            system.kill_batch() if kind == "batch" else system.kill_stream()
        figures.counts["mishaps"] += 1
        figures.counts[kind] += 1
    if system:
        system.end_batch()
    return figures


def kill_change(root: Path, kind: str, held: Held, figures: Figures, dice: random.Random) -> Held:
    """Kills a process at its changes; returns what the next one finds."""
    reading, writing = os.pipe()
    moment = dice.uniform(0, MOMENT)
    own = random.Random(dice.random())
    child = forked(lambda: change_on(root, kind, own, writing), root / "said")
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        first = told.readline()
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        status = awaited(child, seconds=SECONDS)
        lines = [line.decode() for line in told.read().split(b"\n")[:-1]]
    if status != -signal.SIGKILL or not first:
        figures.failed("does_not_open", (root / "said").read_text())
        return held
    may_be = replayed(held, lines)
    figures.counts["in the midst of a change"] += len(may_be) - 1
    looking = forked(lambda: looked_at(root), root / "said")
    if awaited(looking, seconds=SECONDS) != 0:
        figures.failed("does_not_open", f"{kind}: {(root / 'said').read_text()}")
        return held
    found = json.loads((root / "said").read_text())
    now: Held = {name: (source, tuple(texts)) for name, (source, texts) in found["held"].items()}
    for sentence in found["wrong"]:
        figures.failed("half_written", f"{kind}: {sentence}")
    if now not in may_be:
        figures.failed("lost_or_undone", f"{kind}: {now} is none of {may_be}")
    return now


class System:
    """The whole system on a tiny base, its batch and its streams killed."""

    def __init__(self, root: Path, figures: Figures, dice: random.Random):
        from tests.campaigns import tiny_system

        root.mkdir()
        self.root, self.figures, self.dice = root, figures, dice
        self.parts = tiny_system
        self.done(lambda: tiny_system.write_system(root))
        began = time.monotonic()
        self.done(lambda: tiny_system.answer_batch(root, root / "unbroken.jsonl"))
        self.seconds = time.monotonic() - began
        self.expected = tiny_system.answers_of(root / "unbroken.jsonl")
        self.streamed = self.done(lambda: self.stream(answers=1))
        self.kills = 0

    @property
    def out(self) -> Path:
        return self.root / "out.jsonl"

    def done(self, work: Callable[[], object]) -> object:
        """What a child returns that is not killed; a failure is counted."""
        status = awaited(forked(work, self.root / "said"), seconds=SECONDS)
        if status != 0:
            errors = Path(f"{self.root / 'said'}.err").read_text()[-500:]
            self.figures.failed("does_not_open", f"status {status}: {errors}")
            return None
        return json.loads((self.root / "said").read_text())

    def stream(self, *, answers: int | None = None, tell: int | None = None) -> list[object]:
        ready = (lambda: os.write(tell, b"\n")) if tell is not None else (lambda: 0)
        return self.parts.stream_on(self.root, ready, answers=answers)  # pyright: ignore

    def kill_batch(self) -> None:
        """Kills the command at a random moment; what it has written stays as it is."""
        before = self.out.read_bytes() if self.out.exists() else b""
        child = forked(lambda: self.parts.answer_batch(self.root, self.out), self.root / "said")
        time.sleep(self.dice.uniform(0.2, 1) * self.seconds)
        os.kill(child, signal.SIGKILL)
        status = awaited(child, seconds=SECONDS)
        if status not in (0, -signal.SIGKILL):
            self.figures.failed("does_not_open", (self.root / "said").read_text())
        now = self.out.read_bytes() if self.out.exists() else b""
        if not now.startswith(before[: before.rfind(b"\n") + 1]):
            self.figures.failed("lost_or_undone", "answers of a batch that were written")
        self.figures.counts["batch killed with some answers"] += len(before) < len(now)
        self.kills += 1
        if self.kills % BATCHED == 0:
            self.end_batch()

    def end_batch(self) -> None:
        """Lets the batch end, and compares its file with the unbroken one's."""
        if not self.out.exists():
            return
        self.done(lambda: self.parts.answer_batch(self.root, self.out))
        if self.parts.answers_of(self.out) != self.expected:
            self.figures.failed("another_answer", "a batch that was resumed")
        self.figures.counts["batches resumed to their end"] += 1
        self.out.unlink()

    def kill_stream(self) -> None:
        """Kills it while answers are streamed; the next process gives the same answer."""
        reading, writing = os.pipe()
        child = forked(lambda: self.stream(tell=writing), self.root / "said")
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            told.readline()
        time.sleep(self.dice.uniform(0, self.seconds))
        os.kill(child, signal.SIGKILL)
        if awaited(child, seconds=SECONDS) != -signal.SIGKILL:
            self.figures.failed("does_not_open", (self.root / "said").read_text())
        if self.done(lambda: self.stream(answers=1)) != self.streamed:
            self.figures.failed("another_answer", "a stream after a kill")
