"""Tokens a second of engines that sleep, by their number: in threads, and over Ray Serve."""

import time
from contextlib import nullcontext

from ramole_core import Request, Settings, Step
from ramole_core.engine.prompt import Prepared, Prompt, Turn
from ramole_core.serving.fleet import Fleet
from ramole_core.serving.placing import Placing
from ramole_core.serving.remote_stream import RemoteStream
from tests.campaigns.serve_world import Asked, World, opened
from tests.campaigns.simulated_engine import STEP, SleepingFleet

CURVE = (1, 2, 4, 8, 16, 32, 64)
RAY_CURVE = (1, 2, 4, 8, 16)
"""Each is a process, and 16 are what two cores start in some minutes."""
ROWS = 32
CURVE_TOKENS = 20


def curve(asked: Asked) -> dict[str, object]:
    """Engines that sleep, 1 to 64, in threads: what the page's half leaves of N times as many
    tokens a second, with no wire between."""
    found = {}
    for engines in CURVE:
        fleet = SleepingFleet(engines, rows=ROWS)
        found[str(engines)] = _tokens_per_second(fleet, engines)
        fleet.close()
    return _simulated(found)


def ray_curve(asked: Asked) -> dict[str, object]:
    """The same over Ray Serve, a process each."""
    found, world = {}, World(Settings(data_dir=asked.root, max_batch=ROWS), [], [])
    make = "tests.campaigns.simulated_engine:SimulatedEngine"
    for engines in RAY_CURVE:
        with opened(world, engines=engines, cpus=0.1, make=make) as served:
            found[str(engines)] = _tokens_per_second(served.fleet, engines)
    return _simulated(found)


def _simulated(found: dict[str, int]) -> dict[str, object]:
    about = {"simulated": "engines that sleep in the place of a forward", "rows": ROWS}
    return {**about, "step_seconds": STEP, "tokens_per_second": found}


def _tokens_per_second(fleet: Fleet, engines: int) -> int:
    request = Request("hello", method="base", max_new_tokens=CURVE_TOKENS)
    prepared = Prepared(request, (Turn(request, ()),), Prompt(((1, 2),), CURVE_TOKENS))
    asked = [prepared] * ROWS * engines * 2
    began = time.monotonic()
    stream = RemoteStream(
        fleet,
        Placing("load"),
        asked,
        hold=lambda contents: nullcontext(),
        found=lambda prepared, fitting: prepared,
        most=ROWS * engines,
        session="",
        address="",
        cancelled=lambda: False,
        waiting=lambda index, place: None,
        fitting=lambda index, how: None,
    )
    tokens = sum(isinstance(item, Step) for _, item in stream)
    return round(tokens / (time.monotonic() - began))
