"""Requests of several segments equal the naive run, and go on, branch and are traced alike."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from ramole_core import Busy, RamoleError, Request
from ramole_core.composition import METHODS
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.prompt import Turn
from ramole_core.request_parts import read_without
from tests.support.naive_segments import NaiveModel, NaiveTurn
from tests.support.tiny_engine import Heard, TinyEngine

RANKS = {"ant": 2, "bee": 7, "cat": 4, "dog": 1, "elk": 3, "fox": 5}
ROUNDING = 5e-3
"""Largest difference of float32, as a share of the logits' deviation: gates of adapters as loud as
these enlarge it."""
GIVEN = {"max_new_tokens": 6, "ignore_eos": True}


class World:
    """A tiny engine, and the naive model of the same weights."""

    def __init__(self, folder, kind: str):
        self.tiny = TinyEngine(folder, kind=kind)
        self.engine = self.tiny.engine
        self.naive = NaiveModel(self.engine)

    def candidates(self, names):
        return self.tiny.chosen([(name, RANKS[name]) for name in names])

    def prepare(self, request: Request, names=(), earlier=()):
        turns = [
            Turn(turn, tuple(self.candidates(adapters)))
            for turn, adapters in zip(request.turns[:-1], earlier, strict=True)
        ]
        return self.engine.prepare(request, self.candidates(names), earlier=turns)

    def answer(self, request: Request, names=(), earlier=(), *, dropped: int = 0) -> Heard:
        """With the adapters of the answered turn, and those of each turn before that is left."""
        state = self.tiny.submit(
            request, of(names), earlier=[of(turn) for turn in earlier], dropped=dropped
        )
        self.tiny.finish()
        return self.tiny.heard.pop(state)

    def fresh(self, *asked, **options) -> Heard:
        """The same where nothing is in the cache."""
        self.engine.forget_prefixes()
        return self.answer(*asked, **options)

    def turns(self, request: Request, names=(), earlier=(), shift: int = 0) -> list[NaiveTurn]:
        """The turns of a conversation with their ends, from what the template says; `shift` moves
        every boundary."""
        spoken, found = "", []
        if request.system is not None:
            spoken = f"<|im_start|>system\n{request.system}<|im_end|>\n"
        turns = list(request.turns)
        for (user, assistant, *_), turn, adapters in zip(
            request.history, turns[:-1], earlier, strict=True
        ):
            for role, text in (("user", user), ("assistant", assistant)):
                spoken += f"<|im_start|>{role}\n{text}<|im_end|>\n"
            end = len(self.tiny.base.tokenizer(spoken)["input_ids"]) + shift
            found.append(NaiveTurn(turn, tuple(self.candidates(adapters)), end))
        return [*found, NaiveTurn(turns[-1], tuple(self.candidates(names)), 10**6)]

    def naive_logits(self, answer: Heard, turns, request: Request):
        """[new, v], and weights, contributions and who is present at every token, in the columns
        of the answer's trace."""
        ids = answer.prompt + list(request.prefix_ids) + answer.tokens
        given = len(answer.prompt) + len(request.prefix_ids)
        without = with_starts(request, given)
        trace = answer.answer.trace
        names = () if trace is None else trace.adapters
        logits, told = self.naive.read(ids, turns, names=names, without=without)
        return logits[given - 1 : -1], told


def share(answer: Heard, theirs: torch.Tensor) -> float:
    """The largest difference of logits, as a share of their deviation."""
    return float((torch.stack(answer.logits).float() - theirs).abs().max() / theirs.std())


def with_starts(request: Request, given: int) -> list[tuple]:
    """What is off, and from where; `given` counts the tokens that are there at first."""
    last = given - 1
    every = read_without(request.without)
    return [(*off[:3], last if off.start is None else off.start) for off in every]


def of(names):
    return [(name, RANKS[name]) for name in names]


def compare(world: World, request: Request, names=(), earlier=(), *, answer=None) -> float:
    """The request equals the naive run; gives the largest difference between their logits."""
    answer = answer or world.fresh(request, names, earlier)
    turns = world.turns(request, names, earlier)
    logits, (weights, contribution, present) = world.naive_logits(answer, turns, request)
    assert logits.shape == torch.stack(answer.logits).shape
    apart = share(answer, logits)
    assert apart < ROUNDING
    if request.trace:
        trace = answer.answer.trace
        assert trace is not None and len(trace.token_ids) == len(weights)
        np.testing.assert_allclose(trace.weights[:-1], weights[:-1], atol=4e-3)
        np.testing.assert_allclose(
            trace.contribution[:-1], contribution[:-1], rtol=ROUNDING, atol=4e-3
        )
        np.testing.assert_array_equal(trace.present[:-1], present[:-1] > 0)
        assert not trace.contribution[~trace.present].any() and not trace.present[-1].any()
        assert not trace.weights[-1].any() and not trace.contribution[-1].any()
    return apart


@pytest.fixture(scope="module")
def world(tiny_llama):
    return World(tiny_llama, "float32")


# --- the naive run --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_in_one_segment(world, method):
    names = ["bee", "dog", "cat"][: METHODS[method].experts(3)]
    compare(world, Request("c d e f", method=method, **GIVEN), names)


OTHERS = ("ramole_plus", "fusion", "mixture", "arrow")
CHATS = {
    "two turns": ([("one two", "three")], ["cat"], [["ant", "bee"]]),
    "three turns": (
        [("one two", "three"), ("four", "five six")],
        ["cat", "bee"],
        [["ant", "bee"], ["elk"]],
    ),
    "the base between": ([("one", "two"), ("three", "four", [])], ["dog"], [["dog", "fox"], []]),
}


@pytest.mark.parametrize("method", ["ramole", *OTHERS])
@pytest.mark.parametrize("chat", CHATS)
def test_every_turn_of_a_chat_keeps_its_adapters(world, chat, method):
    history, names, earlier = CHATS[chat]
    request = Request("what now?", history=history, method=method, system="Be kind.", **GIVEN)
    answer = world.fresh(request, names, earlier)
    apart = compare(world, request, names, earlier, answer=answer)
    others = [name for turn in earlier for name in turn]
    assert answer.answer.trace.adapters == list(dict.fromkeys([*names, *others]))
    only_last = world.turns(replace(request, history=()), names)
    moved = (world.turns(request, names, earlier, shift=shift) for shift in (-4, 4))
    for wrong in (*moved, only_last):
        logits, _ = world.naive_logits(answer, wrong, request)
        assert share(answer, logits) > max(30 * apart, 0.02), "this would not be noticed"


# --- switched off ---------------------------------------------------------------------------------

OFF = {
    "an adapter": [("bee", None, None)],
    "a layer": [(None, 1, None)],
    "a layer of an adapter": [("dog", 0, None)],
    "a module": [(None, None, "up_proj")],
    "one of all": [("bee", 2, "q_proj")],
    "everything": [(None, None, None)],
    "from the first token on": [("bee", None, None, 0)],
    "in the prompt": [("dog", None, "v_proj", 9), (None, 0, None, 14)],
    "in the answer": [("dog", None, None), ("bee", 0, None, "+2"), (None, None, None, "+4")],
}


def without(off, length: int) -> list[tuple]:
    """`+2` is the second token of the answer."""
    return [
        (*one[:3], length + int(one[3])) if len(one) == 4 and isinstance(one[3], str) else one
        for one in off
    ]


@pytest.mark.parametrize(
    ("off", "method"),
    [*((off, "ramole") for off in OFF)]
    + [*product(("an adapter", "in the prompt", "in the answer"), OTHERS)],
)
def test_what_is_off_is_off_in_the_naive_run(world, off, method):
    names = ["bee", "dog", "cat"]
    plain = Request("one two three", method=method, **GIVEN)
    length = len(world.engine.read(plain).ids)
    request = replace(plain, without=without(OFF[off], length))
    answer = world.fresh(request, names)
    apart = compare(world, request, names, answer=answer)
    on, _ = world.naive_logits(answer, world.turns(plain, names), plain)
    assert share(answer, on) > max(20 * apart, 0.01), "what is off was nothing"


def test_adapters_of_earlier_turns_are_off_where_their_turns_have_them(world):
    history, names, earlier = CHATS["three turns"]
    request = Request(
        "what now?", history=history, without=[("bee", None, None, 3), (None, 1, None, 30)], **GIVEN
    )
    compare(world, request, names, earlier)


def test_what_is_off_in_a_chat_changes_nothing_before_it(world):
    history, names, earlier = CHATS["two turns"]
    request = Request("what now?", history=history, **GIVEN)
    whole = world.fresh(request, names, earlier)
    before = world.engine.stats()
    branch = replace(request, prefix_ids=whole.tokens[:2], without=[("cat", None, None)])
    answer = world.answer(branch, names, earlier)
    after = world.engine.stats()
    given = len(answer.prompt) + 2
    assert after["prefill_tokens"] - before["prefill_tokens"] == 1, "the last given token alone"
    assert after["shared_tokens"] - before["shared_tokens"] == given - 1
    compare(world, branch, names, earlier, answer=answer)
    branched, before = answer.answer.trace, whole.answer.trace
    assert not branched.contribution[given - 1 :].any() and not branched.present[given - 1 :].any()
    assert (branched.weights[given - 1 : -1] == [1, 0, 0]).all(), "the share that the gate gave"
    for name in ("weights", "contribution", "present"):
        rows = [getattr(one, name)[: given - 1] for one in (branched, before)]
        np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize("method", ["ramole", "mixture", "fusion"])
def test_weights_of_the_request_are_those_of_its_turns(world, method):
    names, options = ["bee", "cat"], {"adapters": ("bee", "cat"), "weights": (0.2, 1.5)}
    request = Request("one", method=method, history=[("a b c", "d")], **options, **GIVEN)
    apart = compare(world, request, names, [names])
    compare(world, replace(request, without=[("cat", 1, None, 5)]), names, [names])
    answer = world.answer(request, names, [names])
    own = replace(request, weights=None)
    logits, _ = world.naive_logits(answer, world.turns(own, names, [names]), own)
    assert share(answer, logits) > max(30 * apart, 0.02)


@pytest.mark.parametrize("chat", [False, True], ids=["alone", "chat"])
@pytest.mark.parametrize(
    "method", ["ramole", "ramole_plus", "selection", "mixture", "fusion", "lego"]
)
def test_later_weights_hold_from_the_last_given_token_on(world, method, chat):
    history, names, earlier = CHATS["two turns"] if chat else ((), ["bee", "cat"], [])
    request = Request("what now?", method=method, history=history, **GIVEN)
    whole = world.fresh(request, names, earlier)
    mixed = tuple(names[: METHODS[method].experts(len(names))])
    later = dict(zip(mixed, (1.4, 0.3, 0.6), strict=False))
    branch = replace(request, prefix_ids=whole.tokens[:3], later_weights=later)
    before = world.engine.stats()["prefill_tokens"]
    answer = world.answer(branch, names, earlier)
    assert world.engine.stats()["prefill_tokens"] - before == 1, "the last given token alone"
    cut = len(answer.prompt) + 2
    *turns, last = world.turns(request, names, earlier)
    fixed = replace(last.request, adapters=mixed, weights=tuple(later[name] for name in mixed))
    turns += [replace(last, end=cut), replace(last, request=fixed)]
    logits, (weights, _, _) = world.naive_logits(answer, turns, branch)
    apart = share(answer, logits)
    assert apart < ROUNDING
    trace = answer.answer.trace
    np.testing.assert_allclose(trace.weights[cut:-1], weights[cut:-1], atol=4e-3)
    np.testing.assert_array_equal(trace.weights[:cut], whole.answer.trace.weights[:cut])
    on, _ = world.naive_logits(answer, world.turns(request, names, earlier), request)
    assert share(answer, on) > max(20 * apart, 0.01), "the weights were moved nowhere"


def test_later_weights_name_what_the_answer_mixes(world):
    request = Request("one", method="mixture", later_weights={"cat": 1.0}, **GIVEN)
    with pytest.raises(RamoleError, match="'cat', and this request mixes bee, dog; name one"):
        world.answer(request, ["bee", "dog"])
    with pytest.raises(RamoleError, match="mixes none"):
        world.answer(replace(request, method="base"), [])


# --- tokens that are given ------------------------------------------------------------------------

ASKED = {
    "greedy": (Request("one two", **GIVEN), ["bee", "dog"], []),
    "sampled": (
        Request("one two", temperature=1.3, top_p=0.9, seed=7, max_new_tokens=14, ignore_eos=True),
        ["bee", "dog"],
        [],
    ),
    "halves of characters": (
        Request("é ü ☃", method="base", temperature=3.0, seed=3, max_new_tokens=24, trace=False),
        [],
        [],
    ),
    "a chat": (
        Request("what now?", history=CHATS["three turns"][0], **GIVEN),
        *CHATS["three turns"][1:],
    ),
    "switched off": (
        Request(
            "one two",
            without=[("bee", None, None, 4), (None, 1, None, 45), ("dog", 0, "q_proj", 48)],
            max_new_tokens=9,
            ignore_eos=True,
        ),
        ["bee", "dog"],
        [],
    ),
    "merged": (Request("one two", method="fusion", **GIVEN), ["bee", "dog"], []),
}


@pytest.mark.parametrize("asked", ASKED)
def test_an_answer_goes_on_from_each_of_its_tokens(world, asked):
    request, names, earlier = ASKED[asked]
    whole = world.fresh(request, names, earlier)
    if asked == "halves of characters":
        assert any(step.text == "" for step in whole.steps[:-1])
    assert len(whole.tokens) > 4
    for t in range(1, len(whole.tokens)):
        if t % 2:
            world.engine.forget_prefixes()
        goes_on(world, whole, replace(request, prefix_ids=whole.tokens[:t]), names, earlier)


def test_an_answer_goes_on_to_its_stop_string_and_to_its_end(world):
    request = Request("hello", method="base", max_new_tokens=14, ignore_eos=True)
    said = world.fresh(request).answer.text
    stop = said[len(said) // 2 :][:2]
    assert len(stop) == 2
    stopping = replace(request, stop=[stop])
    whole = world.fresh(stopping)
    assert whole.answer.finish_reason == "stop" and len(whole.tokens) > 3
    for t in range(1, len(whole.tokens)):
        goes_on(world, whole, replace(stopping, prefix_ids=whole.tokens[:t]), [], [])
    with pytest.raises(RamoleError, match="stop string"):
        world.answer(replace(stopping, prefix_ids=whole.tokens))
    eos = world.tiny.base.tokenizer.eos_token_id
    set_ends(world.engine, frozenset([eos, whole.tokens[4]]))
    try:
        ending = replace(request, ignore_eos=False)
        whole = world.fresh(ending)
        assert whole.answer.finish_reason == "eos"
        for t in range(1, len(whole.tokens)):
            goes_on(world, whole, replace(ending, prefix_ids=whole.tokens[:t]), [], [])
        with pytest.raises(RamoleError, match="ends the answer"):
            world.answer(replace(ending, prefix_ids=whole.tokens))
    finally:
        set_ends(world.engine, frozenset([eos]))


def set_ends(engine, eos: frozenset[int]) -> None:
    """From now on these tokens end an answer."""
    engine.facts = engine._reader.facts = replace(engine.facts, eos=eos)


def goes_on(world, whole: Heard, request: Request, names, earlier) -> None:
    """The request has the rest of an answer, as though nothing had come between."""
    rest, t = world.answer(request, names, earlier), len(request.prefix_ids)
    assert rest.tokens == whole.tokens[t:]
    assert same_bits(rest.logits, whole.logits[t:])
    for step, one in zip(rest.steps, whole.steps[t:], strict=True):
        assert step.text == one.text
        np.testing.assert_array_equal(step.weights, one.weights)
        np.testing.assert_array_equal(step.contribution, one.contribution)
        np.testing.assert_array_equal(step.present, one.present)
    assert rest.answer.text == whole.answer.text
    assert rest.answer.finish_reason == whole.answer.finish_reason
    assert rest.answer.new_tokens == len(whole.tokens) - t
    if request.trace:
        same_trace(rest.answer.trace, whole.answer.trace)


def same_bits(ours, theirs) -> bool:
    return torch.equal(torch.stack(ours), torch.stack(theirs))


def same_trace(one, other) -> None:
    assert one.token_ids == other.token_ids and one.tokens == other.tokens
    assert one.adapters == other.adapters and one.prompt_length == other.prompt_length
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.contribution, other.contribution)
    np.testing.assert_array_equal(one.present, other.present)
    assert one.contribution.any() or not one.adapters


def test_samples_of_a_prompt_and_a_next_turn_read_what_is_new_alone(world):
    def read(*asked) -> tuple[int, int]:
        """Tokens that were read, and those that were in the cache."""
        before = world.engine.stats()
        for request, *adapters in asked:
            world.engine.submit(world.prepare(request, *adapters))
        world.tiny.finish()
        after = world.engine.stats()
        return tuple(after[n] - before[n] for n in ("prefill_tokens", "shared_tokens"))

    sample = Request("one two", temperature=1.0, **GIVEN)
    samples = [(replace(sample, seed=seed), ["bee"]) for seed in range(4)]
    length = len(world.engine.read(sample).ids)
    world.engine.forget_prefixes()
    assert read(*samples) == (length + 3, 3 * (length - 1))
    chat = Request("what now?", history=[("one two", "three")], **GIVEN)
    whole = len(world.engine.read(chat).ids)
    assert read((chat, ["cat"], [["bee"]])) == (whole - length, length)
    assert read((replace(chat, seed=1), ["cat"], [["dog"]])) == (whole, 0), "others' adapters"


# --- traces of what was found ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ramole", "mixture", "fusion"])
def test_rows_of_tokens_that_were_found_are_in_the_trace(world, method):
    history, names, earlier = CHATS["three turns"]
    request = Request("what now?", history=history, method=method, **GIVEN)
    fresh = world.fresh(request, names, earlier)
    n = len(fresh.prompt) - 1

    def found(asked) -> tuple[Heard, int]:
        before = world.engine.stats()["shared_tokens"]
        answer = world.answer(asked, names, earlier)
        return answer, world.engine.stats()["shared_tokens"] - before

    again, shared = found(request)
    assert shared == n
    same_trace(again.answer.trace, fresh.answer.trace)
    bare, shared = found(replace(request, trace=False))
    assert shared == n and bare.answer.trace is None and bare.tokens == fresh.tokens
    world.engine.forget_prefixes()
    found(replace(request, trace=False))
    late, shared = found(request)
    assert shared == 0, "trace rows that nobody kept are made again"
    same_trace(late.answer.trace, fresh.answer.trace)
    again, shared = found(request)
    assert shared == n, "and are kept then"
    same_trace(again.answer.trace, fresh.answer.trace)


# --- explained ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"without": [("cat", None, None)]}, {"without": [(None, 1, None, 20)]}],
    ids=["chat", "branch", "from a position on"],
)
def test_what_explains_a_token_is_the_naive_softmax(world, changes):
    history, names, earlier = CHATS["three turns"]
    request = Request("what now?", history=history, **GIVEN)
    answer = world.fresh(request, names, earlier)
    request = replace(request, prefix_ids=answer.tokens[:3], **changes)
    ids = answer.prompt + answer.tokens
    prepared = world.prepare(request, names, earlier)
    given = len(answer.prompt) + 3
    off = with_starts(request, given)
    turns = world.turns(request, names, earlier)
    bare = [NaiveTurn(replace(turn.request, method="base"), (), turn.end) for turn in turns]
    for position in (15, 30, len(answer.prompt) - 1, given - 1, given + 1):
        read = ids[: position + 1]
        base, mixture = world.engine.next_tokens([prepared.bare(), prepared], read, top=258)
        plain, _ = world.naive.read(read, bare)
        mixed, _ = world.naive.read(read, turns, without=off)
        for ours, naive in ((base.tokens, plain), (mixture.tokens, mixed)):
            expected = naive[-1].softmax(-1).sort(descending=True).values
            np.testing.assert_allclose([p for _, p in ours], expected, atol=2e-3)
            assert ours[0][0] == world.tiny.base.tokenizer.decode([int(naive[-1].argmax())])


def test_what_explains_may_stand_past_the_longest_answer(world):
    """A page explains with a request that says less than the answer has."""
    request = Request("one", method="mixture", max_new_tokens=3, ignore_eos=True)
    answer = world.answer(replace(request, max_new_tokens=12), ["bee"])
    ids = answer.prompt + answer.tokens
    prepared = world.prepare(request, ["bee"])
    turns = world.turns(request, ["bee"])
    _, mixture = world.engine.next_tokens([prepared.bare(), prepared], ids, top=3)
    logits, _ = world.naive.read(ids, turns)
    np.testing.assert_allclose(
        [p for _, p in mixture.tokens], logits[-1].softmax(-1).topk(3).values, atol=2e-3
    )


# --- the context ----------------------------------------------------------------------------------

LONG = [(f"turn {n} " + "word " * 12, "said " * 8) for n in range(5)]


def test_a_chat_past_the_context_is_the_shorter_one_where_it_may_drop_turns(world):
    request = Request("what now?", history=LONG, **GIVEN)
    turns = [["ant"], ["bee"], ["ant", "cat"], ["dog"], ["elk"]]
    dropping = replace(request, drop_turns=True)
    prompt = world.engine.read(dropping)
    kept = len(prompt.parts) - 1
    assert 0 < kept < 5 and prompt.dropped == 5 - kept
    assert len(prompt.ids) + 6 <= world.engine.facts.context
    answer = world.fresh(dropping, ["cat"], turns[prompt.dropped :], dropped=prompt.dropped)
    assert answer.answer.extra["dropped_turns"] == prompt.dropped
    shorter = replace(request, history=LONG[prompt.dropped :])
    alone = world.fresh(shorter, ["cat"], turns[prompt.dropped :])
    assert "dropped_turns" not in alone.answer.extra
    assert answer.prompt == alone.prompt and same_bits(answer.logits, alone.logits)
    same_trace(answer.answer.trace, alone.answer.trace)


CHAT = [("a", "b"), ("d", "e")]


def test_turns_that_are_mixed_one_way_share_their_tables(world):
    request = Request("c", method="meteora", options={"temperature": 2.0}, history=CHAT)
    prepared = world.prepare(request, ["ant", "bee"], [["ant", "bee"]] * len(CHAT))
    placed = [one.placement for one in world.engine._maker.segments(prepared).all]
    assert len(placed) == 1 + len(CHAT) and len({id(one) for one in placed}) == 1


def test_nothing_more_is_merged_for_a_caller_who_has_gone(world):
    request = Request("x", method="fusion", history=[("a", "b")] * 3)
    prepared = world.prepare(request, ["ant", "bee"], [["ant"], ["bee", "cat"], ["cat", "ant"]])
    store = world.engine.store
    before = store.makes
    stream = world.engine.stream(
        [prepared], cancelled=lambda: store.makes > before, waiting=lambda *_: None
    )
    (last,) = [item for _, item in stream]
    assert store.makes == before + 1 and last.finish_reason == "cancelled"


def test_a_conversation_whose_own_merges_have_no_room_is_refused(tiny_llama):
    tiny = TinyEngine(tiny_llama, EngineSizes(host_cache_bytes=1))
    request = Request("x", method="fusion", history=[("a", "b")])
    with pytest.raises(RamoleError, match="merges of this conversation take") as refused:
        tiny.submit(request, of(["ant", "bee"]), earlier=[of(["bee", "cat"])])
    assert not isinstance(refused.value, Busy)
