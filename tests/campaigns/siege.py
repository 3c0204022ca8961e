"""Honest clients while one address attacks: in turn each attack alone, then all of them at once.

`count` is the seconds of each turn, whose order is the seed's. Before the first, honest clients
alone have as many answers as the server keeps sessions, so that memory grows by nothing of theirs
any more. Honest clients ask, see their first token and their whole answer; how long the first token
takes is compared with a turn without an attack.
"""

import asyncio
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

from ramole_core.api_keys import add_key, today
from tests.campaigns.attacks import ATTACKS, attacking
from tests.campaigns.figures import Figures
from tests.campaigns.honest import KEY, PASSWORD, USER, Turn, ask_on
from tests.support.pool_fakes import write_sample
from tests.support.serving import Server, fake, running, second_start
from ui.session.store import MAX_SESSIONS

PROMISED = ("refused", "lost", "first_token_twice_as_late", "memory_not_flat", "disk_not_flat")
CLIENTS = 32
LATER = 2.0
"""So many times as late as without an attack a first token may be."""
NOISE_SECONDS = 0.25
"""And so much more, of a machine that does other things."""
MORE_MIB = 50
MORE_DISK_MIB = 10
"""Traces that were asked for lie for an hour, within the bounds of the uploads' cache."""
LATEST_SECONDS = 600.0
"""After a turn, for the answers that are on their way; what takes longer is lost."""
SETTLED_SECONDS = 20.0
"""After a turn, for what it left, before memory and disk are read."""
GONE_SECONDS = 100.0
"""And after the last: a session without an open page goes after a minute and a half."""
BUDGETED = ("kv_made_bytes", "host_cache_bytes", "device_cache_bytes")


def run(
    root: Path,
    *,
    count: int,
    seed: int,
    end: float,
    real: bool = True,
    clients: int = CLIENTS,
    kinds: list[str] | None = None,
) -> Figures:
    """Serve, and play the turns; `real`: app.py with the base that ships. `kinds`: of these attacks
    alone; where `passwords` is among them, the page asks for some, and the honest have a key or a
    password."""
    figures, said = Figures(PROMISED), {}
    kinds = in_order(kinds or ATTACKS, seed)
    KEY.clear()  # a siege before this one, in the same process, may have had one
    if "passwords" in kinds:
        KEY["authorization"] = f"Bearer {add_key(root / 'keys', USER, today=today())}"
        said = {"keys_file": root / "keys", "auth": f"{USER}:{PASSWORD}"}
    with _served(root, real, **said) as server:
        asyncio.run(_turns(server, root, figures, count, end, clients, kinds, real))
        log = server.log.read_text("utf-8", "replace")
    figures.counts["tracebacks_in_the_log"] = log.count("Traceback")
    figures.counts["mishaps"] = count
    return figures


def in_order(kinds: Sequence[str], seed: int) -> list[str]:
    """The attacks in the order in which they are played."""
    return random.Random(seed).sample(kinds, len(kinds))


def _served(root: Path, real: bool, **said: object):
    temporary = root / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = str(temporary)  # the server's, where `_disk` finds what is left there
    if not real:
        write_sample(root / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
        return fake(root, max_upload_mb=64, **said)
    return running([sys.executable, "app.py"], root, data_dir=second_start(root / "data"), **said)


async def _turns(
    server: Server,
    root: Path,
    figures: Figures,
    seconds: int,
    end: float,
    clients: int,
    kinds: list[str],
    real: bool,
) -> None:
    await _ready(server)
    asked = 0
    while asked < (MAX_SESSIONS if real else 1):  # of so many something is kept
        asked += len((await _turn(server, [], min(seconds, 60), clients)).first)
    quiet = await _turn(server, [], seconds, clients)
    usual, told = statistics.median(quiet.first), {}
    await asyncio.sleep(min(SETTLED_SECONDS, seconds))
    before, disk, budgeted = _memory(server), _disk(root), _budgeted(server)
    turns = [([kind], kind) for kind in kinds]
    turns += [(kinds, "all at once")] if len(kinds) > 1 else []
    for names, name in turns:
        if time.monotonic() > end:
            break
        turn = await _turn(server, names, seconds, clients)
        late = statistics.median(turn.first) if turn.first else float("inf")
        told[name] = {
            "first_token_ms": round(1000 * late) if turn.first else None,
            "answers": len(turn.first),
            "memory_mib": round(_memory(server)),
            "attacker": turn.attacker,
        }
        if KEY:
            slowest = round(1000 * max(turn.logins, default=0))
            told[name] |= {"logins": len(turn.logins), "slowest_login_ms": slowest}
        for kind, sentences in (("refused", turn.refused), ("lost", turn.lost)):
            for sentence in sentences:
                figures.failed(kind, f"{name}: {sentence}")
        if late > LATER * usual + NOISE_SECONDS:
            figures.failed("first_token_twice_as_late", f"{name}: {late:.3f} s after {usual:.3f} s")
    await asyncio.sleep(min(GONE_SECONDS, 3 * seconds))
    kept = _budgeted(server) - budgeted
    more, left = _memory(server) - before - kept, _disk(root) - disk
    if more > MORE_MIB:
        figures.failed("memory_not_flat", f"{more:.0f} MiB more")
    if left > MORE_DISK_MIB:
        figures.failed("disk_not_flat", f"{left:.1f} MiB more")
    figures.measures |= {
        "clients": clients,
        "first_token_ms_without": round(1000 * usual),
        "memory_mib_before": round(before),
        "answers_before": asked + len(quiet.first),
        "seconds_under_attack": seconds * len(told),
        "turns": told,
        "memory_mib_more": round(more),
        "budgets_mib_more": round(kept),
        "disk_mib_more": round(left, 1),
    }


async def _turn(server: Server, names: list[str], seconds: float, clients: int) -> Turn:
    """So long, with these attacks."""
    turn, over = Turn(), asyncio.Event()
    with attacking(server.url, names) as attacker:
        honest = [asyncio.create_task(ask_on(server.url, n, turn, over)) for n in range(clients)]
        await asyncio.sleep(seconds)
        over.set()
        _, late = await asyncio.wait(honest, timeout=LATEST_SECONDS)
        for one in late:
            one.cancel()
        turn.lost += ["no answer in time"] * len(late)
    turn.attacker = attacker
    return turn


async def _ready(server: Server) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        while (await client.get(f"{server.url}/readyz")).status_code != 200:
            await asyncio.sleep(0.5)


def _memory(server: Server) -> float:
    return psutil.Process(server.process.pid).memory_info().rss / 2**20


def _budgeted(server: Server) -> float:
    """MiB of keys, values and adapters, each up to a bound of its own that the operator sets."""
    said = httpx.get(f"{server.url}/metrics", headers=KEY, timeout=60).text
    found = [re.search(rf"^ramole_{name} (\S+)$", said, re.MULTILINE) for name in BUDGETED]
    if any(found) and not all(found):
        raise RuntimeError(f"/metrics tells nothing of one of {', '.join(BUDGETED)}")
    return sum(float(one[1]) for one in found if one) / 2**20


def _disk(root: Path) -> float:
    """MiB below the server's folder, its temporary files among them, but for the packed files of
    the pool's adapters, one each."""
    files = (one for one in root.rglob("*") if one.is_file() and one.parent.name != "units")
    return sum(one.stat().st_size for one in files) / 2**20
