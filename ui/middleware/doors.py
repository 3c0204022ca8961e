"""The middleware stack, built from the settings, in order."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from starlette.middleware import Middleware

from ramole_core import Ramole

from ..session.accounts import Accounts
from ..session.address import Addresses, networks
from ..session.leaving import leave
from ..session.quota import quota_of
from .bodies import Bodies
from .cache import MIB, UploadCache
from .connections import SPARE, raise_files
from .crowds import Crowds, SlowRefusals
from .heartbeats import Heartbeats
from .hosts import Hosts, host_names
from .kept import ResponseCache
from .logins import Logins
from .routes import Routes, rules
from .watched import Watched

ADDRESS_UPLOADS = 4
"""Room in the cache for one address, in uploads of the largest size."""
ALL_UPLOADS = 16
"""Room in the cache in all, in uploads of the largest size."""


def doors(ramole: Ramole, *, cache: Path, accounts: Accounts) -> Sequence[Middleware]:
    """Names, routes, addresses, how many at once, passwords or keys where there are
    `accounts`, and sizes;
    `cache` is Gradio's. Raises RamoleError for settings that cannot be."""
    s, hosted = ramole.settings, "SPACE_ID" in os.environ
    names = host_names(s.allowed_hosts, listening=s.listening, hosted=hosted)
    trusted = networks(s.trusted_proxies or "")
    largest = s.max_upload_mb * MIB
    room = UploadCache(
        cache, address_bytes=ADDRESS_UPLOADS * largest, all_bytes=ALL_UPLOADS * largest
    )
    connections = max(64, raise_files() - SPARE)
    table, sessions = rules(s.max_upload_mb), quota_of(ramole).presence.sessions
    return [
        Middleware(Watched, frames=names.said),
        Middleware(Hosts, names=names, trusted=trusted, hosted=hosted),
        Middleware(Addresses, trusted=trusted, hosted=hosted),
        Middleware(SlowRefusals, most=connections // 4),
        Middleware(Routes, table=table),
        Middleware(Crowds, streams=connections * 3 // 4),
        *([Middleware(Logins, accounts=accounts)] if accounts else []),
        Middleware(ResponseCache, pages=not accounts),
        Middleware(Heartbeats, sessions=sessions, leave=partial(leave, ramole)),
        Middleware(Bodies, cache=room),
    ]
