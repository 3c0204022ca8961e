"""Engines of Ray Serve on this machine, asked from this process, and what each answer must be."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ramole_core import Generation, Ramole, Request, Settings
from tests.campaigns.figures import Figures

GUEST = "guest"
GUESTS = 3
"""Adapters that come and go."""
READY_SECONDS = 600
SAMPLES = ("mawps_svamp", "true_case", "dart", "mbpp", "sms_spam", "e2e_nlg")


@dataclass(frozen=True)
class Asked:
    """What a measure is given."""

    root: Path
    figures: Figures
    dice: random.Random
    count: int
    """Kills."""
    end: float
    """After which none is begun."""


@dataclass
class Known:
    """A request, and what it is answered alone."""

    request: Request
    answer: Generation


@dataclass
class World:
    """A system over engines; `known` are the requests that are asked of it."""

    settings: Settings
    known: list[Known]
    guests: list[tuple[Path, Known]]
    fleet: Any = None
    running: Any = None
    ramole: Any = None
    gaps: list[float] = field(default_factory=list)
    """Longest wait between two tokens of each answer that moved."""

    def processes(self) -> dict[str, int]:
        """The engines that answer, with their processes."""
        return {key: self.fleet.call(key, "process") for key in self.fleet.keys()}

    def ready(self, engines: int) -> float:
        """Wait until so many engines answer; returns how long that took."""
        began = time.monotonic()
        while time.monotonic() - began < READY_SECONDS:
            try:
                if len(self.processes()) >= engines:
                    return time.monotonic() - began
            except Exception:  # one of them has just gone
                pass
            time.sleep(0.1)
        raise AssertionError(f"no {engines} engines within {READY_SECONDS} s")

    def kill(self, dice: random.Random) -> None:
        """kill -9 of a random engine."""
        os.kill(dice.choice(sorted(self.processes().values())), signal.SIGKILL)

    def ask(self, known: Known, figures: Figures) -> None:
        """One request; its tokens and its answer must be those it has alone."""
        figures.counts["requests"] += 1
        steps, answers, last, gap = [], [], time.monotonic(), 0.0
        try:
            for _, item in self.ramole.stream_batch([known.request]):
                now = time.monotonic()
                gap, last = max(gap, now - last) if steps else 0.0, now
                (answers if isinstance(item, Generation) else steps).append(item)
        except Exception as error:
            figures.failed("no_answer", f"{type(error).__name__}: {error}")
            return
        if len(answers) != 1:
            how = "two_answers" if answers else "no_answer"
            figures.failed(how, f"{len(answers)} answers")
            return
        figures.counts["answers"] += 1
        found, wanted = answers[0], known.answer
        ids = wanted.trace.token_ids[wanted.trace.prompt_length :]
        if [step.token for step in steps] != ids:
            figures.failed("other_tokens", f"{[step.token for step in steps]}, alone {ids}")
        if not same_answer(found, wanted):
            figures.failed("other_answer", f"{found.text!r}, alone {wanted.text!r}")
        if moves := found.extra.get("moves"):
            figures.counts["answers that moved"] += 1
            figures.counts["moves"] += int(moves)
            self.gaps.append(gap)

    @contextmanager
    def clients(self, count: int, figures: Figures) -> Iterator[None]:
        """So many ask on, one request after the other, and adapters come and go."""
        ending = threading.Event()

        def ask_on(seed: int) -> None:
            dice = random.Random(seed)
            while not ending.is_set():
                self.ask(dice.choice(self.known), figures)

        def come_and_go() -> None:
            number = 0
            while not ending.is_set():
                folder, known = self.guests[number % len(self.guests)]
                name = f"guest-{number % len(self.guests)}"
                self.ramole.pool.add(folder, name=name, owner=GUEST, examples=["a guest"])
                self.ask(known, figures)
                self.ramole.pool.remove(name, owner=GUEST)
                figures.counts["adapters that came and went"] += 1
                number += 1

        work = [lambda n=n: ask_on(n) for n in range(count)] + [come_and_go]
        threads = [threading.Thread(target=one) for one in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ending.set()
            for thread in threads:
                thread.join()


def same_answer(one: Generation, other: Generation) -> bool:
    """Text, adapters, end and the whole trace, to the bit."""
    names = ("text", "adapters", "finish_reason", "prompt_tokens", "new_tokens")
    if any(getattr(one, name) != getattr(other, name) for name in names):
        return False
    traces = (one.trace, other.trace)
    parts = ("token_ids", "tokens", "weights", "contribution", "present")
    return all(np.array_equal(*(getattr(trace, name) for trace in traces)) for name in parts)


def write_world(
    root: Path,
    *,
    tokens: int,
    names: Sequence[str] = SAMPLES,
    apart: bool = False,
) -> World:
    """The system of the real base and the sample pool, and its answers alone; `apart`: each request
    has one of `names` alone, and nothing is merged."""
    from ramole_core.base.fetch import fetch_base
    from ramole_core.base.shapes import read_shapes
    from tests.test_ramole import write_lora

    root.mkdir(parents=True, exist_ok=True)
    default = Settings()
    folder = fetch_base(default.base_model, data_dir=default.data_dir)
    for name in [name for name in os.environ if name.startswith("RAMOLE_")]:
        if name != "RAMOLE_DATA_DIR":
            del os.environ[name]
    settings = Settings(base_model=str(folder), device="cpu", data_dir=root / "data")
    asked = [
        Request(
            PROMPTS[n % len(PROMPTS)],
            method="mixture" if apart else ("mixture", "fusion", "selection")[n % 3],
            adapters=_named(names, n)[: 1 if apart else 2],
            k=2,
            temperature=0.8 * (n % 2),
            seed=n,
            max_new_tokens=tokens,
            ignore_eos=True,
        )
        for n in range(max(12, 2 * len(names)))
    ]
    guests = [
        write_lora(root / f"guest-{n}", read_shapes(folder), rank=4, seed=500 + n)
        for n in range(GUESTS)
    ]
    known, strangers = [], []
    with Ramole(settings.model_copy(update={"data_dir": root / "alone"})) as alone:
        for n, folder in enumerate(guests):
            alone.pool.add(folder, name=f"guest-{n}", owner=GUEST, examples=["a guest"])
            request = Request(
                PROMPTS[n % len(PROMPTS)],
                method="fusion",
                adapters=[f"guest-{n}"],
                owner=GUEST,
                max_new_tokens=tokens // 2,
                ignore_eos=True,
            )
            strangers.append((folder, Known(request, alone.generate([request])[0])))
        known = [Known(*pair) for pair in zip(asked, alone.generate(asked), strict=True)]
    return World(settings, known, strangers)


def _named(names: Sequence[str], n: int) -> list[str]:
    """Two of them, or one for every third request."""
    return [names[n % len(names)], names[(n + 1) % len(names)]][: 2 - (n % 3 == 2)]


@contextmanager
def opened(
    world: World, *, engines: int = 2, cpus: float = 1, make: str | None = None
) -> Iterator[World]:
    """Ray Serve with so many engines, and the page's half of the system in this process."""
    from ramole_core.serving.app import ENGINES
    from ramole_core.serving.opening import engines_over
    from ramole_core.serving.ray_fleet import LIVE, RayFleet
    from ramole_core.serving.running import Running

    world.running = Running(world.settings, engines=engines, cpus=cpus, page=None, make=make)
    world.running.start()
    try:
        world.fleet = RayFleet(ENGINES)
        if make is None:
            with Ramole(world.settings, engines=engines_over(world.fleet)) as world.ramole:
                world.ramole.load()
                world.ready(engines)
                yield world
        else:
            world.ready(engines)
            yield world
            world.fleet.close()
    finally:
        world.running.stop()
        LIVE.pop(ENGINES, None)  # the next ones are others


def shares(values: Sequence[float]) -> dict[str, float]:
    """Least, median and most, in seconds."""
    if not values:
        return {}
    ordered = sorted(values)
    found = {"least": ordered[0], "median": ordered[len(ordered) // 2], "most": ordered[-1]}
    return {name: round(value, 2) for name, value in found.items()}


PROMPTS = (
    "Fix the capital letters in the following text: i live in paris",
    "Natalia has 3 apples and buys 4 more. How many has she?",
    "Is this message spam? Win a free prize now!",
    "Write a Python function that adds two numbers.",
)
