"""The endpoints through real clients of a real server: HTTP, gradio_client, MCP, passwords."""

import asyncio
import base64
import inspect
import json
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from ramole_core import Fitting, Generation, RamoleError, Request, Step
from ramole_core.errors import Busy
from tests.support.fake_ramole import OPTIONS, FakeRamole
from tests.support.pool_fakes import write_adapter, zipped
from tests.support.serving import REPOSITORY, client_of, free_port, wait_until
from ui.api import fields
from ui.api.answers import batched, streamed
from ui.api.asking import ask_endpoint
from ui.api.endpoints import Endpoints
from ui.serve import passwords

ENDPOINTS = {
    *("/ask", "/ask_batch"),
    *("/retrieve", "/list_adapters"),
    *("/add_adapter", "/remove_adapter"),
}


@pytest.fixture
def client(server):
    client = client_of(server.url)
    yield client
    threading.Thread(target=client.close).start()  # it waits a second for a thread of its own


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return str(zipped(write_adapter(folder / "mine", rank=4, seed=9), folder / "mine.zip"))


def names(client) -> list[str]:
    return [card["name"] for card in client.predict(api_name="/list_adapters")]


# The endpoints


def test_endpoints_are_public_and_described_and_no_other(client):
    info = client.view_api(return_format="dict", print_info=False)
    assert set(info["named_endpoints"]) == ENDPOINTS and not info["unnamed_endpoints"]
    asked = info["named_endpoints"]["/ask"]["parameters"]
    assert asked[0]["parameter_name"] == "prompt"
    assert [p["parameter_has_default"] for p in asked] == [False] + [True] * (len(asked) - 1)


def test_ask_streams_and_ends_with_what_was_used(client):
    job = client.submit("where is the dog", api_name="/ask")
    text, told = job.result(timeout=60)
    assert text == "where is the dog"
    assert told["adapters"] == [{"name": "squad", "score": 0.6}, {"name": "dart", "score": 0.1667}]
    assert (told["finish_reason"], told["new_tokens"]) == ("length", 4)
    assert told["method"] == "ramole_plus"
    seen = [step[0] for step in job.outputs()]
    assert all(f"{text} ".startswith(part) for part in seen) and seen[-1] == text
    named = {"method": "mixture", "adapters": ["dart"], "max_new_tokens": 2, "options": ""}
    _, told = client.predict("a b c d", **named, api_name="/ask")
    assert told["adapters"] == [{"name": "dart", "score": None}]
    assert (told["method"], told["new_tokens"]) == ("mixture", 2)


def test_ask_batch_answers_in_order_each_in_its_way_and_a_bad_prompt_in_its_place(client):
    good = ["a b c d", {"prompt": "e f", "method": "base", "k": 2}]
    bad = {
        "prompt=7; give a text.": 7,
        "is empty": " ",
        "no adapter 'squat'": {"prompt": "c", "adapters": ["squat"]},
        "Did you mean 'prompt'?": {"prompt": "d", "promt": 1},
        "history=3; pass": {"prompt": "b", "history": 3},
        "options=3": {"prompt": "b", "options": 3},
        "owner=": {"prompt": "b", "owner": "x"},
        "kind=1; a request has no such field.": {"prompt": "b", "kind": 1},
        "self=1; a request has no such field.": {"prompt": "b", "self": 1},
    }
    one, two, *refused = client.predict([*good, *bad.values()], k=1, api_name="/ask_batch")
    assert (one["text"], one["method"], len(one["adapters"])) == ("a b c d", "ramole_plus", 1)
    assert (two["text"], two["method"], len(two["adapters"])) == ("e f", "base", 2)
    assert all(part in said["error"] for part, said in zip(bad, refused, strict=True)), refused
    (alone,) = client.predict([" "], api_name="/ask_batch")
    assert "empty" in alone["error"]


@pytest.mark.parametrize("options", [{"warmth": 1, "rounds": 4}, '{"warmth": 1, "rounds": 4}'])
def test_options_reach_the_request_of_a_method_that_has_them(options):
    ramole, said = FakeRamole(options=OPTIONS), {"prompt": "hi", "method": "mixture"}
    asked = fields.read_ask(ramole, {**said, "options": options}, owner="me")
    assert asked.options == {"warmth": 1, "rounds": 4} and asked.owner == "me"
    with pytest.raises(RamoleError, match="no option 'slow'; its options are warmth, rounds"):
        fields.read_ask(ramole, {**said, "options": {"slow": True}}, owner=None)
    for none in (None, "", "{}", {}):
        asked = fields.read_ask(ramole, {**said, "options": none}, owner=None)
        assert not asked.options


def test_a_call_that_says_no_length_asks_for_no_more_than_the_server_gives():
    ramole = FakeRamole()
    for most, usual in ((64, 64), (512, 128)):
        ramole.settings = ramole.settings.model_copy(update={"max_new_tokens": most})
        parameters = inspect.signature(ask_endpoint(Mock(), ramole)).parameters
        assert parameters["max_new_tokens"].default == usual
        list(Endpoints(ramole).ask_batch(["hi"], method="base"))
        assert ramole.requests[-1].max_new_tokens == usual
    *_, ((told),) = Endpoints(ramole).ask_batch(["hi"], max_new_tokens=0)
    assert told["error"].startswith("max_new_tokens=0") and len(ramole.requests) == 2


PARTS = {
    "history": [["one", "1"], ["two", "2", ["dart"]], ["three", "", []]],
    "drop_turns": True,
    "prefix_ids": [4, 5],
    "without": [["dart", 3, "q_proj"], [None, None, None, 7]],
    "later_weights": {"dart": 0.5},
    "examples": [["a", "b"], ["c", "d"]],
    "effects": True,
}


def test_a_conversation_reaches_the_request_and_silence_is_the_request_s_own_default():
    asked = fields.read_ask(FakeRamole(), {"prompt": "hi", **PARTS}, owner="me")
    assert asked == Request("hi", **PARTS, trace=False, owner="me")
    assert asked.history[1].adapters == ("dart",) and asked.history[2].adapters == ()
    nothing = dict.fromkeys(("history", "prefix_ids", "without", "examples", "mix"))
    bare = fields.read_ask(FakeRamole(), {"prompt": "hi", **nothing}, owner=None)
    assert bare == Request("hi", trace=False)
    mixed = fields.read_ask(FakeRamole(), {"prompt": "hi", "mix": "spam"}, owner="me")
    assert mixed == Request("hi", mix="spam", trace=False, owner="me")


def test_an_answer_has_its_tokens_and_the_weights_that_were_found(client):
    text, told = client.predict("a b", **PARTS, api_name="/ask")
    assert (text, told["token_ids"]) == ("a b", [4, 5, 0, 1])
    one, two = client.predict(["a b", {"prompt": "c", **PARTS}], api_name="/ask_batch")
    assert (one["token_ids"], two["token_ids"]) == ([0, 1], [4, 5, 0])
    named = {"adapters": ["dart", "squad"], "examples": [["x", "y"]]}
    text, told = client.predict("a b", method="lorahub", **named, api_name="/ask")
    assert (text, told["method"]) == ("a b", "lorahub")
    weights = [{"name": "dart", "weight": 1.25}, {"name": "squad", "weight": 0.25}]
    found = {"step": 3, "steps": 3, "weights": weights, "loss": 1.25, "start": 2.0}
    assert told["fitted"] == found


def last_of(system, request: Request) -> dict:
    """What the end of a stream says of its answer."""
    *_, (_, told) = streamed(system, request)
    return told


def test_an_answer_says_what_it_has_besides_its_text():
    told = last_of(FakeRamole(length=2), Request("hi", logprobs=1, prompt_logprobs=True))
    assert told["logprobs"] == [[0, -0.5, [[0, -0.5]]], [1, -0.5, [[1, -0.5]]]]
    assert told["prompt_logprobs"][0] == [0, None, []]
    bare = last_of(FakeRamole(length=2), Request("hi"))
    assert not {"logprobs", "prompt_logprobs"} & set(bare)
    dropped = replace(answer_of("ab"), extra={"dropped_turns": 2.0})
    assert last_of(Steps((0, dropped), free=1), Request("hi"))["dropped_turns"] == 2


def test_retrieve_finds_and_excludes(client):
    assert client.predict("where is it", k=1, api_name="/retrieve")[0]["name"] == "squad"
    found = client.predict("where is it", k=900, exclude=["squad"], api_name="/retrieve")
    assert [hit["name"] for hit in found] == ["dart"]


def test_an_upload_is_judged_belongs_to_its_session_and_can_be_removed(server, client, archive):
    card = client.predict(
        handle_file(archive), name="find_me", examples=["how far"], api_name="/add_adapter"
    )
    assert (card["name"], card["yours"], card["rank"]) == ("find_me", True, 4)
    assert card["verdict"] == "usable" and card["examples"] == ["how far"]
    assert {hit["name"] for hit in card["neighbours"]} == {"squad", "dart"}
    assert "folder" not in card and "/" not in json.dumps(card).replace("how far", "")
    assert names(client) == ["dart", "squad", "find_me"]
    other = client_of(server.url)
    assert names(other) == ["dart", "squad"]
    with pytest.raises(AppError, match="no adapter 'find_me'"):
        other.predict("find_me", api_name="/remove_adapter")
    other.close()
    assert client.predict("find_me", api_name="/remove_adapter") == {"removed": "find_me"}
    assert names(client) == ["dart", "squad"]


def test_uploads_go_when_the_client_leaves(server, archive):
    """At once, or in a while where it has a secret to come back with."""
    secret = {"x-ramole-session": "a secret that it might come back with"}
    leaving = [client_of(server.url, headers=headers) for headers in (None, secret)]
    for client in leaving:
        client.predict(handle_file(archive), name="brief", api_name="/add_adapter")
    held = list((server.log.parent / "data" / "uploads").glob("*/brief"))
    assert len(held) == 2
    for client in leaving:
        client.close()
    wait_until(lambda: not any(folder.exists() for folder in held), seconds=120)


# Hostile


@pytest.mark.parametrize(
    ("endpoint", "said", "reason"),
    [
        ("/ask", {"prompt": ""}, "The prompt is empty"),
        ("/ask", {"prompt": ["hi"]}, "prompt=.*give a text"),
        ("/ask", {"prompt": "x" * 100_001}, "at most 100000 characters"),
        ("/ask", {"prompt": "hi", "k": 10**30}, "k=10+, and 32 is the most"),
        ("/ask", {"prompt": "hi", "adapters": ["squat"]}, "no adapter 'squat'"),
        ("/ask", {"prompt": "hi", "weights": [1.0]}, "weights needs adapters"),
        ("/ask", {"prompt": "hi", "options": "{bad"}, "options='{bad'; this object is not JSON"),
        ("/ask", {"prompt": "hi", "options": "[1]"}, "options=.*give an object"),
        ("/ask", {"prompt": "hi", "options": '{"a": NaN}'}, "options=.*give an object"),
        ("/ask", {"prompt": "hi", "method": "base", "options": {"a": 1}}, "has no option 'a'; it"),
        ("/ask", {"prompt": "hi", "examples": [["a", "x" * 10**5]]}, "examples=.*100001 char"),
        ("/ask", {"prompt": "hi", "history": [["a", "x" * 10**5]]}, "history=.*100001 characters"),
        ("/ask", {"prompt": "hi", "history": [[]] * 4000}, "history=.*more than 4000 parts"),
        ("/ask_batch", {"prompts": []}, "not a list of prompts"),
        ("/ask_batch", {"prompts": "hi"}, "not a list of prompts"),
        ("/ask_batch", {"prompts": ["a"] * 65}, "64 is the most"),
        ("/retrieve", {"text": " "}, "The text is empty"),
        ("/retrieve", {"text": "hi", "k": 0}, "k=0"),
        ("/retrieve", {"text": "hi", "exclude": {"a": 1}}, "exclude="),
        ("/add_adapter", {"file": "/etc/passwd"}, "not an uploaded file"),
        ("/add_adapter", {"file": {"path": "/etc/passwd"}}, "not an uploaded file"),
        ("/add_adapter", {"file": None}, "not an uploaded file"),
        ("/add_adapter", {"file": [1]}, "not an uploaded file"),
        ("/remove_adapter", {"name": "squad"}, "sample pool"),
        ("/remove_adapter", {"name": "../../x"}, "no adapter"),
        ("/remove_adapter", {"name": {"a": 1}}, "name="),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(server, client, endpoint, said, reason):
    with pytest.raises(AppError, match=reason) as told:
        client.predict(**said, api_name=endpoint)
    assert "Traceback" not in str(told.value) and "/work" not in str(told.value)
    assert names(client) == ["dart", "squad"]


def call(server, endpoint: str, **said) -> str:
    """By bare HTTP, as somebody without gradio_client would; the stream of events as text."""
    url = f"{server.url}/gradio_api/call"
    event = httpx.post(f"{url}/v2/{endpoint}", json=said, timeout=30).json()["event_id"]
    return httpx.get(f"{url}/{endpoint}/{event}", timeout=60).text


@pytest.mark.parametrize("path", ["/etc/passwd", "app.py", "http://127.0.0.1:9/x.zip"])
def test_a_path_or_a_link_that_a_caller_chose_is_never_read_nor_returned(server, path):
    told = call(server, "add_adapter", file={"path": path, "meta": {"_type": "gradio.FileData"}})
    assert "event: error" in told and "root:" not in told and "Traceback" not in told
    fetched = httpx.get(f"{server.url}/gradio_api/file={path}", timeout=30)
    assert fetched.status_code in (403, 404) and "root:" not in fetched.text


def test_an_upload_cannot_be_fetched_once_it_was_judged(server, client, archive):
    with open(archive, "rb") as file:
        sent = httpx.post(f"{server.url}/gradio_api/upload", files={"files": file}, timeout=30)
    (path,) = sent.json()
    address = f"{server.url}/gradio_api/file={path}"
    assert httpx.get(address, timeout=30).status_code == 200
    stored = {"path": path, "meta": {"_type": "gradio.FileData"}}
    assert "event: complete" in call(server, "add_adapter", file=stored, name="fetched")
    assert httpx.get(address, timeout=30).status_code in (403, 404)


@pytest.mark.parametrize(
    ("handler", "data"),
    [
        ("on_download", ["../../../etc/passwd"]),
        ("on_download", [{"path": "/etc/passwd"}]),
        ("on_remove", ["squad"]),
        ("on_remove", [["squad"]]),
        ("on_choose", [{"name": "squad"}]),
        ("on_examples", ["squad", "x", None]),
    ],
)
def test_the_pages_own_handlers_give_nothing_away_to_who_calls_them_by_name(server, handler, data):
    url = f"{server.url}/gradio_api/call/{handler}"
    sent = httpx.post(url, json={"data": data}, timeout=30)
    if sent.status_code == 200:
        told = httpx.get(f"{url}/{sent.json()['event_id']}", timeout=60).text
        assert "event: error" in told and "root:" not in told and "Traceback" not in told
    assert httpx.get(f"{server.url}/health", timeout=30).json()["adapters"] == 2


# Passwords


@pytest.mark.parametrize("auth", ["ann", "ann:", ":x", "ann:x,ben", " , "])
def test_passwords_that_are_none_are_refused_without_being_shown(auth):
    with pytest.raises(Exception, match="is not user:password") as told:
        passwords(auth)
    assert auth not in str(told.value)
    assert passwords("ann:a:b, ben:c") == [("ann", "a:b"), ("ben", "c")] and passwords(None) is None


# MCP


async def speak_mcp(url: str, calls: list[tuple[str, dict]], **headers):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with streamablehttp_client(f"{url}/gradio_api/mcp/", headers=headers) as (get, put, _):
        async with ClientSession(get, put) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            return tools, [await session.call_tool(name, said) for name, said in calls]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mcp renames its own client function
def test_mcp_lists_the_endpoints_with_their_words_and_calls_them(server, archive):
    data = base64.b64encode(Path(archive).read_bytes()).decode()
    add = ("add_adapter", {"file": f"data:application/zip;base64,{data}", "name": "over_mcp"})
    calls = [
        ("retrieve", {"text": "where is the cat", "k": 1}),
        ("ask", {"prompt": "a b"}),
        ("remove_adapter", {"name": "squad"}),
        add,
        ("list_adapters", {}),
    ]
    tools, told = asyncio.run(speak_mcp(server.url, calls))
    assert {f"/{tool.name}" for tool in tools} == ENDPOINTS
    ask = next(tool for tool in tools if tool.name == "ask")
    assert ask.description.startswith("Answer a prompt") and ask.inputSchema["required"] == [
        "prompt"
    ]
    for tool in tools:
        assert all("description" in field for field in tool.inputSchema["properties"].values())
        assert len(tool.description + json.dumps(tool.inputSchema)) < 2000, tool.name
        hints = tool.annotations
        assert hints.readOnlyHint == (tool.name not in ("add_adapter", "remove_adapter"))
        assert hints.destructiveHint == (tool.name == "remove_adapter")
    retrieved, asked, removed, added, listed = told
    assert retrieved.structuredContent["adapters"][0]["name"] == "squad"
    assert asked.structuredContent["text"] == "a b"
    assert asked.structuredContent["finish_reason"] == "length"
    for one in (retrieved, asked, listed):
        assert json.loads(one.content[0].text) == one.structuredContent and not one.isError
    assert removed.isError and "sample pool" in removed.content[0].text
    assert added.isError and "x-ramole-session" in added.content[0].text
    assert "over_mcp" not in listed.content[0].text

    secret = {"x-ramole-session": "a long secret of mine"}
    _, (added, listed) = asyncio.run(speak_mcp(server.url, [add, ("list_adapters", {})], **secret))
    assert not added.isError and "over_mcp" in listed.content[0].text
    _, (others,) = asyncio.run(speak_mcp(server.url, [("list_adapters", {})]))
    assert "over_mcp" not in others.content[0].text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mcp renames its own client function
def test_an_adapter_is_uploaded_by_a_tool_that_is_listed(server, archive):
    data = Path(archive).read_bytes()
    lines = base64.encodebytes(data).decode()  # as `base64 FILE` prints it
    with Path(archive).open("rb") as file:
        told = httpx.post(f"{server.url}/gradio_api/upload", files={"files": file}, timeout=30)
    (path,) = told.json()
    files = {
        "plain": base64.b64encode(data).decode(),
        "path": path,
        "lines": lines.replace("\n", "\r\n "),
        "url": f"data:application/zip;base64,{lines}",
        "odd": "x y",
        "null": "/\0x",
        "etc": "/etc/hosts",
    }
    calls = [("add_adapter", {"file": file, "name": name}) for name, file in files.items()]
    secret = {"x-ramole-session": "another long secret of mine"}
    _, (plain, *again, odd, null, outside) = asyncio.run(speak_mcp(server.url, calls, **secret))
    assert plain.structuredContent["name"] == "plain" and plain.structuredContent["yours"]
    assert lines.count("\n") > 2
    for told in again:
        assert not told.isError, told.content[0].text
        assert told.structuredContent["sha256"] == plain.structuredContent["sha256"]
    for refused in (odd, null, outside):
        assert refused.isError and "file is neither base64" in refused.content[0].text


# The real thing


def done_by(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What Python has done with these words, in a process of its own."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", **variables} if variables else None,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_nothing_that_opens_the_page_imports_torch(tmp_path):
    code = (
        "import sys, app, ui\n"
        "from ramole_core import load_settings, Ramole\n"
        "with Ramole(load_settings()) as ramole:\n"
        "    ui.build(ramole)\n"
        "    heavy = {'torch', 'transformers', 'chromadb', 'sentence_transformers'}\n"
        "    print(sorted(heavy & set(sys.modules)))\n"
    )
    done = done_by("-c", code, RAMOLE_DATA_DIR=str(tmp_path), HOME=str(tmp_path))
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-2000:]


LAUNCH = """
import os, sys
from pathlib import Path
import gradio as gr, httpx
from tests.support.pool_fakes import PoolRamole
from ui.serve import launch

def late(*args, **options):
    raise httpx.ReadTimeout("the page did not come within three seconds")

httpx.head = late
for place in sys.argv[2:]:
    port, host = place.split("/")
    root = Path(sys.argv[1], port)
    with gr.Blocks() as page:
        pass
    url = launch(page, PoolRamole(root, port=int(port), host=host))
    print(url, httpx.get(f"{url}livez", timeout=60, trust_env=False).status_code, flush=True)
os._exit(0)
"""


def has_ipv6() -> bool:
    """Whether this machine has the loopback address ::1."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_page_is_served_by_a_slow_machine_and_by_an_address_of_ipv6(tmp_path):
    """Gradio itself asks for its first page, for three seconds at most."""
    names = {"127.0.0.1": "127.0.0.1"} | ({"::1": "[::1]"} if has_ipv6() else {})
    ports = {host: str(free_port()) for host in names}
    places = [f"{port}/{host}" for host, port in ports.items()]
    done = done_by("-c", LAUNCH, str(tmp_path), *places)
    wanted = [f"http://{name}:{ports[host]}/ 200" for host, name in names.items()]
    assert [line for line in done.stdout.splitlines() if line.startswith("http")] == wanted, (
        done.stderr
    )


def test_app_says_in_one_line_what_is_wrong_with_its_settings(tmp_path):
    said = {"RAMOLE_DATA_DIR": str(tmp_path), "RAMOLE_PORT": str(free_port())}
    done = done_by("app.py", **said, RAMOLE_AUTH="ann", HOME=str(tmp_path))
    assert done.returncode == 2 and "RAMOLE_AUTH is not user:password" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


class Steps:
    """A system whose every step is awaited: `go` once for each item that may come, but for those
    that are `free`."""

    def __init__(self, *items: tuple[int, object], free: int = 0):
        self.items, self.go, self.ended = items, threading.Semaphore(free), threading.Event()

    def check(self, request: Request) -> None: ...

    def stream_batch(self, requests, *, cancelled, session, address, waiting, **_):
        self.session, self.address = session, address
        try:
            for index, item in self.items:
                while not self.go.acquire(timeout=0.01):
                    if cancelled():
                        return
                if isinstance(item, int):
                    waiting(index, item)
                else:
                    yield index, item
        finally:
            self.ended.set()


def said(text: str) -> Step:
    return Step(token=1, text=text, weights=None)


def answer_of(text: str) -> Generation:
    return Generation(text, ["x"], [float("nan")], None, "eos", 7, 3, 0.5, 0.25)


def go_on(system: Steps, stream, wanted: object) -> None:
    """Let the next item come and read up to it; a heartbeat says the one before again."""
    system.go.release()
    seen = [next(stream)]
    while seen[-1] != wanted:
        assert len(seen) < 20, seen
        seen.append(next(stream))


def test_a_stream_says_its_place_then_the_text_so_far_and_only_the_end_says_the_rest():
    items = (2, 0, said("a"), said(""), said("b"), answer_of("ab"))
    system = Steps(*[(0, item) for item in items])
    stream = streamed(system, Request("hi", owner="me"), address="10.0.0.9")
    for item in (("", {"place": 2}), ("", {}), ("a", {}), ("a", {}), ("ab", {})):
        go_on(system, stream, item)
    assert (system.session, system.address) == ("me", "10.0.0.9")
    system.go.release()
    *before, (text, told) = stream
    assert {one for one, _ in before} <= {"ab"}, "the answer may be here a moment before the end"
    assert text == "ab" and told["finish_reason"] == "eos"
    assert told["adapters"] == [{"name": "x", "score": None}]


def test_a_search_tells_its_step_while_it_runs():
    found = Fitting("lorahub", ("dart",), ("0",), 3, 40, (1.5,), 1.25, 2.0, 0.5)

    class Searching(Steps):
        def stream_batch(self, requests, *, fitting, **how):
            fitting(0, found)
            yield from super().stream_batch(requests, **how)

    system = Searching((0, replace(answer_of("ab"), fitted=found)))
    stream = streamed(system, Request("hi", method="lorahub", examples=[("a", "b")]))
    text, told = next(stream)
    assert text == "" and told["fitting"]["step"] == 3
    assert told["fitting"]["weights"] == [{"name": "dart", "weight": 1.5}]
    system.go.release()
    *_, (_, last) = stream
    assert last["fitted"] == told["fitting"]


def test_a_batch_says_the_answers_so_far_in_order():
    system = Steps((1, said("b")), (1, answer_of("b")), (0, answer_of("a")), free=2)
    stream = batched(system, ["one", "two"], {}, owner=None)
    first = next(rows for rows in stream if rows[1] is not None)
    assert first[0] is None and first[1]["text"] == "b"
    system.go.release()
    *_, last = stream
    assert [row["text"] for row in last] == ["a", "b"]


def too_long(request: Request) -> str:
    """Of a prompt that is known to be bad only once it is prepared."""
    return f"The prompt {request.prompt!r} is too long." * ("long" in request.prompt)


@pytest.mark.parametrize("bad", [(), (0,), (3,), (1, 4), (2, 3), range(5)])
def test_a_prompt_that_is_refused_once_it_is_prepared_has_its_sentence_in_its_place(bad):
    rows = [f"long {n}" if n in bad else f"short {n}" for n in range(5)]
    *_, told = batched(FakeRamole(length=2, refuses=too_long), [*rows, 7], {}, owner=None)
    for n, one in enumerate(told[:5]):
        refused = {"error": f"The prompt 'long {n}' is too long."}
        assert one == refused if n in bad else one["text"] == "The boats "
    assert told[5] == {"error": "prompt=7; give a text."}


class Breaks(FakeRamole):
    """Answers its first request, and breaks off in the middle of the others."""

    def stream_batch(self, requests, **how):
        self.requests += requests
        yield from ((n, said(request.prompt)) for n, request in enumerate(requests))
        yield 0, answer_of(requests[0].prompt)
        if len(requests) > 1:
            raise RamoleError("No number.")


def test_what_was_answered_before_a_call_broke_is_not_asked_again():
    system = Breaks()
    *_, told = batched(system, ["a", "b", "c"], {}, owner=None)
    assert [one["text"] for one in told] == ["a", "b", "c"]
    assert [one["token_ids"] for one in told] == [[1]] * 3, "no token of the calls before"
    assert [request.prompt for request in system.requests] == ["a", "b", "c", "b", "c"]


class Fills(FakeRamole):
    """Is busy from its `free`th call on."""

    free = 0

    def stream_batch(self, requests, **how):
        if self.batches == self.free:
            raise Busy("128 requests wait already.")
        yield from super().stream_batch(requests, **how)


def test_a_batch_that_finds_no_place_is_told_so_and_keeps_what_it_has():
    for answers in (streamed(Fills(), Request("hi")), batched(Fills(), ["a"], {}, owner=None)):
        with pytest.raises(Busy, match="128 requests wait"):
            list(answers)
    system = Fills(length=2, refuses=too_long)
    system.free = 2
    *_, (one, two) = batched(system, ["a", "long"], {}, owner=None)
    assert one["text"] == "The boats " and two == {"error": "128 requests wait already."}


def test_a_client_that_goes_away_frees_its_row():
    system = Steps((0, said("a")), (0, answer_of("a")), free=1)
    stream = streamed(system, Request("hi"))
    next(stream)
    stream.close()
    assert system.ended.wait(60)


def test_ask_describes_the_systems_own_methods_and_options():
    ask = ask_endpoint(lambda said, request: iter([said]), FakeRamole(options=OPTIONS))
    assert next(ask("hi", "base", request=None, k=2)) == {"prompt": "hi", "method": "base", "k": 2}
    told = ask.__doc__ or ""
    assert "ramole_plus" in told and "arrow" in told and "{" not in told
    assert "mixture: warmth=0.5 (How warm the mixture is; from 0 to 2)" in told
