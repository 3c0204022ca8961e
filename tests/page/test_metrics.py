"""`/metrics`: what it counts, who may read it, and that nobody's words are in it."""

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import handle_file
from prometheus_client.parser import text_string_to_metric_families

from ramole_core import Busy, Generation, RamoleError, Request
from tests.support.pool_fakes import write_adapter, zipped
from tests.support.serving import client_of
from ui.metrics import metrics_routes
from ui.middleware.refusal import Refused
from ui.session.accounts import Accounts
from ui.watch import events
from ui.watch.request_record import RequestRecord, line_of, reason_of, record_of, writing

PROMPT = "zanzibar quokka"


def numbers_of(text: str) -> dict[str, float]:
    """Every sample by its name and labels, as they are written."""
    return {
        sample.name + "".join(f"{{{k}={v}}}" for k, v in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def reader(address: str = "127.0.0.1") -> httpx.Client:
    """Somebody on this machine; 127.0.0.1 is a named proxy, too."""
    return httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=30)


def read(server, client: httpx.Client, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(f"{server.url}/metrics", headers=named)


def numbers(server) -> str:
    return httpx.get(f"{server.url}/metrics", timeout=30).text


def test_what_happened_is_counted_and_nobodys_words_are_in_it(server, tmp_path):
    archive = zipped(write_adapter(tmp_path / "mine", seed=3), tmp_path / "zanzibar.zip")
    before, uploads = numbers_of(numbers(server)), server.log.parent / "data" / "uploads"
    client = client_of(server.url)
    client.predict(handle_file(str(archive)), "zanzibar", None, api_name="/add_adapter")
    client.predict(f"{PROMPT} four five", api_name="/ask")
    client.predict([PROMPT, f"{PROMPT} three"], api_name="/ask_batch")
    client.predict(PROMPT, api_name="/retrieve")
    with pytest.raises(Exception, match="k"):
        client.predict(PROMPT, k=0, api_name="/ask")
    with reader("127.0.0.3") as other:
        foreign = other.get(server.url, headers={"host": "zanzibar.example"})
        assert foreign.status_code == 403
    text = numbers(server)
    after = numbers_of(text)
    held = len(list(uploads.glob("*/*")))
    client.close()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["ramole_requests_total{outcome=length}"] == 3
    assert grown["ramole_requests_total{outcome=refused}"] == 2
    assert grown["ramole_refusals_total{reason=invalid}"] == 1
    assert grown["ramole_refusals_total{reason=host}"] == 1
    assert grown["ramole_answers_total{method=ramole_plus}"] == 3
    assert grown["ramole_answer_tokens_total"] == 4 + 2 + 3
    assert grown["ramole_first_token_seconds_count"] == 3
    assert grown["ramole_token_seconds_count"] == 3 and "_created" not in text
    assert grown["ramole_retrieval_seconds_count"] == 1, "the fake answers tell no time of theirs"
    added = [n for name, n in grown.items() if name.startswith("ramole_uploads_total") and n]
    assert added == [1]
    assert grown["ramole_http_responses_total{status=4xx}"] >= 1
    assert after["ramole_adapters{kind=sample}"] == 2
    assert after["ramole_adapters{kind=upload}"] == held >= 1
    assert after["ramole_ready"] == 1 and after["process_resident_memory_bytes"] > 10**6
    assert after["ramole_requests_running"] == 0
    assert "zanzibar" not in text and "127.0.0" not in text and "session" not in text


def test_a_line_a_request_says_counts_and_no_words(server):
    client = client_of(server.url)
    client.predict(f"{PROMPT} three", api_name="/ask")
    client.close()
    lines = [json.loads(x) for x in server.log.read_text().splitlines() if x.startswith("{")]
    assert set(lines[-1]) == {"time", *RequestRecord.__dataclass_fields__}
    assert lines[-1]["outcome"] == "length" and lines[-1]["new_tokens"] == 3
    assert datetime.fromisoformat(lines[-1]["time"]).tzinfo is not None
    assert "zanzibar" not in server.log.read_text()


def test_who_may_read_it(server):
    with reader() as proxy, reader("127.0.0.3") as other:
        assert read(server, other).status_code == 200
        for visitor in ("203.0.113.9", "127.0.0.1"):
            told = read(server, other, x_forwarded_for=visitor)
            assert told.status_code == 403, "nobody named that proxy"
        for client in (proxy, other):
            told = read(server, client, x_forwarded_proto="https")
            assert told.status_code == 403, "for whom, it does not say"
        assert read(server, proxy).status_code == 200, "somebody beside the proxy"
        for visitor, status in (("203.0.113.9", 403), ("127.0.0.3", 200), ("127.0.0.9", 200)):
            assert read(server, proxy, x_forwarded_for=visitor).status_code == status


def system(metrics: str) -> SimpleNamespace:
    return SimpleNamespace(settings=SimpleNamespace(metrics=metrics, trusted_proxies=None))


def test_it_can_be_switched_off_and_a_wrong_setting_is_a_sentence():
    assert metrics_routes(system("off"), Accounts()) == []
    with pytest.raises(RamoleError, match="RAMOLE_METRICS='my.host' is not a list of addresses"):
        metrics_routes(system("my.host"), Accounts())


ANSWER = Generation("b", ["x", "y"], [], None, "eos", 5, 7, 2.0, 0.5, {"queue": 0.25})


def test_an_answer_is_told_in_counts():
    told = record_of(Request("a secret", method="mixture"), ANSWER)
    assert (told.outcome, told.method, told.adapters, told.new_tokens) == ("eos", "mixture", 2, 7)
    assert (told.queue_seconds, told.retrieve_seconds, told.reason) == (0.25, None, None)
    line = json.loads(line_of(told, datetime.now(UTC)))
    assert "secret" not in str(line) and line["seconds"] == 2.0
    mixed = record_of(Request("a secret", mix="mine"), replace(ANSWER, method="lorahub"))
    assert mixed.method == "lorahub", "the method that answered, not the mix"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Busy("busy"), "busy"),
        (RamoleError("no"), "invalid"),
        (Refused(403, "no", reason="host"), "host"),
        (ValueError("a secret"), None),
    ],
)
def test_a_refusal_has_one_of_a_few_reasons(error, reason):
    assert reason_of(error) == reason


def test_an_error_that_passes_many_hands_is_told_once(outcomes, caplog):
    error = RamoleError("a secret")
    for one in (error, error, ValueError("a secret")):
        events.refused(one)
    assert outcomes == ["refused", "failed"] and "secret" not in caplog.text


def test_lines_are_whole_and_every_label_is_ours():
    out = io.StringIO()
    write = writing(out)
    for _ in range(3):
        write(RequestRecord("refused", "busy"))
    assert [json.loads(line)["reason"] for line in out.getvalue().splitlines()] == ["busy"] * 3
    labels = {name for one in vars(events).values() for name in getattr(one, "_labelnames", ())}
    assert labels == {"outcome", "reason", "method", "verdict", "status"}
    assert not re.search(r"session|address|prompt|name", " ".join(labels))
