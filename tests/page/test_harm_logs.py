"""What people write reaches no log: no line, no traceback, no warning, no word of the server's."""

import io
import json
import logging
import re
import socket
import threading
import warnings

import httpx
import pytest

from tests.support.pool_fakes import write_adapter, zipped
from tests.support.workers import python
from ui.api.mcp import TOOLS
from ui.serve import warn_of_open_index
from ui.watch.quiet import PATTERN, Quiet, one_line

SECRET = "zanzibar"
PROMPT = f"{SECRET} quokka"
CALL = {"prompt": PROMPT}
BAD = [
    ("POST", "gradio_api/call/v2/ask", {"json": {"promt": PROMPT}}),
    ("POST", "gradio_api/call/v2/ask", {"json": {**CALL, "zanzibar": 1}}),
    ("POST", "gradio_api/call/v2/ask", {"json": [PROMPT]}),
    ("POST", "gradio_api/call/v2/ask", {"content": f'{{"prompt": "{PROMPT}'}),
    ("POST", f"gradio_api/call/v2/{SECRET}", {"json": CALL}),
    ("POST", f"gradio_api/call/{SECRET}", {"json": {"data": [PROMPT]}}),
    ("POST", "gradio_api/call/ask", {"json": {"data": PROMPT}}),
    ("POST", "gradio_api/queue/join", {"json": {"data": [PROMPT], "fn_index": 10**6}}),
    ("POST", "gradio_api/run/ask", {"json": {"data": [PROMPT, PROMPT]}}),
    ("POST", f"gradio_api/api/{SECRET}", {"json": {"data": [PROMPT]}}),
    ("POST", "gradio_api/upload", {"content": PROMPT, "headers": {"content-type": "multipart/x"}}),
    ("GET", f"gradio_api/file={SECRET}", {}),
    ("GET", f"gradio_api/call/ask/{SECRET}", {}),
    ("POST", "v1/chat/completions", {"json": {"model": SECRET, "messages": [PROMPT]}}),
    ("POST", "v1/chat/completions", {"content": PROMPT}),
    ("POST", f"v1/{SECRET}", {}),
    ("GET", f"{SECRET}?{SECRET}", {"headers": {"host": f"{SECRET}.example"}}),
    ("POST", "gradio_api/upload", {"headers": {"origin": f"http://{SECRET}.example"}}),
]
"""Calls that no handler of ours can take, each with words of its own in some place."""
QUEUED = [
    [PROMPT],
    [PROMPT, {"a": PROMPT}],
    [{"path": PROMPT}],
    [[PROMPT], PROMPT, PROMPT],
    [PROMPT, "ramole", 0],
    [PROMPT] * 40,
]
"""Arguments that Gradio takes, and whose faults come later."""


def test_an_index_beyond_this_machine_is_warned_of(server, caplog):
    assert "whoever reaches index.example can read and change the index" in server.log.read_text()
    for url in (None, "http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"):
        warn_of_open_index(url)
    assert caplog.text == ""


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_badly_formed_call_is_one_line_without_its_words(server, number):
    method, path, said = BAD[number]
    before = server.log.read_text()
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.3")  # no proxy, which names any host
    with (
        httpx.Client(transport=elsewhere, timeout=60) as client,
        client.stream(method, f"{server.url}/{path}", **said) as told,
    ):
        status = told.status_code
        text = "" if "call/ask/" in path else told.read().decode()
    new = server.log.read_text()[len(before) :]
    assert status >= 400 or "call/ask/" in path, text
    assert SECRET not in new and "Traceback" not in new, new
    assert len([line for line in new.splitlines() if line and line[0] in "{WE "]) <= 2, new
    assert status < 500 or "gradio_api" in path, text


def test_a_call_without_an_endpoint_or_with_other_parameters_is_the_callers_fault(server):
    for path, said, wrong in (
        ("ask", {"promt": "a"}, "This endpoint has no parameter promt; /gradio_api/info"),
        ("ask", {"k": 2}, "The parameter prompt is missing; /gradio_api/info"),
        ("nothing", CALL, "no such endpoint, or its parameters"),
    ):
        told = httpx.post(f"{server.url}/gradio_api/call/v2/{path}", json=said, timeout=30)
        assert told.status_code == 422 and wrong in told.text
    assert server.log.read_text().count("A request failed: ") >= 2


def call(server, endpoint: str, data: list) -> str:
    url = f"{server.url}/gradio_api/call/{endpoint}"
    sent = httpx.post(url, json={"data": data}, timeout=30)
    if sent.status_code != 200:
        return sent.text
    return httpx.get(f"{url}/{sent.json()['event_id']}", timeout=30).text


def test_what_was_asked_and_uploaded_is_in_no_line_whatever_comes_of_it(server, tmp_path):
    before = len(server.log.read_text())
    for endpoint in TOOLS:
        for data in QUEUED:
            call(server, endpoint, data)
    url = f"{server.url}/gradio_api/call/v2/ask"
    event = httpx.post(url, json=CALL, timeout=30).json()["event_id"]
    assert PROMPT in httpx.get(f"{url}/{event}", timeout=30).text, "and a good one was answered"
    archive = zipped(write_adapter(tmp_path / "made"), tmp_path / f"{SECRET}.zip")
    for content in (archive.read_bytes(), b"no zip"):
        files = {"files": (archive.name, content)}
        (path,) = httpx.post(f"{server.url}/gradio_api/upload", files=files, timeout=30).json()
        call(server, "add_adapter", [{"path": path, "meta": {"_type": "gradio.FileData"}}, SECRET])
    said = {"model": "ramole", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    assert SECRET in httpx.post(f"{server.url}/v1/chat/completions", json=said, timeout=30).text
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(f"{SECRET}\r\n{SECRET}: \x00\r\n\r\n".encode())
        raw.recv(100)
    log = server.log.read_text()[before:]
    assert SECRET not in log and "Traceback" not in log, log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    outcomes = {line["outcome"] for line in lines}
    assert {"length", "refused"} <= outcomes
    others = [line for line in log.splitlines() if line and not line.startswith("{")]
    pattern = (
        r"((INFO|WARNING) (ui|uvicorn)[\w.]*: "
        r"|ERROR uvicorn.error: ASGI callable returned without completing response)"
    )
    assert [line for line in others if not re.match(pattern, line)] == []


FIRST = """
import logging, sys
from pathlib import Path
import gradio as gr
import uvicorn
from tests.support.pool_fakes import PoolRamole
from ui.serve import launch
from ui.watch.quiet import quiet_logs

def listen(page, **options):
    uvicorn.Config(lambda: None)
    try:
        raise ValueError("zanzibar")
    except ValueError:
        gr.queueing.traceback.print_exc()
        logging.getLogger("uvicorn.error").exception("It failed.")
    sys.exit()

gr.Blocks.launch = listen
quiet_logs()
launch(gr.Blocks(), PoolRamole(Path(sys.argv[1])))
"""


def test_the_first_call_that_comes_while_the_server_begins_is_in_no_line_either(tmp_path):
    done = python("-c", FIRST, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert SECRET not in done.stderr and done.stderr.count("ValueError") == 2, done.stderr


def logged(work) -> str:
    """What a logger with our formatter writes of the error that `work` raises."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(Quiet(PATTERN))
    log = logging.getLogger("tests.quiet")
    log.addHandler(handler)
    try:
        work()
    except Exception as error:
        log.exception("It failed.")
        assert SECRET not in one_line(error)
    finally:
        log.removeHandler(handler)
    return out.getvalue()


def fails_twice() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise KeyError(SECRET) from error


def test_a_traceback_has_types_and_places_of_an_error_and_its_cause():
    with pytest.raises(KeyError) as told:
        fails_twice()
    plain = logging.Formatter(PATTERN).formatException((KeyError, told.value, told.tb))
    assert SECRET in plain, "or this shows nothing"
    text = logged(fails_twice)
    assert SECRET not in text and "It failed." in text
    assert "ValueError" in text and "KeyError" in text and "test_harm_logs.py:" in text
    assert text.index("ValueError") < text.index("KeyError")


def test_threads_and_warnings_are_one_line_too(monkeypatch, caplog):
    from ui.watch import quiet

    monkeypatch.setattr(threading, "excepthook", quiet._thread_failed)
    thread = threading.Thread(target=int, args=[SECRET], name="made-up")
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = quiet._warned
        warnings.warn(f"Received {SECRET}", stacklevel=1)
    failed, warned = caplog.records
    assert failed.getMessage() == "The thread 'made-up' failed."
    assert SECRET not in warned.getMessage() and "test_harm_logs.py" in warned.getMessage()
