"""The front door on real parts: real pool and Chroma on disk, the real encoder, a tiny base."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ramole_core import Generation, Ramole, RamoleError, Request, Step
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import METHODS, Sites
from ramole_core.methods import METHOD_LIST
from ramole_core.terminal.records import answer_record
from tests.conftest import tiny_settings
from tests.support.serving import wait_until
from tests.support.tiny_methods import make_gates, make_mole, make_recovered

TASKS = {
    "weather": ["Will it rain in Oslo?", "How warm is it outside?", "Is there snow on the way?"],
    "cooking": ["How long do I boil an egg?", "A recipe for onion soup", "Season a roast chicken"],
    "sums": ["What is 3 plus 4?", "Multiply 12 by 7", "Subtract nine from twenty"],
    "poems": ["A verse about the sea", "Rhyme on autumn leaves", "A sonnet for a friend"],
}
ASK = {"max_new_tokens": 5, "ignore_eos": True}


def write_lora(folder, shapes, *, rank, seed):
    torch.manual_seed(seed)
    tensors = {}
    for path, (i, o) in shapes.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(rank, i) * i**-0.5
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(o, rank)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


MEASURED = ("weather", "cooking", "sums")
"""Tasks and adapters of the table; `poems` came later."""
LOSSES = [[0.2, 0.9, 0.5], [0.8, 0.7, 0.3], [0.9, 0.8, 0.1]]
"""The sums' adapter is the best at cooking."""


def write_table(folder, cards):
    folder.mkdir(parents=True)
    save_file({"losses": torch.tensor(LOSSES)}, folder / "lorauter.safetensors")
    adapters = [{"name": card.name, "checksum": card.content} for card in cards]
    (folder / "lorauter_config.json").write_text(json.dumps({"adapters": adapters}))


@pytest.fixture(scope="module")
def ramole(tiny_llama, tmp_path_factory):
    root = tmp_path_factory.mktemp("ramole")
    settings = tiny_settings(tiny_llama, root, max_batch=3, max_new_tokens=40)
    shapes = read_shapes(tiny_llama)
    router = {}
    for path, (i, o) in shapes.items():
        router[f"{path}.A_r"] = torch.randn(5, i)
        router[f"{path}.B_r"] = torch.randn(o, 5)
    (root / "adapters/_router").mkdir(parents=True)
    save_file(router, root / "adapters/_router/router.safetensors")
    (root / "adapters/_router/router_config.json").write_text('{"rank": 5}')
    with Ramole(settings) as made:
        for seed, (name, examples) in enumerate(TASKS.items()):
            folder = write_lora(root / "files" / name, shapes, rank=2 + seed, seed=seed)
            made.pool.add(folder, name=name, examples=examples)
        write_table(root / "adapters/_lorauter", [made.pool.card(name) for name in MEASURED])
        known = [(card.name, card.content) for card in made.pool.cards()]
        for folder, trained in make_gates(Sites(tuple(shapes), shapes), known).items():
            name, kept = folder.lstrip("_"), root / "adapters" / folder
            kept.mkdir()
            save_file(dict(trained.tensors), kept / f"{name}.safetensors")
            (kept / f"{name}_config.json").write_text(json.dumps(trained.config))
        write_recovered(root / "adapters/_ca_lora", made.pool, shapes)
        (root / "adapters/_llava_mole").mkdir()
        experts = make_mole(Sites(tuple(shapes), shapes))
        save_file(dict(experts.tensors), root / "adapters/_llava_mole/llava_mole.safetensors")
        (root / "adapters/_llava_mole/llava_mole_config.json").write_text("{}")
        yield made


def write_recovered(folder, pool, shapes):
    """The pool's adapters, as though they had been trained further for `ca_lora`."""
    folder.mkdir(parents=True)
    cards = pool.cards()
    trained = make_recovered(
        Sites(tuple(shapes), shapes),
        known=[card.content for card in cards],
        names=[card.name for card in cards],
    )
    save_file(dict(trained.tensors), folder / "ca_lora.safetensors")
    (folder / "ca_lora_config.json").write_text(json.dumps(trained.config))


def drained(stream):
    """What it yields, and its value."""
    steps = []
    while True:
        try:
            steps.append(next(stream))
        except StopIteration as end:
            return steps, end.value


def test_half_a_character_finds_no_adapter(ramole):
    with pytest.raises(RamoleError, match="half a character in it; send whole ones"):
        ramole.retrieve("rain \ud800")


def test_opening_loads_no_model_and_using_it_does(tiny_llama, tmp_path):
    settings = tiny_settings(tiny_llama, tmp_path)
    stages = []
    with Ramole(settings) as fresh:
        assert not fresh.loaded
        fresh.load(progress=lambda stage, fraction: stages.append((stage, fraction)))
        assert fresh.loaded and fresh.base.name == str(tiny_llama)
        assert stages[-1] == ("ready", 1.0)
        assert [f for _, f in stages] == sorted(f for _, f in stages)


def of_every_method():
    fit = {"examples": [("Is it warm?", "yes")], "options": {"steps": 3}}
    return [
        Request("Is it going to rain?", method=name, **ASK, **(fit if method.row.fits else {}))
        for name, method in METHODS.items()
    ]


def test_every_method_answers(ramole):
    requests = of_every_method()
    answers = ramole.generate(requests)
    for name, answer in zip(METHODS, answers, strict=True):
        if METHODS[name].brings:
            assert set(answer.adapters).isdisjoint(TASKS) and answer.new_tokens == 5
            continue
        assert answer.new_tokens == 5 and answer.finish_reason == "length"
        if name == "lorauter":  # of three tasks, two bring the same adapter
            assert 2 <= len(answer.adapters) <= 3
            continue
        if METHODS[name].fixed and METHODS[name].experts(len(TASKS)) > 1:
            assert set(answer.adapters) == set(TASKS)
            continue
        assert len(answer.adapters) == min(METHODS[name].experts(3), len(TASKS))
        if name == "logo":  # the nearest three are not the loudest
            continue
        assert answer.scores == sorted(answer.scores, reverse=True)
        assert answer.adapters == [] or answer.adapters[0] == "weather"
    assert {row.name for row in ramole.methods()} == set(METHODS) == {m.name for m in METHOD_LIST}


def test_lorauter_takes_what_the_nearest_tasks_bring(ramole):
    prompt = "How do I boil an egg?"
    sims = {hit.name: hit.score for hit in ramole.retrieve(prompt, k=4)}
    brings = {"weather": "weather", "cooking": "sums", "sums": "sums", "poems": "poems"}
    every, sizes = dict.fromkeys(sims, 0.0), {task: np.exp(sims[task] / 0.2) for task in sims}
    for task, size in sizes.items():
        every[brings[task]] += size / sum(sizes.values())
    every = {name: share for name, share in every.items() if share}

    def shares(**asked):
        request = Request(prompt, method="lorauter", **{"k": 2, **ASK, **asked})
        found = ramole.candidates([request])[0]
        if request.weights is None:
            assert [one.score for one in found] == pytest.approx([sims[one.name] for one in found])
        return {one.name: one.share for one in found}

    second = sorted(sims, key=lambda task: -sims[task])[1]
    assert shares(k=4) == pytest.approx(every) and len(every) == 3
    assert list(shares(k=4)) == sorted(every, key=lambda name: -every[name])
    assert shares(k=1) == {"sums": 1.0}
    assert shares(k=1, exclude=("cooking",)) == {brings[second]: 1.0}
    assert shares(k=1, exclude=("cooking",), options={"masked_tasks": True}) == {"sums": 1.0}
    assert shares(adapters=("poems", "sums"), options={"temperature": 0.001}) == pytest.approx(
        {"poems": 0.0, "sums": 1.0}
    )
    assert list(shares(adapters=("poems", "sums"), weights=(0.5, 0.25))) == ["poems", "sums"]
    with pytest.raises(RamoleError, match="exclude names 'wether'"):
        shares(exclude=("wether",))
    (answer,) = ramole.generate([Request(prompt, method="lorauter", k=4, abstain=True, **ASK)])
    assert answer.evidence is not None and answer.evidence.decision != "base"
    np.testing.assert_allclose(
        answer.trace.weights[0, 0, 0], [every[name] for name in answer.adapters], atol=2e-3
    )


def test_logo_takes_the_loudest(ramole):
    (heard,) = ramole.candidates([Request("Is it going to rain?", method="logo", k=4, **ASK)])
    loud = [float(one.response.log_norms[-7].exp()) for one in heard]
    assert len(loud) == 4 and loud == sorted(loud, reverse=True)
    (found,) = ramole.generate([Request("Is it going to rain?", method="logo", k=2, **ASK)])
    assert found.adapters == [one.name for one in heard[:2]]
    expected = np.array(loud[:2]) / sum(loud[:2])
    np.testing.assert_allclose(found.trace.weights[0, 0, 0], expected, atol=2e-3)


def test_lag_looks_at_more_adapters_than_it_was_asked_for(ramole):
    (found,) = ramole.generate([Request("Is it going to rain?", method="lag", k=1, **ASK)])
    assert found.adapters[0] == "weather" and len(found.adapters) == 4
    rows = found.trace.weights[:-1]
    assert ((rows == 1).sum(-1) == 1).all() and ((rows > 0).sum(-1) == 1).all()
    names = ("poems", "sums")
    (named,) = ramole.generate([Request("Rain?", method="lag", adapters=names, **ASK)])
    assert named.adapters == list(names)
    weights = (0.5, 0.25)
    given = Request("Rain?", method="lag", adapters=names, weights=weights, **ASK)
    np.testing.assert_allclose(ramole.generate([given])[0].trace.weights[0, 0, 0], weights)


def test_weights_that_were_found_can_be_kept_as_a_mix_and_are_explained(ramole):
    examples = [("Is it warm?", "mmm"), ("And cold?", "mmm")]
    said = {"method": "lorahub", "options": {"steps": 9}, **ASK}
    request = Request("Is it going to rain?", examples=examples, adapters=["sums", "poems"], **said)
    told = []
    _, answer = drained(ramole.stream(request, fitting=told.append))
    assert [how.step for how in told] == list(range(1, 10))
    found = answer.fitted
    assert any(found.weights), "or there is nothing to explain"
    assert found.adapters == ("sums", "poems") == tuple(answer.adapters)
    assert found.checksums == tuple(ramole.pool.card(name).content for name in found.adapters)
    ramole.keep_mix("rain", answer)
    assert [mix.name for mix in ramole.mixes("ann")] == ["rain"]
    mixed = Request("Is it going to rain?", mix="rain", owner="ann", **ASK)
    again = ramole.generate([mixed])[0]
    assert again.trace.token_ids == answer.trace.token_ids
    assert (again.method, again.weights) == (found.method, found.weights)
    assert answer_record(mixed, again, None)["weights"] == found.weights
    last = len(answer.trace.token_ids) - 1
    ids = answer.trace.token_ids
    explained = [ramole.explain(one, last, top=3, token_ids=ids) for one in (request, mixed)]
    assert explained[0] == explained[1] and explained[0].base != explained[0].mixture
    ramole.check(Request("Rain?", mix="rain", method="lorahub", owner="ann"))  # needs no examples
    talk = [("Is it going to rain?", again.text, again.adapters)]
    (then,) = ramole.generate([replace(mixed, prompt="And then?", history=talk)])
    assert then.weights == found.weights, "a conversation goes on with what was kept"
    ramole.remove_mix("rain")
    for ask in (ramole.check, lambda one: ramole.generate([one])):
        with pytest.raises(RamoleError, match="no mix 'rain'"):
            ask(mixed)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"method": "lorahub"}, "finds its weights on examples, and none came; pass about 5"),
        ({"method": "fusion", "examples": [("a", "b")]}, "method fusion has no use .* lorahub"),
        ({"mix": "nothing"}, "There is no mix 'nothing'"),
    ],
)
def test_examples_are_asked_for_where_they_are_needed_and_only_there(ramole, said, reason):
    with pytest.raises(RamoleError, match=reason):
        ramole.generate([Request("hi", **said)])


def test_a_list_longer_than_a_batch_is_split_and_its_order_kept(ramole):
    prompts = [examples[0] for examples in TASKS.values()] * 2
    sizes = []

    def count(model, args, said):
        keep = said["logits_to_keep"]  # 0: of all
        sizes.append(said["input_ids"].shape[1] if isinstance(keep, int) else len(keep))

    handle = ramole.base.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        answers = ramole.generate([Request(p, method="selection", **ASK) for p in prompts])
    finally:
        handle.remove()
    assert max(sizes) == 3
    assert [answer.adapters[0] for answer in answers] == list(TASKS) * 2


def test_a_bad_request_raises_before_any_runs(ramole):
    calls = []
    handle = ramole.base.model.register_forward_pre_hook(lambda *_: calls.append(1))
    good = Request("hello", **ASK)
    for bad, message in [
        (Request("hello", method="nonsense"), "Unknown method 'nonsense'; choose one of"),
        (Request("hello", adapters=["wether"], **ASK), "weather"),
        (Request("hello", exclude=["wether"], **ASK), "weather"),
        (Request("hello", max_new_tokens=41), "at most 40"),
        (Request("x" * 600, max_new_tokens=4), "shorten the prompt"),
        (Request("hello", method="base", adapters=["sums"], **ASK), "mixes no adapters"),
        (
            Request("hello", "selection", adapters=["sums", "poems"], weights=[1, 1], **ASK),
            "uses 1 adapter",
        ),
    ]:
        with pytest.raises(RamoleError, match=message):
            ramole.generate([good, bad])
    handle.remove()
    assert not calls


def test_named_adapters_keep_their_order_and_excluded_ones_are_not_found(ramole):
    rain = Request("Is it going to rain?", method="ramole", **ASK)
    named = replace(rain, k=1, adapters=["sums", "poems"])
    sums = Request("Multiply 5 by 6", method="selection", adapters=["poems", "sums"], **ASK)
    answers = ramole.generate([named, sums, replace(rain, exclude=["weather"])])
    assert answers[0].adapters == answers[0].trace.adapters == ["sums", "poems"]
    assert np.isnan(answers[0].scores).all()
    assert answers[1].adapters == ["sums"] and answers[1].scores[0] > 0.3
    assert len(answers[2].adapters) == 3 and "weather" not in answers[2].adapters


def test_streaming_gives_the_same_answer(ramole):
    request = Request("A verse about rain", **ASK)
    steps, answer = drained(ramole.stream(request))
    assert all(isinstance(step, Step) for step in steps)
    assert "".join(step.text for step in steps) == answer.text
    assert answer.text == ramole.generate([request])[0].text
    assert steps[0].weights.shape == (3, 7, 3)
    assert answer.extra["retrieve"] > 0 and answer.seconds > answer.first_token_seconds > 0


def test_every_method_says_who_answers_before_the_first_token(ramole):
    """The same as `select` says, as every token, and as the answer."""
    requests = of_every_method()
    events: list[tuple[int, object]] = []
    stream = ramole.stream_batch(requests, selected=lambda *event: events.append(event))
    events += [event for event in stream]
    first = len(requests)
    assert [index for index, _ in events[:first]] == list(range(first))
    selections = dict(events[:first])
    for index, item in events[first:]:
        assert tuple(item.adapters) == selections[index].adapters
        np.testing.assert_array_equal(item.scores, selections[index].scores)
        if isinstance(item, Generation):
            assert item.evidence == selections[index].evidence
    again = ramole.select(requests[0])
    assert again.adapters == selections[0].adapters and again.why == selections[0].why


def test_a_batch_streams_all_its_requests_in_turn(ramole):
    requests = [Request("rain", **ASK), Request("rain", method="base", **ASK)]
    items = list(ramole.stream_batch(requests))
    order = [index for index, item in items if isinstance(item, Step)]
    assert order == [0, 1] * 5
    ends = {index: item for index, item in items if isinstance(item, Generation)}
    assert ends[0].text != ends[1].text


def test_a_request_waits_under_its_session_and_address(ramole, monkeypatch):
    submit, tickets = ramole.engine.scheduler.submit, []

    def kept(*args, **options):
        tickets.append(submit(*args, **options))
        return tickets[-1]

    monkeypatch.setattr(ramole.engine.scheduler, "submit", kept)
    requests = [Request("rain", **ASK), Request("rain", owner="ann", **ASK)]
    list(ramole.stream_batch(requests, address="10.0.0.9"))
    list(ramole.stream_batch(requests[:1], session="ben"))
    told = [(ticket.session, ticket.address) for ticket in tickets]
    assert told == [("", "10.0.0.9"), ("ann", "10.0.0.9"), ("ben", "")]


def test_leaving_a_stream_early_blocks_nobody(ramole):
    stream = ramole.stream(Request("rain", **ASK))
    next(stream)
    stream.close()
    assert ramole.generate([Request("rain", **ASK)])[0].new_tokens == 5


def test_answers_that_run_end_as_cancelled_once_it_is_to_stop_and_none_begins(ramole, monkeypatch):
    monkeypatch.setattr(ramole, "_stopping", threading.Event())
    request = Request("hello", method="base", max_new_tokens=40, ignore_eos=True)
    stream, answers = ramole.stream_batch([request, request]), []
    next(stream)
    ramole.stop(seconds=0.0)
    answers = [item for _, item in stream if isinstance(item, Generation)]
    assert [answer.finish_reason for answer in answers] == ["cancelled"] * 2
    assert all(answer.new_tokens < 40 for answer in answers) and ramole.engine.scheduler.idle
    (late,) = ramole.generate([request])
    assert late.finish_reason == "cancelled" and late.new_tokens == 0


def hold_until_cancelled(engine, monkeypatch, *, tokens=1):
    """Once a request has so many tokens the engine waits until all that run are cancelled."""
    scheduler, step = engine.scheduler, engine.scheduler.step

    def held():
        states = scheduler.batch.states
        if any(state.new >= tokens for state in states):
            wait_until(lambda: all(state.cancelled for state in states), seconds=60)
        return step()

    monkeypatch.setattr(scheduler, "step", held)


@pytest.mark.parametrize("thread", [False, True])
def test_closing_ends_what_runs(tiny_llama, tmp_path, monkeypatch, thread):
    request = Request("hello", method="base", max_new_tokens=400, ignore_eos=True)
    opened = Ramole(tiny_settings(tiny_llama, tmp_path, max_new_tokens=400))
    opened.load()
    ended, begun = [], threading.Event()

    def run():
        try:
            for _, item in opened.stream_batch([request, request]):
                begun.set()
                if not thread:
                    begun.wait()
                    opened.close()
                if isinstance(item, Generation):
                    ended.append(item.finish_reason)
        except RamoleError as error:
            ended.append(str(error))

    if thread:
        hold_until_cancelled(opened.engine, monkeypatch)
        opened.start()
        asking = threading.Thread(target=run)
        asking.start()
        assert begun.wait(60)
        opened.close()
        asking.join(60)
        assert not asking.is_alive() and ended == ["cancelled"] * 2
    else:
        run()
        assert len(ended) == 1 and "closed" in ended[0]


def test_tokens_are_delivered_before_another_caller_makes_the_next_ones(ramole, monkeypatch):
    engine, between = ramole.engine, []
    submit = engine.submit

    def watched(*asked, deliver, **said):
        def told(state, item):
            other = threading.Thread(target=engine.step)
            other.start()
            other.join(0.2)
            between.append(not other.is_alive())
            deliver(state, item)

        return submit(*asked, deliver=told, **said)

    monkeypatch.setattr(engine, "submit", watched)
    ramole.generate([Request("hello", method="base", max_new_tokens=2, ignore_eos=True)])
    assert between and not any(between)


def test_a_merge_is_shared_by_requests_with_the_same_weights_to_the_last_digit(ramole, monkeypatch):
    """Rounded to float32 they are equal, but three times the one is another number."""
    store, keys = ramole.engine.store, set()
    made = store.made
    monkeypatch.setattr(
        store, "made", lambda key, *said, **how: keys.add(key) or made(key, *said, **how)
    )
    asked = {"method": "lego", "adapters": ["weather", "sums", "poems"], **ASK}
    one, other = 0.28093600273132324, 0.2809360161423683
    assert np.float32(one) == np.float32(other) and np.float32(3 * one) != np.float32(3 * other)
    for weight in (one, other, one):
        ramole.generate([Request("What is 3 plus 4?", weights=[weight] * 3, **asked)])
    assert len(keys) == 2


def test_a_request_that_fails_ends_alone_and_is_raised_at_the_end(ramole, tiny_llama, tmp_path):
    """One of a list, whose adapter is removed before its turn in the batch comes."""
    shapes = read_shapes(tiny_llama)
    ramole.pool.add(write_lora(tmp_path / "gone", shapes, rank=3, seed=9))
    plain = Request("hello", method="base", **ASK)
    asked = [*[plain] * 4, Request("hello", "mixture", adapters=["gone"], **ASK), plain]
    answered, began = [], False
    with pytest.raises(RamoleError, match="gone"):
        for index, item in ramole.stream_batch(asked):
            if not began:
                ramole.pool.remove("gone")
            began = True
            if isinstance(item, Generation):
                answered.append(index)
    assert sorted(answered) == [0, 1, 2, 3, 5] and ramole.engine.scheduler.idle


def test_adding_and_removing_while_a_request_runs_does_not_touch_it(ramole, tmp_path):
    request = Request("Is it going to rain?", **ASK)
    alone = ramole.generate([request])[0]
    stream = ramole.stream(request)
    tokens = [next(stream).token]
    folder = write_lora(tmp_path / "x", read_shapes(ramole.base.folder), rank=3, seed=9)
    ramole.pool.add(folder, name="storms", examples=["Is it going to rain?"], owner="ann")
    mine = ramole.generate([replace(request, owner="ann")])[0]
    assert mine.adapters[0] == "storms" and mine.scores[0] > 0.9
    ramole.pool.remove("storms", owner="ann")
    tokens += [step.token for step in stream]
    assert tokens == alone.trace.token_ids[alone.trace.prompt_length :]
    assert ramole.generate([replace(request, owner="ann")])[0].adapters == alone.adapters


def test_two_adapters_with_the_same_weights_and_another_scale_stay_apart(ramole, tmp_path):
    shapes = read_shapes(ramole.base.folder)
    for name, alpha in (("weak", 3), ("strong", 12)):
        folder = write_lora(tmp_path / name, shapes, rank=3, seed=8)
        config = {"peft_type": "LORA", "r": 3, "lora_alpha": alpha}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        ramole.pool.add(folder, name=name, examples=[f"a {name} one"], owner="bob")
    cards = [ramole.pool.card(name, "bob") for name in ("weak", "strong")]
    assert cards[0].sha256 == cards[1].sha256
    ask = Request("hello", method="mixture", adapters=["weak"], owner="bob", **ASK)
    weak, strong = ramole.generate([ask, replace(ask, adapters=["strong"])])
    assert weak.trace.token_ids != strong.trace.token_ids
    for name in ("weak", "strong"):
        ramole.pool.remove(name, owner="bob")


def test_explaining_a_position_of_the_answer(ramole):
    request = Request("A verse about rain", **ASK)
    trace = ramole.generate([request])[0].trace
    position = trace.prompt_length + 1
    given = ramole.explain(request, position, top=4, token_ids=trace.token_ids)
    again = ramole.explain(request, position, top=4)
    assert given == again and len(given.base) == 4
    assert given.mixture[0][0] == trace.tokens[position + 1] and given.base != given.mixture
    every = ramole.explain(request, position, top=10**6, token_ids=trace.token_ids)
    assert len(every.base) == ramole.model_facts.vocabulary
    with pytest.raises(RamoleError, match="top=-1; give how many"):
        ramole.explain(request, position, top=-1, token_ids=trace.token_ids)
    with pytest.raises(RamoleError, match="choose 0 to"):
        ramole.explain(request, 10_000, token_ids=trace.token_ids)
    with pytest.raises(RamoleError, match=f"have {len(trace.tokens)} tokens; choose 0 to"):
        ramole.explain(request, 10_000)
    facts = ramole.model_facts
    for ids in ([10**7], [-1], [5] * (facts.context + 1)):
        with pytest.raises(RamoleError, match=f"token_ids has {len(ids)} tokens"):
            ramole.explain(request, len(ids) - 1, token_ids=ids)


def test_what_is_explained_has_the_turns_that_the_answer_had(ramole):
    """Room for a few tokens is room for a turn that the whole answer dropped."""

    def talk(length, count):
        said = [("uuu", "a" * length, ()), ("vvv", "b" * 40, ())]
        how = {"max_new_tokens": count, "drop_turns": True, "ignore_eos": True}
        return Request("A verse about rain", history=said, **how)

    length = next(n for n in range(200, 400) if ramole.engines.read(talk(n, 40)).dropped)
    asked = talk(length, 40)
    assert not ramole.engines.read(talk(length, 1)).dropped
    trace = ramole.generate([asked])[0].trace
    place = trace.prompt_length
    given = ramole.explain(asked, place, token_ids=trace.token_ids)
    assert ramole.explain(asked, place) == given


def test_who_answers_is_found_once_for_all_tokens_until_the_pool_changes(ramole, monkeypatch):
    prepared, prepare = [], ramole.prepare
    monkeypatch.setattr(ramole, "prepare", lambda asked: prepared.append(asked) or prepare(asked))
    request = Request("A verse about snow", **ASK)
    first = ramole.explain(request, 1)
    assert ramole.explain(request, 1) == first and ramole.explain(request, 0) != first
    assert len(prepared) == 1
    ramole.explain(replace(request, k=1), 1)
    assert len(prepared) == 2, "another question is another matter"
    for listener in ramole.pool.listeners:
        listener.added(ramole.pool.cards()[0])
    assert ramole.explain(request, 1) == first and len(prepared) == 3


def test_neighbours_of_an_adapter_leave_it_out(ramole):
    hits = ramole.neighbours("weather", k=2)
    assert len(hits) == 2 and "weather" not in [hit.name for hit in hits]
    with pytest.raises(RamoleError, match="k=0; it is the number of adapters"):
        ramole.neighbours("weather", k=0)


def test_without_a_trained_router_the_sentence_says_what_to_do(tiny_llama, tmp_path):
    settings = tiny_settings(tiny_llama, tmp_path)
    with Ramole(settings) as bare:
        folder = write_lora(tmp_path / "x", read_shapes(tiny_llama), rank=2, seed=1)
        bare.pool.add(folder, name="one", examples=["a"])
        assert bare.router_checksum is None
        listed = {row.name for row in bare.methods()}
        assert {"mixture", "random_router", "arrow"} <= listed
        assert not {"ramole", "meteora", "mole"} & listed, "what cannot answer is not offered"
        with pytest.raises(RamoleError, match="no trained weights of ramole .*another method"):
            bare.generate([Request("a", method="ramole", **ASK)])
        assert bare.generate([Request("a", **ASK)])[0].new_tokens == 5, "which needs none"
        assert bare.generate([Request("a", method="uniform_router", **ASK)])[0].adapters == ["one"]


# --- the adapters of every turn of a conversation -------------------------------------------------


def names_in(turn):
    return [candidate.name for candidate in turn.candidates]


CHAT = [
    ("Will it rain in Oslo?", "Yes."),
    ("How long do I boil an egg?", "Six minutes.", ["poems", "sums"]),
    ("A verse about the sea", "Waves.", []),
]


def test_every_turn_has_the_adapters_that_it_would_get_alone(ramole):
    request = Request("Multiply 5 by 6", k=2, history=CHAT, exclude=["poems"], **ASK)
    prepared = ramole.prepare([request])[0]
    first, second, third, last = prepared.turns
    assert len(prepared.prompt.parts) == 4
    alone = Request("Will it rain in Oslo?", k=2, exclude=["poems"], **ASK)
    assert names_in(first) == names_in(ramole.prepare([alone])[0].turns[-1])
    assert names_in(first)[0] == "weather" and "poems" not in names_in(first)
    assert names_in(second) == ["poems", "sums"], "a turn may have what is excluded now"
    assert names_in(third) == [] and third.request.method == "base"
    assert names_in(last)[0] == "sums" and last.request.method == "ramole_plus"
    assert prepared.candidates == last.candidates
    assert [c.name for c in ramole.candidates([request])[0]] == names_in(last)


def test_a_chat_says_which_turn_has_lost_its_adapter(ramole):
    talk = [CHAT[0], ("And here?", "No.", ["was-removed"])]
    with pytest.raises(RamoleError, match="Turn 2 .* answered by 'was-removed', which is not in"):
        ramole.generate([Request("Then?", history=talk, **ASK)])


def test_a_chat_goes_on_after_a_method_with_adapters_of_its_own(ramole):
    (first,) = ramole.generate([Request("Will it rain in Oslo?", method="llava_mole", **ASK)])
    assert first.adapters and not {*first.adapters} & {card.name for card in ramole.pool.cards()}
    talk = [("Will it rain in Oslo?", first.text, first.adapters)]
    for method in ("llava_mole", "mixture"):
        again = Request("And here?", method, history=talk, **ASK)
        ramole.check(again)
        (then,) = ramole.generate([again])
        assert then.new_tokens == 5
    (mixed,) = ramole.generate([Request("Will it rain in Oslo?", method="mixture", **ASK)])
    talk = [("Will it rain in Oslo?", mixed.text, mixed.adapters)]
    (own,) = ramole.generate([Request("And here?", method="llava_mole", history=talk, **ASK)])
    assert own.adapters == first.adapters


@pytest.mark.parametrize("method", ["ramole_plus", "selection", "similarity"])
def test_each_text_of_all_turns_is_embedded_once_and_together(ramole, monkeypatch, method):
    embedded = []
    recent = ramole.retriever.recent._embed

    def embed(texts):
        embedded.append(list(texts))
        return recent(texts)

    monkeypatch.setattr(ramole.retriever.recent, "_embed", embed)
    prefix = f"{method} "
    talk = [(prefix + "one", "a"), (prefix + "two", "b"), (prefix + "one", "c")]
    requests = [
        Request(prefix + last, history=talk, method=method, **ASK)
        for last in ("three", "four", "two")
    ]
    ramole.prepare(requests)
    assert embedded == [[prefix + word for word in ("one", "two", "three", "four")]]


def test_what_examines_reads_each_turn_by_itself(ramole):
    """A turn gets what it got when it was asked, whatever was said before it."""
    first = Request("Is it going to rain?", method="ramole_plus", k=2, system="Be brief.", **ASK)
    alone = ramole.prepare([first, replace(first, prompt="A verse on rain")])
    both = replace(first, prompt="A verse on rain", history=[(first.prompt, "Yes.")])
    turns = ramole.prepare([both])[0].turns
    for turn, one in zip(turns, alone, strict=True):
        assert names_in(turn) == [c.name for c in one.candidates]
        assert [c.activation_z for c in turn.candidates] == [c.activation_z for c in one.candidates]


def test_turns_that_were_dropped_get_no_adapters(ramole):
    long = [("Will it rain in Oslo?" * 4, "Yes." * 80), *CHAT[1:]]
    request = Request("Multiply 5 by 6", history=long, drop_turns=True, max_new_tokens=20)
    prepared = ramole.prepare([request])[0]
    assert prepared.prompt.dropped == 1
    assert [turn.request.prompt for turn in prepared.turns] == [
        "How long do I boil an egg?",
        "A verse about the sea",
        "Multiply 5 by 6",
    ]
    with pytest.raises(RamoleError, match="in 4 turns.*drop_turns=True"):
        ramole.prepare([replace(request, drop_turns=False, max_new_tokens=1)])


def test_a_bad_turn_is_a_bad_request(ramole):
    with pytest.raises(RamoleError, match="no adapter 'nobody'"):
        ramole.check(Request("hello", method="mixture", history=[("a", "b", ["nobody"])], **ASK))
    with pytest.raises(RamoleError, match="wether.*weather"):
        ramole.prepare([Request("hello", history=[("a", "b", ["wether"])], **ASK)])
    with pytest.raises(RamoleError, match="mixes no adapters"):
        ramole.prepare([Request("hello", method="base", history=[("a", "b", ["sums"])], **ASK)])
