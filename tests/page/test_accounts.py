"""Who may come in: passwords that are guessed at slowly, keys of a file, logins that end."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise

import pytest

from ramole_core import RamoleError
from ramole_core.api_keys import add_key, read_keys, remove_keys, today
from ramole_core.cli import main
from ramole_core.cli.server import Server
from tests.support.clocks import Clock
from ui.middleware.logins import TOKEN_SECONDS, OldTokens
from ui.session import accounts as accounts_module
from ui.session.accounts import (
    MAX_REMEMBERED,
    MAX_WAIT_SECONDS,
    SPAN_SECONDS,
    TRIES,
    TRIES_UNKNOWN,
    TRY_SECONDS,
    TRY_UNKNOWN_SECONDS,
    Accounts,
    TooManyTries,
    Tries,
)


def waits(tries: Tries, address: str, *, user: str = "ann") -> float | None:
    """How long one more wrong try waits; None where it is refused."""
    try:
        return tries.begin(user, address)[1]
    except TooManyTries as many:
        assert many.seconds > 0
        return None


def test_after_too_many_wrong_passwords_each_try_waits_its_turn_and_others_do_not():
    clock = Clock()
    tries = Tries(clock)
    assert [waits(tries, "evil") for _ in range(TRIES + 3)] == [0] * TRIES + [2, 4, 6]
    assert waits(tries, "home") == waits(tries, "evil", user="ben") == 0
    clock.now += SPAN_SECONDS - 1
    assert waits(tries, "evil") == TRY_SECONDS
    clock.now += 2
    assert [waits(tries, "evil") for _ in range(TRIES - 1)][-1] == 0


def test_only_tries_at_the_same_moment_are_refused_and_a_later_one_waits_for_seconds():
    clock = Clock()
    tries = Tries(clock)
    told = [waits(tries, "evil") for _ in range(100)]
    assert told.count(None) == 60 and max(one or 0 for one in told) == MAX_WAIT_SECONDS
    clock.now += MAX_WAIT_SECONDS
    assert waits(tries, "evil") == TRY_SECONDS


def test_a_right_password_takes_back_its_own_try_alone():
    tries = Tries(Clock())
    for _ in range(50):
        tries.right("ann", "home", tries.begin("ann", "home")[0])
    told = []
    for _ in range(TRIES + 1):  # who has an account guesses at another
        told.append(waits(tries, "home", user="ben"))
        tries.right("ann", "home", tries.begin("ann", "home")[0])
    assert told == [0] * TRIES + [TRY_SECONDS]


def test_who_shares_an_unknown_address_has_more_tries_together_and_never_waits_long():
    tries = Tries(Clock())
    told = [waits(tries, "") for _ in range(TRIES_UNKNOWN + 1)]
    assert told == [0] * TRIES_UNKNOWN + [pytest.approx(TRY_UNKNOWN_SECONDS)]


def test_a_line_that_is_full_of_guesses_refuses_one_user_of_unknown_address_and_no_key(tmp_path):
    """The exception that docs/hosting.md states: nothing tells the right password from a guess
    before it is compared, and how many are compared has to be bounded."""
    clock, key = Clock(), add_key(tmp_path / "keys", "ann", today=today())
    tries = Tries(clock)
    accounts = Accounts([("ann", "secret"), ("ben", "other")], tmp_path / "keys", tries=tries)
    line = [waits(tries, "") for _ in range(1000)]
    compared = sorted(one for one in line if one is not None)
    gaps = {round(b - a, 6) for a, b in pairwise(compared[TRIES_UNKNOWN - 1 :])}
    assert abs(len(compared) - TRIES_UNKNOWN - MAX_WAIT_SECONDS / TRY_UNKNOWN_SECONDS) <= 1
    assert gaps == {TRY_UNKNOWN_SECONDS}, "five a second, however many come"
    with pytest.raises(TooManyTries) as many:
        call(accounts, "Bearer ann:secret")
    assert call(accounts, f"Bearer {key}") == "ann" and asyncio.run(accounts.log_in("ann", key))
    assert call(accounts, "Bearer ben:other") == "ben"
    assert call(accounts, "Bearer ann:secret", "198.51.100.1") == "ann"
    clock.now += many.value.seconds + TRY_UNKNOWN_SECONDS
    assert waits(tries, "") is not None, "then there is a place again"


def test_a_network_of_ipv6_has_the_tries_of_four_however_many_addresses_it_has():
    tries = Tries(Clock())
    told = [waits(tries, f"2001:db8:0:{n:x}00::/64") for n in range(200)]
    assert told.count(0) == 4 * TRIES and None in told


def test_guessing_from_many_addresses_fills_no_memory():
    tries = Tries(Clock())
    for n in range(3 * MAX_REMEMBERED):
        tries.begin("ann", str(n))
    assert len(tries._tried) == MAX_REMEMBERED


def call(accounts: Accounts, header: str | None, address: str = "") -> str | None:
    return asyncio.run(accounts.caller(header, address))


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_who_calls_is_a_user_with_its_password_as_bearer_or_basic():
    accounts = Accounts([("ann", "se:cret"), ("zoë", "ü")])
    for fine in ("Bearer ann:se:cret", "bearer  ann:se:cret", basic("ann:se:cret")):
        assert call(accounts, fine) == "ann"
    wire = "Bearer zoë:ü".encode().decode("latin-1")
    assert call(accounts, wire) == call(accounts, basic("zoë:ü")) == "zoë"
    wrong = (None, "", "Bearer", "Bearer ann", "Bearer ann:", basic("ann:x"), "Basic %%%")
    for header in (*wrong, "Digest ann:se:cret", "Bearer \u20ac", basic("")):
        assert call(accounts, header) is None
    assert accounts and not Accounts()


def test_a_key_of_a_file_opens_for_its_user_until_its_last_day_and_never_waits(tmp_path):
    path, day = tmp_path / "keys", today()
    ann = add_key(path, "ann", today=day)
    old = add_key(path, "old", today=day - timedelta(days=9), days=8)
    assert ann.startswith("ramole_") and ann not in path.read_text("utf-8")
    assert path.stat().st_mode & 0o77 == 0
    tries = Tries(Clock())
    accounts = Accounts([("ann", "secret")], path, tries=tries)
    for _ in range(200):
        with suppress(TooManyTries):
            tries.begin("ann", "")
    assert call(accounts, f"Bearer {ann}") == call(accounts, basic(f"ann:{ann}")) == "ann"
    assert call(accounts, f"Bearer {old}") is call(accounts, "Bearer ramole_x") is None
    assert asyncio.run(accounts.log_in("ann", ann))
    assert not asyncio.run(accounts.log_in("ben", "x"))


def test_a_key_that_is_added_or_removed_counts_without_a_new_start(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts_module, "POLL_SECONDS", 0.0)
    path, day = tmp_path / "keys", today()
    ann = add_key(path, "ann", today=day)
    accounts = Accounts(keys_file=path)
    ben = add_key(path, "ben", today=day, days=1)
    assert call(accounts, f"Bearer {ben}") == "ben"
    assert remove_keys(path, "ann") == 1
    assert call(accounts, f"Bearer {ann}") is None and call(accounts, f"Bearer {ben}") == "ben"
    path.write_text("broken", "utf-8")
    assert call(accounts, f"Bearer {ben}") == "ben", "what was read before holds"
    with pytest.raises(RamoleError, match="cannot be read"):
        Accounts(keys_file=path)
    with pytest.raises(RamoleError, match="no name for a user"):
        add_key(path, "a b", today=day)


def test_a_login_ends_after_a_week():
    clock = Clock()
    tokens, old = {"a": "ann"}, OldTokens(clock)
    old.sweep(tokens)
    clock.now += TOKEN_SECONDS - 1
    tokens["b"] = "ben"
    old.sweep(tokens)
    assert set(tokens) == {"a", "b"}
    clock.now += 2
    old.sweep(tokens)
    assert set(tokens) == {"b"}


def test_the_command_makes_lists_and_removes_keys(tmp_path, capsys):
    file = ["--file", str(tmp_path / "made" / "keys")]
    assert main(["keys", "add", "ann", "--days", "3", "--operator", *file]) == 0
    key = capsys.readouterr().out.strip()
    accounts = Accounts(keys_file=tmp_path / "made" / "keys")
    assert call(accounts, f"Bearer {key}") == "ann" and accounts.is_operator(f"Bearer {key}")
    assert not accounts.is_operator("Bearer ann") and not accounts.is_operator(None)
    assert main(["keys", "list", *file]) == 0 and "operator" in capsys.readouterr().out
    assert main(["keys", "remove", "ben", *file]) == 2
    assert "there are keys of ann" in capsys.readouterr().err
    assert main(["keys", "remove", "ann", *file]) == 0 and main(["keys", "add", *file]) == 2
    assert read_keys(tmp_path / "made" / "keys") == []


@pytest.mark.parametrize("days", [3_000_000, 10**10, 10**20])
def test_a_key_with_more_days_than_the_calendar_is_one_sentence(days, tmp_path, capsys):
    file = tmp_path / "keys"
    assert main(["keys", "add", "ann", "--days", str(days), "--file", str(file)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"A key that is good for {days} days ends after") and not file.exists()


@pytest.mark.parametrize("kept", ["keys", "sessions.json"])
def test_what_several_commands_keep_at_once_is_all_there(tmp_path, kept):
    file, names = tmp_path / kept, [f"user{n}" for n in range(16)]

    def add(name):
        if kept == "keys":
            add_key(file, name, today=today())
        else:
            Server(name, data_dir=tmp_path).close()

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(add, names))
        told = file.read_text()
        assert [name for name in names if f'{name}"' not in told] == []
        if kept == "keys":
            assert sum(threads.map(lambda name: remove_keys(file, name), names[3:])) == 13
            assert {key.user for key in read_keys(file)} == {*names[:3]}
