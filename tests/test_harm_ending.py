"""A server that is told to end does so soon, whoever holds a connection to it."""

import signal
import threading
import time

import httpx

from tests.pool_fakes import write_sample
from tests.serving import fake


def test_an_open_connection_does_not_hold_a_server_that_is_told_to_end(tmp_path, monkeypatch):
    """A question that waits for the model is one; a page that is open is another."""
    monkeypatch.setenv("LOAD_SECONDS", "60")
    write_sample(tmp_path / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
    with fake(tmp_path) as server:
        url = f"{server.url}/gradio_api/call/v2/ask"
        event = httpx.post(url, json={"prompt": "a b"}, timeout=30).json()["event_id"]
        heard, cut = threading.Event(), []

        def listen(path: str) -> None:
            try:
                with httpx.stream("GET", f"{server.url}/gradio_api/{path}", timeout=60) as lines:
                    for _ in lines.iter_lines():
                        heard.set()
            except httpx.HTTPError:
                pass
            cut.append(time.monotonic())

        listening: list[threading.Thread] = []
        for path in (f"call/ask/{event}", "heartbeat/abcdefgh"):
            listening.append(threading.Thread(target=listen, args=[path], daemon=True))
            listening[-1].start()
        assert heard.wait(30)
        time.sleep(0.5)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        for thread in listening:
            thread.join(10)
        assert len(cut) == 2 and began < min(cut)
        assert max(cut) - began < 4.5, "Gradio alone waits 5 seconds for its connections"
        assert "Traceback" not in server.log.read_text()
