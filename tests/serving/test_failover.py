"""Many engines answer as one does: whichever is asked, and whatever becomes of it meanwhile."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from ramole_core import Generation, Ramole, RamoleError, Request, Settings, Step
from ramole_core.base.shapes import read_shapes
from ramole_core.errors import Busy
from ramole_core.serving import remote_stream
from ramole_core.serving.engine_server import EngineServer
from ramole_core.serving.opening import engines_over
from tests.core.test_ramole import TASKS, hold_until_cancelled, write_lora
from tests.support.serving import wait_until
from tests.support.thread_fleet import ThreadFleet

TIMES = {"seconds": 0.0, "first_token_seconds": 0.0, "extra": {}}
"""Of an answer: what is another number each time."""


@pytest.fixture(scope="module")
def pair(tiny_llama, tmp_path_factory):
    """The system in one process, and the same over two engines."""
    root = tmp_path_factory.mktemp("serving")
    said = {
        "base_model": str(tiny_llama),
        "quantization": "none",
        "dtype": "float32",
        "device": "cpu",
        "adapters_dir": root / "adapters",
        "max_batch": 3,
        "max_new_tokens": 40,
    }
    (root / "adapters").mkdir()
    near = Settings(**said, data_dir=root / "near")
    far = Settings(**said, data_dir=root / "far", store_url=str(root / "store"))
    shapes = read_shapes(tiny_llama)
    servers = {}
    for name in ("a", "b"):
        own = far.model_copy(update={"data_dir": root / name})
        servers[name] = EngineServer(own)
    fleet = ThreadFleet(servers)
    with Ramole(near) as alone, Ramole(far, engines=engines_over(fleet)) as many:
        for seed, (name, examples) in enumerate(TASKS.items()):
            folder = write_lora(root / "files" / name, shapes, rank=2 + seed, seed=seed)
            for one in (alone, many):
                one.pool.add(folder, name=name, examples=examples)
        many.load()
        yield alone, many, fleet
    for server in servers.values():
        server.close()


@pytest.fixture(autouse=True)
def all_alive(pair):
    fleet = pair[2]
    fleet.servers = {key.partition("#")[0]: one for key, one in fleet.servers.items()}
    fleet.dead.clear()
    fleet.jobs.clear()
    fleet.kills, fleet.replies = [], []
    fleet.revive, fleet.loses_cancelled = True, False


def answered(ramole, request):
    steps, stream = [], ramole.stream(request)
    while True:
        try:
            steps.append(next(stream))
        except StopIteration as end:
            return steps, end.value


def same(one, other) -> bool:
    """To the bit, arrays included."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other, equal_nan=True)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Step) or hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and same(
            list(vars(one).values()), list(vars(other).values())
        )
    return one == other or (one != one and other != other)


def check_same(alone, many, request):
    expected, whole = answered(alone, request)
    steps, answer = answered(many, request)
    assert [step.token for step in steps] == [step.token for step in expected]
    assert same(steps, expected)
    assert same(replace(answer, **TIMES), replace(whole, **TIMES))
    return answer


REQUESTS = [
    Request("Will it rain in Oslo?", method="mixture", max_new_tokens=12, ignore_eos=True),
    Request("A verse about rain", method="ramole_plus", max_new_tokens=9, abstain=False),
    Request("Bake me a cake", method="base", max_new_tokens=7, temperature=1.3, seed=4),
    Request(
        "Multiply 3 by 4",
        method="mixture",
        adapters=["sums", "poems"],
        max_new_tokens=14,
        temperature=0.9,
        top_p=0.9,
        seed=11,
        ignore_eos=True,
        prefix_ids=[5, 9, 12],
        without=[("poems", 1, None)],
    ),
    Request(
        "And tomorrow?",
        method="fusion",
        history=[("Will it rain?", "No.", ["weather"]), ("Sure?", "Yes.", [])],
        max_new_tokens=8,
        later_weights={"weather": 0.3},
        adapters=["weather", "cooking"],
        prefix_ids=[7],
        ignore_eos=True,
    ),
    Request("Rhyme on snow", method="selection", max_new_tokens=6, trace=False, system="Be short."),
    Request(
        "A verse as JSON",
        method="mixture",
        max_new_tokens=14,
        temperature=1.2,
        seed=5,
        top_k=30,
        repetition_penalty=1.2,
        frequency_penalty=0.3,
        json_schema={"type": "object"},
        logprobs=2,
    ),
    Request(
        "Bake",
        method="base",
        raw=True,
        prompt_ids=[5, 9, 12, 70],
        logprobs=1,
        prompt_logprobs=True,
        max_new_tokens=5,
        ignore_eos=True,
    ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.prompt)
def test_an_engine_elsewhere_answers_to_the_bit_as_one_here(pair, request_):
    alone, many, fleet = pair
    check_same(alone, many, request_)
    assert len(fleet.jobs) == 1


@given(which=st.integers(0, len(REQUESTS) - 1), kills=st.lists(st.integers(0, 8), max_size=4))
@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
def test_killed_at_any_token_the_stream_goes_on_with_the_same(pair, which, kills):
    """No token twice, none another one, and the trace of the whole answer."""
    alone, many, fleet = pair
    fleet.jobs.clear()
    fleet.kills = list(kills)
    answer = check_same(alone, many, REQUESTS[which])
    died = len(fleet.jobs) - 1
    fleet.kills = []
    assert answer.extra.get("moves", 0) == died
    assert died <= len(kills)


def test_every_token_of_an_answer_is_a_place_to_die(pair):
    alone, many, fleet = pair
    request = replace(REQUESTS[3], max_new_tokens=10)
    tokens = [step.token for step in answered(alone, request)[0]]
    for place in range(len(tokens) + 1):  # the last one: all tokens came, and their answer did not
        fleet.kills, fleet.jobs = [place], []
        check_same(alone, many, request)
        assert len(fleet.jobs) == 2
        assert list(fleet.jobs[-1][1].streamed_ids) == tokens[:place]


@pytest.mark.parametrize("how", ["eos", "stop"])
def test_an_answer_that_had_ended_ends_again(pair, how):
    alone, many, fleet = pair
    request = replace(REQUESTS[2], max_new_tokens=40, seed=3, temperature=2.0)
    if how == "stop":
        text = answered(alone, replace(request, ignore_eos=True))[1].text
        requests = [replace(request, stop=[text[4:6]], ignore_eos=True)]
    else:
        requests = [replace(request, seed=seed) for seed in range(200)]
    ends = ((one, *answered(alone, one)) for one in requests)
    request, steps = next((r, steps) for r, steps, end in ends if end.finish_reason == how)
    fleet.kills = [len(steps)]
    assert check_same(alone, many, request).extra["moves"] == 1


def test_a_seed_that_nobody_gave_is_the_same_at_both_engines(pair):
    alone, many, fleet = pair
    request = replace(REQUESTS[2], seed=None)
    fleet.kills = [3]
    steps, _ = answered(many, request)
    first, second = (job.request.seed for _, job in fleet.jobs)
    expected, _ = answered(alone, replace(request, seed=first))
    assert [s.token for s in steps] == [s.token for s in expected] and first == second is not None
    drawn = {tuple(s.token for s in answered(many, request)[0]) for _ in range(4)}
    assert len(drawn) > 1


def test_a_whole_list_survives_the_loss_of_its_engines(pair):
    alone, many, fleet = pair
    requests = [replace(REQUESTS[n % 3], seed=n, k=1 + n % 3) for n in range(9)]
    expected = alone.generate(requests)
    fleet.kills = [2, -1, 5, -1, 0, 1]
    found = many.generate(requests)
    assert len(fleet.jobs) > len(requests)
    for one, other in zip(found, expected, strict=True):
        assert same(replace(one, **TIMES), replace(other, **TIMES))


def test_a_search_for_weights_is_not_made_again_once_it_is_over(pair):
    alone, many, fleet = pair
    request = Request(
        "What is 3 plus 4?",
        method="lorahub",
        adapters=["sums", "weather"],
        examples=[("1 plus 1?", "2"), ("2 plus 5?", "7")],
        options={"steps": 3},
        max_new_tokens=6,
        ignore_eos=True,
    )
    fleet.kills = [2]
    expected, whole = answered(alone, request)
    steps, answer = answered(many, request)
    assert [s.token for s in steps] == [s.token for s in expected]
    assert len(fleet.jobs) == 2
    first, second = (job.turns[-1].request for _, job in fleet.jobs)
    assert first.examples and not second.examples
    assert second.weights == whole.fitted.weights == answer.fitted.weights
    answered(many, request)
    assert fleet.jobs[-1][1].turns[-1].request.weights, "it is remembered"
    near = alone.explain(request, 5)
    far = many.explain(request, 5)
    assert near.mixture == far.mixture and near.base == far.base


def test_one_that_is_cancelled_ends_with_what_it_has(pair, monkeypatch):
    _, many, fleet = pair
    for server in fleet.servers.values():
        hold_until_cancelled(server._engines, monkeypatch, tokens=5)
    request = replace(REQUESTS[0], max_new_tokens=40)
    told, ending = [], []
    for _, item in many.stream_batch([request, request], cancelled=lambda: len(told) > 4):
        (ending if isinstance(item, Generation) else told).append(item)
    assert {item.finish_reason for item in ending} == {"cancelled"} and len(ending) == 2


def test_one_whose_engine_is_lost_while_it_is_cancelled_goes_to_no_other(pair):
    _, many, fleet = pair
    fleet.loses_cancelled = True
    request, told = replace(REQUESTS[0], max_new_tokens=40), []
    for _, item in many.stream_batch([request], cancelled=lambda: len(told) > 4):
        told.append(item)
    assert told[-1].finish_reason == "cancelled" and told[-1].new_tokens < 40
    assert len(fleet.jobs) == 1


def test_one_that_fails_at_its_engine_ends_alone_and_is_raised_at_the_end(pair):
    alone, many, fleet = pair
    fleet.replies = [RamoleError("This one needs more room.")]
    came = []
    with pytest.raises(RamoleError, match="needs more room"):
        for index, item in many.stream_batch([REQUESTS[0], REQUESTS[2]]):
            came.append((index, item))
    assert {index for index, _ in came} == {1}
    assert came[-1][1].text == alone.generate([REQUESTS[2]])[0].text
    assert not many.engines._placing._load


def test_who_goes_leaves_nothing_behind(pair):
    _, many, fleet = pair
    stream = many.stream(replace(REQUESTS[0], max_new_tokens=40))
    next(stream)
    stream.close()
    assert not many.engines._placing._load
    for server in fleet.servers.values():
        wait_until(lambda server=server: server._engines.idle)


def test_a_request_that_cannot_be_is_told_before_it_is_sent(pair):
    _, many, fleet = pair
    with pytest.raises(RamoleError, match="no adapter"):
        answered(many, Request("hello", adapters=["nobody"], max_new_tokens=5))
    with pytest.raises(RamoleError, match="prefix_ids has 99999"):
        answered(many, Request("hello", method="base", prefix_ids=[99999], max_new_tokens=5))
    with pytest.raises(RamoleError, match="other processes"):
        many.base  # noqa: B018
    assert fleet.jobs == []


def test_one_that_ends_every_engine_is_given_up(pair):
    _, many, fleet = pair
    fleet.kills = [0] * 30
    with pytest.raises(RamoleError, match="engines ended while"):
        answered(many, REQUESTS[0])
    assert len(fleet.jobs) == remote_stream.MAX_LOST + 1


def test_without_an_engine_it_waits_and_says_so_in_the_end(pair, monkeypatch):
    _, many, fleet = pair
    fleet.revive, fleet.kills = False, [2, 1]
    monkeypatch.setattr(remote_stream, "MAX_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(remote_stream, "RETRY_SECONDS", 0.05)
    with pytest.raises(RamoleError, match="No engine has answered"):
        answered(many, REQUESTS[0])


def test_a_crowded_engine_is_told_to_the_first_and_waited_for_by_others(pair, monkeypatch):
    alone, many, fleet = pair
    monkeypatch.setattr(remote_stream, "RETRY_SECONDS", 0.05)
    busy = Busy("The server is busy.")
    fleet.replies = [busy]
    with pytest.raises(Busy):
        answered(many, REQUESTS[0])
    fleet.replies = [None, busy, busy]
    requests = [REQUESTS[0], REQUESTS[2]]
    found = many.generate(requests)
    assert not fleet.replies
    assert [one.text for one in found] == [one.text for one in alone.generate(requests)]


def upload(pair, folder: Path, name: str, *, owner: str | None = None):
    """An adapter more, and a request that asks for it alone."""
    many = pair[1]
    shapes = read_shapes(Path(many.settings.base_model))
    files = write_lora(folder / name, shapes, rank=3, seed=sum(name.encode()))
    card = many.pool.add(files, name=name, owner=owner, examples=[name])
    asked = Request(name, adapters=[name], owner=owner, method="fusion", max_new_tokens=4)
    return card, asked


def test_an_adapter_that_came_is_answered_with_at_once_and_one_that_went_is_nowhere(pair, tmp_path):
    _, many, fleet = pair
    card, request = upload(pair, tmp_path, "late", owner="me")
    asked = set()
    for key in fleet.servers:
        fleet.dead = set(fleet.servers) - {key}
        assert answered(many, request)[1].adapters == ["late"]
        asked.add(fleet.jobs[-1][0])
    fleet.dead.clear()
    assert asked == set(fleet.servers)
    roots = [many.settings.data_dir.parent / name for name in ("a", "b", "store")]
    assert all(list(root.rglob(f"*{card.content}*")) for root in roots)
    many.pool.remove("late", owner="me")
    assert not any(list(root.rglob(f"*{card.content}*")) for root in roots)


def test_an_engine_that_starts_forgets_what_was_removed_meanwhile(pair, tmp_path):
    _, many, fleet = pair
    card, request = upload(pair, tmp_path, "gone")
    fleet.dead = {"b"}
    kept = many.pool.card("weather").content
    for one in (request, replace(request, adapters=["weather"])):
        answered(many, one)
    fleet.dead = {"a"}
    many.pool.remove("gone")  # `a` is not there to hear of it
    own = many.settings.model_copy(update={"data_dir": many.settings.data_dir.parent / "a"})
    units = own.data_dir / "units"
    assert list(units.glob(f"{card.content}*"))
    EngineServer(own).close()
    assert not list(units.glob(f"{card.content}*")) and list(units.glob(f"{kept}*"))


def test_all_engines_hear_of_the_page_whose_requests_they_have(pair):
    _, many, fleet = pair
    answered(many, REQUESTS[0])
    page = fleet.jobs[-1][1].page
    assert len(page) == 32
    fleet.told.clear()
    wait_until(lambda: len(fleet.told) >= 2)
    assert {(key, name, args) for key, name, args in fleet.told} == {
        (key, "here", (page,)) for key in fleet.keys()
    }


def test_what_is_counted_is_the_sum_of_all(pair):
    alone, many, fleet = pair
    answered(many, REQUESTS[0])
    many.engines._read_stats()  # those that earlier tests ended are past now
    many.engines._past.clear()
    many.engines._read_stats()
    stats = many.stats()
    assert stats["engines"] == 2
    assert stats["finished"] == sum(s.stats()["finished"] for s in fleet.servers.values()) > 0
    alone.load()
    assert many.exact and many.model_facts == alone.model_facts


def test_a_refused_start_leaves_the_fleet_to_the_next_one(pair, tmp_path, monkeypatch):
    _, many, fleet = pair
    closed: list[int] = []
    monkeypatch.setattr(fleet, "close", lambda: closed.append(1))
    settings = many.settings.model_copy(update={"data_dir": tmp_path})
    with Ramole(settings, engines=engines_over(fleet)) as other:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("ramole_core.base.files.weights_checksum", lambda *_, **__: "x")
            with pytest.raises(RamoleError, match="other weights"):
                other.load()
        assert not closed
        other.load()
    assert closed
