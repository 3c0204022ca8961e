"""Several engines of Ray Serve: killed, given adapters; how fast, and how placed.

What must never happen: a request without exactly one answer, another token, another answer than
alone. The engines and the wire are the real ones; the page's half runs in this process.
"""

import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.campaigns.figures import Figures
from tests.campaigns.serve_curve import curve, ray_curve
from tests.campaigns.serve_world import GUEST, Asked, World, opened, shares, write_world

PROMISED = ("no_answer", "two_answers", "other_tokens", "other_answer")
CLIENTS = 32
ADDED = 12
PLACED = 192
SCALED = 144
MANY = (
    *("mawps_svamp", "true_case", "dart", "mbpp", "sms_spam", "e2e_nlg", "banking77", "clickbait"),
    *("clinc_intent", "common_gen"),
)
CACHES = {"device_cache_mb": 24, "host_cache_mb": 16}
"""For about half of them, one of which each request has: each is 3 MB."""


def run(
    root: Path,
    *,
    count: int,
    seed: int,
    end: float = float("inf"),
    kinds: Sequence[str] = (),
) -> Figures:
    """`count` kills of an engine with the real base, and whatever else is named in `kinds`; unsaid,
    all."""
    figures, dice = Figures(PROMISED), random.Random(seed)
    for kind in kinds or MEASURES:
        if time.monotonic() > end:
            break
        measure = MEASURES[kind]
        figures.measures[kind] = measure(Asked(root / kind, figures, dice, count, end))
    return figures


def _kills(asked: Asked) -> dict[str, object]:
    """Each once both engines are ready again."""
    world = write_world(asked.root, tokens=16)
    with opened(world) as served, served.clients(CLIENTS, asked.figures):
        again: list[float] = []
        while len(again) < asked.count and time.monotonic() < asked.end:
            time.sleep(asked.dice.uniform(1, 3))
            served.kill(asked.dice)
            asked.figures.counts["mishaps"] += 1
            time.sleep(1)
            again.append(1 + served.ready(2))
        time.sleep(1)
    return {"kills": len(again), "two_engines_again": shares(again), "gap": shares(world.gaps)}


def _added(asked: Asked) -> dict[str, object]:
    """An adapter is added; then the first token with it of the one engine, and of the other."""
    world = write_world(asked.root, tokens=16)
    names = ("add", "first_engine", "second_engine", "from_add_to_first_token")
    times: dict[str, list[float]] = {name: [] for name in names}
    with opened(world) as served:
        keys = sorted(served.fleet.keys())
        for key in keys:  # a process's first answer of a kind is a slow one
            _only(served, key, keys)
            served.ask(served.known[1], asked.figures)
        for number in range(ADDED):
            folder, known = served.guests[number % len(served.guests)]
            name, began = f"guest-{number % len(served.guests)}", time.monotonic()
            served.ramole.pool.add(folder, name=name, owner=GUEST, examples=["a guest"])
            times["add"].append(time.monotonic() - began)
            for place, key in enumerate(keys if number % 2 else keys[::-1]):
                _only(served, key, keys)
                sent = time.monotonic()
                next(served.ramole.stream(known.request))
                now = time.monotonic()
                times[names[1 + place]].append(now - sent)
                if place == 0:
                    times["from_add_to_first_token"].append(now - began)
                served.ask(known, asked.figures)
            _only(served, None, keys)
            served.ramole.pool.remove(name, owner=GUEST)
    return {f"seconds_{name}": shares(found) for name, found in times.items()}


def _only(world: World, key: str | None, keys: Sequence[str]) -> None:
    """Ask this engine alone from now on; None: all."""
    now = time.monotonic()
    world.fleet._lost = {} if key is None else {other: now for other in keys if other != key}


def _placement(asked: Asked) -> dict[str, object]:
    """The same requests by adapter and by load, of more adapters than one engine's caches hold: how
    often an adapter had to be brought."""
    found: dict[str, object] = {"adapters": len(MANY), **CACHES}
    for how in ("adapter", "load"):
        root = asked.root / how
        world = write_world(root, tokens=8, names=MANY, apart=True)
        said = {"placement": how, **CACHES}
        world.settings = world.settings.model_copy(update=said)
        with opened(world) as served:
            _ask_all(served, asked.figures, len(world.known))
            before = _counted(served)
            began = time.monotonic()
            done = _ask_all(served, asked.figures, PLACED)
            seconds = time.monotonic() - began
            after = _counted(served)
        names = ("bank_loads", "host_packs", "host_reads", "shared_tokens", "prefill_tokens")
        counts = {name: int(after[name] - before[name]) for name in names}
        found[how] = {"requests": done, **counts, "requests_per_second": round(done / seconds, 2)}
    return found


def _counted(world: World) -> dict[str, float]:
    total: dict[str, float] = {}
    for key in world.fleet.keys():
        for name, value in world.fleet.call(key, "stats").items():
            total[name] = total.get(name, 0) + value
    return total


def _ask_all(world: World, figures: Figures, count: int) -> int:
    """So many requests by all clients together."""
    left, lock = iter(range(count)), threading.Lock()

    def ask_on() -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            world.ask(world.known[number % len(world.known)], figures)

    threads = [threading.Thread(target=ask_on) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count


def _scaling(asked: Asked) -> dict[str, object]:
    """Tokens a second of one engine and of two, each with one core."""
    found: dict[str, object] = {}
    world = write_world(asked.root, tokens=32)
    for engines in (1, 2):
        with opened(world, engines=engines) as served:
            _ask_all(served, asked.figures, 48)  # adapters and beginnings are known then
            began = time.monotonic()
            done = _ask_all(served, asked.figures, SCALED)
            seconds = time.monotonic() - began
            found[f"tokens_per_second_{engines}"] = round(32 * done / seconds, 1)
    return {**found, "requests": SCALED, "cores": len(os.sched_getaffinity(0))}


MEASURES = {
    "kills": _kills,
    "added": _added,
    "placement": _placement,
    "scaling": _scaling,
    "curve": curve,
    "ray_curve": ray_curve,
}
