"""A server that is told to end does so soon, whoever holds a connection to it."""

import signal
import threading

import httpx

from tests.support.pool_fakes import write_sample
from tests.support.serving import fake


def test_an_open_connection_does_not_hold_a_server_that_is_told_to_end(tmp_path, monkeypatch):
    """A question that waits for the model is one; a page that is open is another."""
    monkeypatch.setenv("GATE", str(tmp_path / "never"))
    monkeypatch.setenv("CLOSES_LATE", "yes")
    write_sample(tmp_path / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
    with fake(tmp_path) as server:
        url = f"{server.url}/gradio_api/call/v2/ask"
        event = httpx.post(url, json={"prompt": "a b"}, timeout=30).json()["event_id"]
        connected, cut = threading.Semaphore(0), []

        def listen(path: str) -> None:
            try:
                with httpx.stream("GET", f"{server.url}/gradio_api/{path}", timeout=120) as lines:
                    connected.release()
                    for _ in lines.iter_lines():
                        pass
            except httpx.HTTPError:
                pass
            cut.append(path)

        listening: list[threading.Thread] = []
        for path in (f"call/ask/{event}", "heartbeat/abcdefgh"):
            listening.append(threading.Thread(target=listen, args=[path], daemon=True))
            listening[-1].start()
        assert all(connected.acquire(timeout=60) for _ in listening) and not cut
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        for thread in listening:
            thread.join(60)
        assert len(cut) == 2
        assert "Traceback" not in server.log.read_text()
