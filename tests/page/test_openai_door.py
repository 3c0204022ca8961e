"""The OpenAI door through the official client, httpx and a real server with a fake system."""

import base64
import json

import httpx
import numpy as np
import pytest
from gradio_client import handle_file
from openai import (
    NOT_GIVEN,
    APIError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)

from tests.support.browser import ask_page
from tests.support.fake_ramole import WORDS
from tests.support.pool_fakes import write_adapter, zipped
from tests.support.serving import client_of, wait_until

HI = [{"role": "user", "content": "Which boats?"}]
LONG = 20_000
"""Tokens; a quarter of an hour of them, and nobody waits longer than a minute."""
SECRET = {"x-ramole-session": "a long secret of mine"}


def opened(url: str, key: str = "any", **more) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60, **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server with one row and one place in the queue, and what it said while it loaded."""
    root = tmp_path_factory.mktemp("door")
    gate = root / "gate"
    with ask_page(root, rows=1, most=1, length=LONG, step_seconds=0.05, gate=gate) as server:
        with opened(server.url) as client:
            with pytest.raises(InternalServerError) as early:
                client.chat.completions.create(model="base", messages=HI)
            with pytest.raises(NotFoundError):
                client.chat.completions.create(model="gpt-4o", messages=HI)
            gate.touch()
            health = f"{server.url}/health"
            wait_until(lambda: httpx.get(health, timeout=60).json()["status"] == "ok")
            yield server.url, client, early.value


@pytest.fixture
def client(place):
    return place[1]


def ask(client, *, length=8, messages=HI, model="ramole_plus", **more):
    return client.chat.completions.create(model=model, messages=messages, max_tokens=length, **more)


def test_while_the_model_loads_a_call_is_told_to_come_again(place):
    early = place[2]
    assert (early.status_code, early.code) == (503, "model_loading")
    assert early.response.headers["retry-after"] == "5" and "is loading" in str(early)


def test_models_are_listed_and_can_be_looked_up(client):
    listed = list(client.models.list())
    assert [client.models.retrieve(one.id) for one in listed] == listed
    assert {one.created for one in listed} == {0, 1767323045}, "adapters know when they came"
    names = {model.id for model in listed}
    assert {"ramole_plus", "base", "adapter:ant", "adapter:dog"} <= names and "ant" not in names
    assert client.models.retrieve("adapter:ant+adapter:bee").object == "model"
    with pytest.raises(NotFoundError) as told:
        client.models.retrieve("adapter:elk")
    assert (told.value.code, told.value.param) == ("model_not_found", "model")


def test_an_answer_is_whole_with_its_counts_and_adapters(client):
    answer = ask(client)
    (choice,) = answer.choices
    assert choice.message.content == "".join(WORDS) and choice.finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 8)
    used = answer.ramole["adapters"]
    assert [one["name"] for one in used] == ["ant", "bee", "cat"]
    assert [one["score"] for one in used] == [0.9, 0.7, 0.5]
    assert sum(one["weight"] for one in used) == pytest.approx(1, abs=1e-3)
    assert used[0]["weight"] > used[2]["weight"] > 0


def test_a_stream_is_the_same_answer_in_parts(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == "".join(WORDS) and len([t for t in texts if t]) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    *_, last, count = chunks
    assert last.choices[0].finish_reason == "stop" and last.usage is None
    assert [one["name"] for one in last.ramole["adapters"]] == ["ant", "bee", "cat"]
    assert count.choices == [] and count.usage.total_tokens == 10
    assert len({chunk.id for chunk in chunks}) == 1
    plain = list(ask(client, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)


def test_a_stream_is_events_that_end_with_done_and_no_proxy_keeps(place):
    body = {"model": "base", "messages": HI, "stream": True, "max_tokens": 2}
    told = httpx.post(f"{place[0]}/v1/chat/completions", json=body, timeout=60)
    assert told.headers["content-type"].startswith("text/event-stream")
    assert told.headers["x-accel-buffering"] == "no"
    events = told.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2])


def test_several_answers_of_a_prompt_come_whole_and_in_parts(client):
    several = ask(client, length=3, n=2, logprobs=True, top_logprobs=1)
    assert [choice.index for choice in several.choices] == [0, 1]
    assert {choice.message.content for choice in several.choices} == {"".join(WORDS[:3])}
    assert several.usage.completion_tokens == 6 and several.usage.prompt_tokens == 2
    first = several.choices[1].logprobs.content[0]
    assert (first.token, first.logprob, first.top_logprobs[0].token) == ("The ", -0.5, "The ")
    texts, ends = {0: "", 1: ""}, {}
    for chunk in ask(client, length=3, n=2, stream=True, logprobs=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason
            assert not choice.delta.content or choice.logprobs.content
    assert set(texts.values()) == {"".join(WORDS[:3])} and ends == {0: "stop", 1: "stop"}


def test_texts_are_continued_and_embedded(client):
    said = {"model": "base", "max_tokens": 2, "echo": True}
    told = client.completions.create(prompt=[3, 4], logprobs=1, **said)
    assert told.choices[0].text == "${here}\nThe boats " and told.object == "text_completion"
    assert told.choices[0].logprobs.token_logprobs == [None, -0.5, -0.5, -0.5]
    parts = client.completions.create(prompt="So: ", stream=True, **said)
    assert "".join(part.choices[0].text for part in parts) == "So: The boats "
    for form in ("float", "base64", NOT_GIVEN):
        said = {"model": "retriever", "encoding_format": form}
        vectors = client.embeddings.create(input=["hi", "you there"], **said)
        assert vectors.usage.prompt_tokens == 3
        found = [one.embedding for one in vectors.data]
        if form == "base64":
            found = [np.frombuffer(base64.b64decode(one), "<f4").tolist() for one in found]
        assert found == [[2.0, 0.5, 0.0], [9.0, 0.5, 0.0]]
    assert "retriever" in [model.id for model in client.models.list()]


def test_an_answer_that_is_sent_back_keeps_its_adapters(client):
    first = ask(client, model="adapter:dog").choices[0].message
    talk = [*HI, first, {"role": "user", "content": "And now?"}]
    second = ask(client, messages=talk)
    assert second.usage.prompt_tokens == 4  # two of the earlier turn
    assert second.ramole["adapters"][0]["name"] == "ant"
    assert ask(client, messages=talk, model="base").ramole["adapters"] == []
    with pytest.raises(BadRequestError, match="adapters of turn 1 of history"):
        odd = {**first.model_dump(), "ramole": {"adapters": [3]}}
        ask(client, messages=[HI[0], odd, HI[0]])


def test_what_cannot_be_done_is_said_in_openai_s_form(place, client):
    with pytest.raises(BadRequestError) as told:
        ask(client, tools=[{"type": "function", "function": {"name": "f"}}])
    assert told.value.param == "tools" and "calls no tools" in told.value.message
    with pytest.raises(BadRequestError) as told:
        ask(client, stream=True, extra_body={"ramole": {"k": 0}})
    assert told.value.param == "ramole.k"
    with pytest.raises(BadRequestError, match="The conversation has 11 turns"):
        talk = [message for _ in range(10) for message in (HI[0], {**HI[0], "role": "assistant"})]
        ask(client, stream=True, messages=[*talk, HI[0]])  # known only once it is prepared


@pytest.mark.parametrize(
    ("path", "kind", "content", "status"),
    [
        ("chat/completions", "application/json", b"{", 400),
        ("chat/completions", "application/json", b"[" * 40_000, 413),
        ("chat/completions", "application/json", b"[" * 100_000, 413),
        ("chat/completions", "application/json", b"\xff", 400),
        ("chat/completions", "application/json", b"[]", 400),
        ("chat/completions", "text/plain", b"{}", 415),
        ("chat/completions", "application/json", b" " * (2 * 2**20 + 1), 413),
        ("embeddings", "application/json", b"{}", 400),
        ("completions", "application/json", b"{}", 400),
        ("audio/speech", "application/json", b"{}", 404),
        ("", "application/json", b"{}", 404),
        ("models", "application/json", b"{}", 404),
    ],
)
def test_a_body_that_is_none_is_refused(place, path, kind, content, status):
    told = httpx.post(
        f"{place[0]}/v1/{path}", content=content, headers={"content-type": kind}, timeout=60
    )
    error = told.json()["error"]
    assert told.status_code == status and set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and "Traceback" not in told.text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_row(client, stream):
    if stream:
        answer = ask(client, length=LONG, stream=True)
        next(iter(answer))
        answer.close()
    else:
        with pytest.raises(APIError):
            ask(client, length=LONG, timeout=0.5)
    assert ask(client, length=1).usage.completion_tokens == 1  # one row: it had to be free


def test_who_waits_is_told_the_place_and_who_finds_none_to_come_again(place, client):
    with ask(client, length=LONG, stream=True) as running:
        next(iter(running))
        body = {"model": "base", "messages": HI, "stream": True, "max_tokens": 1}
        url = f"{place[0]}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=60) as waiting:
            for stream in (True, False):
                with pytest.raises(RateLimitError) as busy:
                    ask(client, stream=stream)
                assert busy.value.code == "busy" and "busy" in busy.value.message
                assert busy.value.response.headers["retry-after"] == "2"
            lines = waiting.iter_lines()
            assert any(line == ": place 1 in the queue" for line in lines)
            running.close()
            assert "data: [DONE]" in list(lines)


# Sessions and passwords


def test_uploads_are_their_session_s_and_passwords_are_asked_for(locked, tmp_path):
    mine = zipped(write_adapter(tmp_path / "mine", seed=3), tmp_path / "mine.zip")
    for key in ("any", "ann", "ann:other"):
        with opened(locked.url, key) as client, pytest.raises(AuthenticationError) as told:
            client.models.list()
        assert told.value.code == "invalid_api_key"
    models = f"{locked.url}/v1/models"
    assert httpx.get(models, timeout=60).status_code == 401
    assert httpx.get(models, auth=("ben", "other"), timeout=60).status_code == 200
    uploader = client_of(locked.url, auth=("ann", "secret"), headers=SECRET)
    uploader.predict(handle_file(mine), name="mine", api_name="/add_adapter")
    with opened(locked.url, "ann:secret", default_headers=SECRET) as client:
        names = [model.id for model in client.models.list()]
        assert names[-2:] == ["adapter:squad", "adapter:mine"]
        answer = ask(client, model="adapter:mine+adapter:squad")
        assert answer.choices[0].message.content == "Which boats?"
        assert [a["name"] for a in answer.ramole["adapters"]] == ["mine", "squad"]
    with opened(locked.url, "ben:other") as client:
        assert "adapter:mine" not in [model.id for model in client.models.list()]
        with pytest.raises(NotFoundError, match="no adapter 'mine'"):
            ask(client, model="adapter:mine")
    uploader.close()
