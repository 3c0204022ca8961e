"""Two pages over the fake system for all files of this folder that change none of their settings:
one is open, one asks for passwords. A test comes as a visitor of its own."""

from dataclasses import dataclass

import pytest

from ramole_core.api_keys import add_key, today
from tests.support.pool_fakes import write_sample
from tests.support.serving import Server, fake

PROXY = "127.0.0.1"
"""Named as a proxy: a call from there has the address in its X-Forwarded-For, and without one an
unknown address, which has no limits of its own. So each test has the limits and the uploads of the
addresses that it names."""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The open page, with the samples squad and dart."""
    root = tmp_path_factory.mktemp("page")
    write_sample(root / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
    write_sample(root / "adapters", "dart", rank=2, seed=2, examples=["list the rows"])
    said = {
        "max_upload_mb": 1,
        "trusted_proxies": PROXY,
        "allowed_hosts": "*.example.net",
        "log_requests": "true",
        "chroma_url": "http://index.example:8000",
    }
    variables = {"heard": root / "heard", "grace_seconds": 1}
    with fake(root, variables=variables, **said) as running:
        yield running


@dataclass(frozen=True)
class Locked:
    """A page with passwords."""

    server: Server
    carl: str
    boss: str
    """Keys: of a user, and of an operator."""

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture(scope="session")
def locked(tmp_path_factory):
    """The page for ann:secret and ben:other, with the sample squad."""
    root = tmp_path_factory.mktemp("locked")
    write_sample(root / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
    keys = root / "keys"
    carl, boss = (add_key(keys, n, today=today(), operator=n == "boss") for n in ("carl", "boss"))
    said = {"auth": "ann:secret,ben:other", "keys_file": keys, "trusted_proxies": PROXY}
    with fake(root, **said) as running:
        yield Locked(running, carl, boss)
