"""The tab Learn without a browser: the toy, the steps, the numbers in the words, the guesses."""

import asyncio
import itertools
import json
import re
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from tests.support.blocks import built
from tests.support.learn_page import learn_ramole
from tests.support.workers import REPOSITORY
from ui import build
from ui.learn import measured, toy as numbers
from ui.learn.facts import facts, filled
from ui.learn.guess import GUESSES, question_html, reveal_html
from ui.learn.kept import (
    AGREE,
    CLOSE,
    DIFFER,
    END,
    MEANING,
    K,
    gated,
    judged,
    runs,
    vectors,
)
from ui.learn.layout import LearnLayout
from ui.learn.measured import LEVEL, scores_html
from ui.learn.pictures import DOES, judged_html, vectors_html
from ui.learn.steps import STEPS, TITLES
from ui.learn.switched import added, switched_html
from ui.learn.tab import LearnHandlers, words_html
from ui.learn.toy import START, WEIGHTS, said, toy, toy_html
from ui.parts.markup import escaped
from ui.tabs import TABS

GRID = [n / 2 for n in range(-4, 5)]
"""Where a slider of x can stand."""


@pytest.fixture
def handlers():
    return LearnHandlers(learn_ramole(), built(LearnLayout))


def opened(handlers, place, *, picked=DIFFER, guessed=None, what="weights", sliders=None):
    sliders = sliders or [*START, *WEIGHTS]
    drawn = handlers.on_step(place, picked, guessed or {}, what, (), *sliders)
    return {name: drawn[part] for name, part in vars(handlers.ui).items() if _held(part, drawn)}


def _held(part, drawn):
    return not isinstance(part, list) and part in drawn


def plain(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def by_numpy(x):
    """W x, both v and the gate's weights, in float64 and without rounding."""
    W, A_r, B_r = np.array(numbers.W), np.array(numbers.A_R), np.array(numbers.B_R)
    v = [np.array(b) @ np.array(a) @ x for a, b in zip(numbers.A, numbers.B, strict=True)]
    scores = np.array([(A_r @ x) @ (B_r.T @ one) for one in v]) / np.sqrt(len(A_r))
    powers = np.exp(scores - scores.max())
    return W @ x, v, scores, powers / powers.sum()


def test_the_toy_is_the_equation_wherever_the_sliders_stand():
    differs = 0
    for x in itertools.product(GRID, repeat=3):
        base, v, scores, weights = by_numpy(np.array(x))
        given = toy(x, (0.7, 0.2))
        np.testing.assert_allclose(given.base, base, atol=1e-12)
        np.testing.assert_allclose(given.updates, v, atol=1e-12)
        np.testing.assert_allclose(given.y, base + 0.7 * v[0] + 0.2 * v[1], atol=1e-9)
        found = toy(x)
        assert found.gate is not None and given.gate is None
        np.testing.assert_allclose(found.gate.scores, scores, atol=0.00501)
        np.testing.assert_allclose(found.weights, weights, atol=0.011)
        assert sum(found.weights) == pytest.approx(1, abs=1e-9)
        np.testing.assert_allclose(
            found.y, base + found.weights[0] * v[0] + found.weights[1] * v[1], atol=1e-9
        )
        differs += abs(found.weights[0] - found.weights[1]) > 0.1
    assert differs > 300, "the gate must have something to decide"


def test_the_numbers_on_the_screen_give_those_below_them():
    for x in [START, (-2, 2, 0.5), (2, 2, 2), (0, 0, 0), (-1.5, -0.5, 1)]:
        text = plain(toy_html(toy(x))).replace("−", "-")
        sums = re.findall(
            r"number \d (-?[\d.]+) \+ ([\d.]+) · (\S+) \+ ([\d.]+) · (\S+) = (\S+)", text
        )
        assert len(sums) == 3
        for base, w1, v1, w2, v2, y in sums:
            v1, v2 = (float(v.strip("()")) for v in (v1, v2))
            assert float(base) + float(w1) * v1 + float(w2) * v2 == pytest.approx(
                float(y), abs=1e-9
            )
        parts = re.findall(r"([\d.]+) / ([\d.]+) = ([\d.]+)", text)
        assert len(parts) == 2
        for power, total, weight in parts:
            assert float(power) / float(total) == pytest.approx(float(weight), abs=0.00501)
    assert said(-0.5) == "−0.5" and said(7.6) == "7.6" and said(0) == "0"


@pytest.mark.parametrize("place", range(len(STEPS)))
def test_every_step_draws(handlers, place):
    drawn = opened(handlers, place)
    words = plain(drawn["words"])
    assert f"Step {place + 1} of 10" in words and STEPS[place].title in words
    assert not re.search(r"[{}]", words), "a fact is missing"
    assert len(STEPS[place].says) == drawn["words"].count("<p>"), "a paragraph was left out"
    shows = {"picture": bool(drawn["picture"]), "toy": place in (3, 4), "answer": place in (5, 6)}
    assert sum(shows.values()) == 1, "one picture a step"
    assert (drawn["toy"].visible, drawn["answer"].visible) == (shows["toy"], shows["answer"])
    assert drawn["guess"].visible == (place in GUESSES)
    assert place not in GUESSES or escaped(GUESSES[place].title) not in drawn["picture"]
    assert f'data-tab="{STEPS[place].tab}"' in drawn["tries"]
    assert drawn["steps"].value == TITLES[place]
    assert drawn["back"].interactive == (place > 0) and drawn["ahead"].interactive == (place < 9)
    for picture in drawn["picture"].split("<figure>")[1:]:
        assert "<figcaption" in picture and "<table" in picture
    assert "<img" not in drawn["picture"] and "${" not in drawn["picture"]
    assert ("&lt;img" in drawn["picture"]) == (place == 0), "the cards' own words"


def test_the_buttons_walk_and_stop_at_the_ends(handlers):
    chosen = (DIFFER, {}, "weights", (), *START, *WEIGHTS)
    for press, places in (
        (handlers.on_ahead, {0: 1, 9: 9, None: 1}),
        (handlers.on_back, {2: 1, 0: 0}),
    ):
        for place, other in places.items():
            assert press(place, *chosen)[handlers.ui.steps].value == TITLES[other]


def test_a_slider_and_the_gate_change_the_toy(handlers):
    by_hand = handlers.on_slide(3, *START, *WEIGHTS)
    moved = handlers.on_slide(3, *START, 0.2, 0.3)
    assert by_hand != moved and "0.2 · 2" in plain(moved) and "0.7 · 2" in plain(by_hand)
    gated_ = handlers.on_slide(4, *START, 0.2, 0.3)
    assert "0.71 · 2" in plain(gated_) and "√2" in gated_ and "√2" not in by_hand
    assert opened(handlers, 3)["by_hand"].visible and not opened(handlers, 4)["by_hand"].visible


def test_the_numbers_in_the_words_are_those_of_the_recorded_run():
    run, known = gated(), facts()
    assert run.request.method == "ramole" and len(run.experts) == K
    words = plain(words_html(6))
    for index, name in ((DIFFER, "differ"), (AGREE, "agree"), (END, "end")):
        explained = run.explained[index]
        (base, p), (mixture, q) = explained.base[0], explained.mixture[0]
        assert (base == mixture) == (name != "differ")
        assert known[f"{name}_base_chance"] == f"{100 * p:.1f}" and f"{100 * q:.1f} %" in words
        assert name == "end" or f"␣{base.strip()} " in words
        assert mixture == (run.pieces[index] or "<|im_end|>") and f"{100 * p:.1f} %" in words
    for text, chance in run.explained[CLOSE].mixture[:3]:
        assert f"{text.replace(' ', '␣')} {100 * chance:.1f} %" in words
    second, chance = run.explained[END].base[1]
    assert f"{100 * chance:.1f} % it begins one more sentence, ␣{second.strip()}" in words
    assert f"{run.gates.shape[1]} layers" in plain(words_html(5)) and run.gates.shape[2] == 7
    assert known["even"] == f"{np.log(3):.2f}"
    v = run.answer.subset_logprob[DIFFER]
    none, first, rest, every = (100 * np.exp(v[one]) for one in (0, 1, 6, 7))
    words = plain(words_html(5))
    assert f"{run.experts[0]} raises the probability from {none:.1f} %" in words
    assert f"to {first:.1f} % if it comes first" in words
    assert f"from {rest:.1f} % to {every:.1f} % if it comes last" in words


def test_similarities_are_the_products_of_the_vectors_and_those_of_the_run():
    kept, known = vectors(), facts()
    assert kept.prompt == gated().request.prompt
    prompt = np.array(kept.vector)
    assert np.linalg.norm(prompt) == pytest.approx(1, abs=1e-3) and len(prompt) > MEANING
    assert f"by chance about {MEANING // 2} agree" in plain(vectors_html())
    for name, vector in kept.adapters.items():
        assert prompt @ np.array(vector) == pytest.approx(kept.similarities[name], abs=1e-3)
    ends = [next(iter(kept.similarities)), list(kept.similarities)[-1]]
    assert list(kept.adapters) == ends == list(DOES), "the nearest and the farthest"
    taken = list(kept.similarities)[:K]
    assert taken == gated().experts
    run = {found.name: found.score for found in gated().found}
    assert [kept.similarities[one] for one in taken] == pytest.approx([run[o] for o in taken], 2e-4)
    parts = float(known["by_meaning"]) + float(known["by_words"])
    assert parts == pytest.approx(float(known["similarity"]), abs=1e-9)


def test_who_answers_follows_from_the_numbers():
    shown = judged()
    assert [one.decision for _, one in shown].count("base") >= 2
    lines = re.findall(r"(0\.\d{3}) (0\.\d{3}) (adapters|the base)", plain(judged_html()))
    for (base, threshold, _), (_, one) in zip(lines, shown, strict=True):
        assert one.decision == ("adapters" if one.similarity >= one.threshold else "base")
        assert f"{one.threshold - one.base_similarity:.3f}" == facts()["margin"]
        assert float(base) + float(facts()["margin"]) == pytest.approx(float(threshold), abs=1e-9)
        assert float(threshold) == pytest.approx(one.threshold, abs=0.0011)
    assert shown[-1][1].decision == "adapters", "the case that goes wrong is shown too"


def result(name):
    return json.loads((REPOSITORY / "results" / name).read_text())


def test_measured_numbers_are_those_of_the_files():
    tested, shown = result("test2.json"), plain(scores_html())
    for setting in ("iid", "ood"):
        for name in measured.METHODS:
            cell = tested["cells"][setting][name]
            assert f"{cell['mean']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" in shown
    among = shown[shown.index("A third time 100 adapters") :]
    for name in ("similarity", "ramole_plus"):
        cell = tested["cells"]["crowded"][name]
        assert f"{cell['mean']:.1f} [{cell['low']:.1f}, " in among
    found = result("situations_dev.json")["situations"]["open"]
    left = found["systems"]["ramole_plus"]["left"]["mean"]
    lefts = {
        name: part["systems"]["ramole_plus"]["left"]["mean"]
        for name, part in found["parts"].items()
    }
    each, (used, others, *_) = found["units"] // len(lefts), lefts.values()
    users = result("many_users.json")
    bare = users["by_clients_of_the_endpoint"]["median_times_faster"]
    rows = sum(task["rows"] for task in tested["tasks"].values())
    for place, words in (
        (9, f"So {rows} prompts"),
        (9, f"from {len(tested['tasks'])} tasks"),
        (8, f"on {found['questions']} prompts of {found['units']} kinds"),
        (8, f"together {left:.0f} ["),
        (8, f"only {lefts['far tasks']:.0f} ["),
        (8, f"of {each} everyday kinds used for the fit {used:.0f} ["),
        (8, f"of {each} others {others:.0f} ["),
        (7, f"{users['users']} browsers"),
        (7, f"median of {len(users['times_faster'])} rounds"),
        (7, f"{users['median_times_faster']:.1f} times as fast"),
        (7, f"without browsers it was {bare:.1f} times"),
    ):
        assert words in plain(words_html(place)), words


def test_perfect_is_called_level_only_where_it_was_measured_so(tmp_path):
    tested = result("test2.json")
    row = next(
        one
        for one in tested["differences"]["iid"]
        if (one["method"], one["rival"]) == ("ramole_plus", "perfect")
    )
    assert (LEVEL in scores_html()) == (row["task_low"] <= 0 < row["mean"])
    for low, mean, level in ((-0.3, 1.0, True), (0.2, 1.0, False), (-3.0, -1.0, False)):
        row |= {"task_low": low, "mean": mean}
        (tmp_path / "test2.json").write_text(json.dumps(tested))
        assert (LEVEL in scores_html(tmp_path)) == level and "Mean score" in scores_html(tmp_path)


def test_it_says_where_it_is_not_better():
    shown, tested = plain(scores_html()), result("test2.json")
    verdicts = {}
    for setting in ("iid", "ood"):
        for row in tested["differences"][setting]:
            if row["method"] == "ramole_plus" and row["rival"] in measured.RIVALS:
                low, high = row["task_low"], row["task_high"]
                side = "better" if low > 0 else "worse" if high < 0 else "cannot"
                verdicts[setting, row["rival"]] = side
                said_ = f"{row['mean']:+.1f} [{low:+.1f}, {high:+.1f}] {side}"
                assert said_.replace("-", "−") in shown
    assert set(verdicts.values()) == {"better", "worse", "cannot"}


def test_what_was_not_measured_is_left_out(tmp_path):
    known = facts(tmp_path)
    assert "users" not in known and "similarity" in known
    assert filled("{users} visitors", known) is None and filled("no facts", known) == "no facts"
    assert "Not measured yet" in scores_html(tmp_path)
    (tmp_path / "test2.json").write_text("{broken")
    assert "Not measured yet" in scores_html(tmp_path)
    (tmp_path / "test2.json").unlink()
    on_dev = (REPOSITORY / "results" / "evaluation_dev.json").read_text()
    (tmp_path / "evaluation_dev.json").write_text(on_dev)
    assert "Mean score" in scores_html(tmp_path), "dev rows, where the test was not asked"


@pytest.mark.parametrize("place", GUESSES)
def test_a_guess_hides_its_answer_until_it_is_made(handlers, place):
    guess, run = GUESSES[place], runs()[GUESSES[place].title]
    assert len(GUESSES) >= 3 and guess.text in run.answer.text and len(guess.text.strip()) > 8
    hidden, shown = guess.view(revealed=False), guess.view(revealed=True)
    assert hidden["experts"] == [] and '"e": -1' in hidden["tokens"]
    assert hidden["unknown"] and not shown["unknown"], "no adapter is not the base"
    assert guess.answer not in question_html(guess).replace(run.request.prompt, "")
    assert [one["name"] for one in shown["experts"]] == run.experts
    real = run.shares[guess.first : guess.last + 1].mean(0)
    assert guess.answer == run.experts[int(real.argmax())]
    left = 1 - sum(guess.shares.values())
    assert left > -1e-3 and ("the base would have said" in reveal_html(guess, guess.answer)) == (
        left >= 0.005
    )
    wrong = next(name for name in guess.experts if name != guess.answer)
    assert "Right." in reveal_html(guess, guess.answer)
    assert f"No, it was {guess.answer}." in plain(reveal_html(guess, wrong))
    assert f"{100 * real.max():.0f} %" in reveal_html(guess, wrong)
    assert reveal_html(guess, None) == "" and reveal_html(guess, "<i>") == ""
    ui = handlers.ui
    made = handlers.on_guess(place, wrong, {})
    assert made[ui.guessed] == {place: wrong} and made[ui.reveal]
    again = opened(handlers, place, guessed=made[ui.guessed])
    assert again["choice"].value == wrong and "No, it was" in again["reveal"]
    assert opened(handlers, place)["reveal"] == ""


def test_a_token_without_an_adapter_has_the_probability_that_was_recorded(handlers):
    """Step 6: the readings add up, and make the effects that the run was recorded with."""
    run = gated()
    for index in range(len(run.pieces)):
        did = run.did(index)
        assert len(did.subsets) == 8 and did.subsets[-1] == pytest.approx(did.mixture, abs=2e-3)
        adds = [added(did, order) for order in itertools.permutations(range(3))]
        np.testing.assert_allclose(np.mean(adds, 0), run.effects[index], atol=2e-3)
    all_there = plain(switched_html(DIFFER, ()))
    assert "With all three adapters this token has" in all_there and "Without" not in all_there
    off = handlers.on_off(DIFFER, run.experts[:1])
    assert f"Without {run.experts[0]}: " in plain(off) and "times less likely" in off
    assert "The base alone is left" in plain(handlers.on_off(DIFFER, run.experts))


def test_another_token_changes_the_pictures(handlers):
    ui = handlers.ui

    def pick(place, index, what="weights"):
        return handlers.on_pick(place, DIFFER, what, (), SimpleNamespace(_data={"index": index}))

    first, second = pick(5, 0), pick(5, 6)
    assert (first[ui.picked], second[ui.picked]) == (0, 6)
    run = gated()
    z = second[ui.plot].value
    assert z != first[ui.plot].value
    other = handlers.on_what(5, 6, "contributions", ())
    assert other[ui.plot].value != z and "contribution." in other[ui.below]
    assert "Token 7 of" in second[ui.token]
    twin = second[ui.below]
    assert twin.count("<tr>") == 1 + run.gates.shape[1] * run.gates.shape[2]
    assert "Bare base" in pick(6, 6)[ui.below] and not pick(6, 6)[ui.plot].visible
    assert pick(5, "x")[ui.picked] == DIFFER
    assert "Token 33 of" in pick(5, 999)[ui.token] and "Token 1 of" in pick(5, -3)[ui.token]


def test_nothing_else_stands_among_the_tabs():
    """Gradio counts a tab's place by what stands before it, and a timer would move those behind."""

    async def built():
        return build(learn_ramole())

    page = asyncio.run(built())
    (tabs,) = (block for block in page.blocks.values() if isinstance(block, gr.Tabs))
    assert {type(child) for child in tabs.children} == {gr.Tab} and len(tabs.children) == len(TABS)
    timers = [block for block in page.blocks.values() if isinstance(block, gr.Timer)]
    assert len(timers) >= 2, "the page still gives a sign of life"
