"""Ray Serve in earnest: the command, its page through Serve's proxy, engines that are killed."""

import os
import re
import shutil
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from gradio_client import handle_file

from ramole_core.cli.server import Server
from ramole_core.process_memory import VARIABLE
from ramole_core.running_page import find_page
from ramole_core.serving.running import IDLE_SECONDS
from tests.campaigns.tiny_system import PROMPTS, write_system
from tests.support.served_cluster import SETTINGS, Cluster, chat, served
from tests.support.serving import client_of
from tests.support.workers import at_once

TOKENS = 300
LONG = 3000
LEAVING = 40
SECRET = "How long do I boil an egg that nobody knows of?"


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(os, "environ", os.environ.copy())
        write_system(root)
    shutil.copytree(root / "data", root / "alone")
    return root


@pytest.fixture(scope="module")
def cluster(system):
    said = SETTINGS | {"base_model": system / "base", "adapters_dir": system / "adapters"}
    said |= {"data_dir": system / "data", "metrics": "127.0.0.1/32", "max_new_tokens": LONG}
    with served(system, engines=2, **said) as running:
        yield running


@pytest.fixture(scope="module")
def idle(cluster):
    """A connection that asked once and stays, and since when."""
    place = httpx.URL(cluster.url)
    with socket.create_connection((place.host, place.port), timeout=60) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        yield connection, time.monotonic()


@pytest.fixture(scope="module")
def alone(system):
    """The same system in one process: token ids of the answers by their seeds."""
    from ramole_core import Ramole, Request, Settings

    said = SETTINGS | {"base_model": str(system / "base"), "adapters_dir": system / "adapters"}
    with Ramole(Settings(**said, data_dir=system / "alone")) as ramole:

        def ids(seeds: Iterable[int]) -> dict[int, list[int]]:
            seeds, usual = list(seeds), {"method": "mixture", "temperature": 1.0}
            answers = ramole.generate(
                [
                    Request(prompt_of(seed), seed=seed, max_new_tokens=TOKENS, **usual)
                    for seed in seeds
                ]
            )
            traces = [answer.trace for answer in answers]
            found = [trace.token_ids[trace.prompt_length :] for trace in traces]
            return dict(zip(seeds, found, strict=True))

        yield ids


def prompt_of(seed: int) -> str:
    return PROMPTS[seed % 3]


def ask(cluster: Cluster, seed: int, *, began: Callable[[], None] = lambda: None) -> list[int]:
    """Token ids of an answer that was streamed; `began` is called with each piece of it."""
    said = {"messages": [{"role": "user", "content": prompt_of(seed)}], "model": "mixture"}
    said |= {"seed": seed, "temperature": 1.0, "max_tokens": TOKENS}
    ids: list[int] = []
    for text, told in chat(cluster.url, **said):
        ids = told
        if text:
            began()
    return ids


def crowd(
    cluster: Cluster, seeds: range, began: Callable[[], None]
) -> dict[int, list[int] | Exception]:
    """Answers to all seeds at once; `began` is called with each piece of any."""
    found: dict[int, list[int] | Exception] = {}

    def one(seed: int) -> None:
        try:
            found[seed] = ask(cluster, seed, began=began)
        except Exception as error:
            found[seed] = error

    at_once(*[partial(one, seed) for seed in seeds])
    return found


def test_the_page_answers_through_the_proxy_as_it_does_alone(cluster, alone):
    assert {5: ask(cluster, 5)} == alone([5])
    client = client_of(cluster.url)
    text, said = client.predict(PROMPTS[1], method="mixture", api_name="/ask")
    names = [one["name"] for one in said["adapters"]]
    assert text and names[0] == "l1" and sorted(names) == ["l0", "l1", "l2"]


def test_the_command_line_finds_its_page_and_acts_as_the_operator(cluster, system):
    page = find_page(system / "data")
    assert page is not None and page.url == cluster.url + "/"
    with closing(Server(page.url, data_dir=system, key=page.key)) as server:
        names = [card["name"] for card in server.cards()]
    assert sorted(names) == ["l0", "l1", "l2"]


def test_every_process_began_in_the_environment_that_it_needs(cluster):
    """With few heaps before any thread of Ray's, since glibc decides once, when there are many; and
    what serves believes nobody's forwarded address, which anybody on that machine could write."""
    servers, engines = cluster.processes("ProxyActor"), cluster.engines()
    assert servers and len(engines) == 2
    (few,) = (f"{name}={heaps}" for name, heaps in VARIABLE.items())
    for processes, said in (
        (servers, "FORWARDED_ALLOW_IPS="),
        ({*engines, cluster.page()}, few),
    ):
        for process in processes:
            assert said in Path(f"/proc/{process}/environ").read_text().split("\0")


def test_its_doors_are_where_they_are_without_engines(cluster, idle):
    foreign = {"host": "evil.example"}
    refused = httpx.get(f"{cluster.url}/health", headers=foreign, timeout=60)
    assert refused.status_code == 403 and "does not answer to the name" in refused.text
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(transport=elsewhere, timeout=60) as other:
        written = {"x-forwarded-for": "127.0.0.1"}
        for headers in ({}, written):
            assert other.get(f"{cluster.url}/metrics", headers=headers).status_code == 403
        assert other.get(f"{cluster.url}/health").json()["status"] == "ok"
    assert httpx.get(f"{cluster.url}/metrics", timeout=60).status_code == 200
    much = b"x" * (100 * 2**20)
    long = httpx.post(f"{cluster.url}/gradio_api/call/ask", content=much, timeout=60)
    assert long.status_code == 413


def test_who_leaves_in_the_midst_of_an_answer_is_no_fault(cluster):
    name = 'ramole_requests_total{outcome="cancelled"}'
    said = {"messages": [{"role": "user", "content": SECRET}], "model": "mixture"}
    said |= {"max_tokens": LONG, "temperature": 0}
    before, at = cluster.numbers()[name], len(cluster.page_log())

    def leave(number: int) -> None:
        if number < LEAVING // 4:
            answer = chat(cluster.url, **said)
            next(answer)
            answer.close()
        else:  # Serve is told in the midst of whatever it does for it
            with suppress(httpx.ReadTimeout):
                wait = httpx.Timeout(30, read=0.01 * number)
                httpx.post(f"{cluster.url}/v1/chat/completions", json=said, timeout=wait)

    with ThreadPoolExecutor(LEAVING) as threads:
        list(threads.map(leave, range(LEAVING)))
    counted, end = [before], time.monotonic() + 300
    while counted[-1] - before < LEAVING // 4 and time.monotonic() < end:
        counted.append(cluster.numbers()[name])
    while len(counted) < 4 or counted[-1] != counted[-4]:  # nobody ends any more
        time.sleep(0.4)
        counted.append(cluster.numbers()[name])
    assert counted[-1] - before >= LEAVING // 4, (before, counted)
    said = cluster.page_log()[at:]  # Serve itself warns of engines that answer late
    assert not re.search("Traceback|ERROR|[Ee]xception", said), said
    assert SECRET not in said + cluster.server.log.read_text()


def test_an_upload_is_answered_with_at_once_and_forgotten(cluster, system, tmp_path):
    from ramole_core.base.shapes import read_shapes
    from tests.core.test_ramole import write_lora

    folder = write_lora(tmp_path / "new", read_shapes(system / "base"), rank=3, seed=77)
    file = shutil.make_archive(str(tmp_path / "new"), "zip", folder)
    client = client_of(cluster.url)
    card = client.predict(handle_file(file), "new", api_name="/add_adapter")
    store = system / "data/store/adapters"
    assert len(list(store.rglob("adapter_model.safetensors"))) == 4, card
    said = client.predict("New?", method="fusion", adapters=["new"], api_name="/ask")[1]
    assert [one["name"] for one in said["adapters"]] == ["new"]
    client.predict("new", api_name="/remove_adapter")
    assert len(list(store.rglob("adapter_model.safetensors"))) == 3


def test_engines_are_started_anew_in_turn_and_no_request_is_lost(cluster, alone):
    old, found = cluster.engines(), {}
    cluster.server.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 600
    seed = 100
    while old & cluster.engines() and time.monotonic() < end:
        seed += 1
        found[seed] = ask(cluster, seed)
    assert not old & cluster.engines()
    assert found and found == alone(found)


def test_killed_engines_lose_no_request_and_no_token_is_another(cluster, alone):
    """After the restart, which would wait for the engine that comes in the killed one's place."""
    cluster.ready(2)
    before = cluster.numbers()["ramole_answers_moved_total"]
    seeds, (doomed, other) = range(10, 22), sorted(cluster.engines())
    lock, killed = threading.Lock(), []

    def kill() -> None:
        with lock:
            if not killed:
                killed.append(doomed)
                os.kill(doomed, signal.SIGKILL)
                os.kill(other, signal.SIGCONT)

    os.kill(other, signal.SIGSTOP)  # so that the first token of all is one of the doomed engine
    try:
        found = crowd(cluster, seeds, kill)
    finally:
        os.kill(other, signal.SIGCONT)
    assert killed
    assert found == alone(seeds)
    assert cluster.numbers()["ramole_answers_moved_total"] > before


def test_a_connection_that_idles_is_ended_meanwhile(idle):
    connection, since = idle
    connection.settimeout(max(60.0, since + 3 * IDLE_SECONDS - time.monotonic()))
    while connection.recv(4096):
        pass
