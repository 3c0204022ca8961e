"""The tab Learn without a browser: the toy, the steps, the numbers in the words, the guesses."""

import asyncio
import itertools
import json
import re
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from safetensors import safe_open

from tests.support.blocks import built
from tests.support.learn_page import EVIL, learn_ramole
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
    alone,
    gated,
    judged,
    runs,
    vectors,
)
from ui.learn.layout import LearnLayout
from ui.learn.measured import LEVEL, scores_html
from ui.learn.pictures import DOES, batch_html, judged_html, vectors_html
from ui.learn.steps import STEPS, TITLES
from ui.learn.switched import added, switched_html
from ui.learn.tab import LearnHandlers, picture_html, tries_html, words_html
from ui.learn.toy import START, WEIGHTS, said, shares, toy, toy_html
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


def test_the_toy_by_hand():
    """x = (1, 0.5, 1): every number worked out on paper."""
    found = toy(START, WEIGHTS)
    assert found.base == (3, 1.5, 1.5)
    assert found.units == ((2, 0.5), (-0.5, 1)) and found.updates == ((2, 0.5, 2.5), (1, -0.5, 1.5))
    assert found.y == (4.7, 1.7, 3.7)
    gate = toy(START).gate
    assert gate is not None
    assert gate.query == (1, 0.5) and gate.keys == ((2.25, 0.25), (1.25, -0.25))
    assert gate.products == (2.375, 1.125) and gate.scores == (1.68, 0.8)
    assert gate.powers == (5.37, 2.23) and shares(gate.powers) == (0.71, 0.29)


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
    assert f'data-tab="{STEPS[place].tab}"' in drawn["tries"]
    assert drawn["steps"].value == TITLES[place]
    assert drawn["back"].interactive == (place > 0) and drawn["ahead"].interactive == (place < 9)
    for picture in drawn["picture"].split("<figure>")[1:]:
        assert "<figcaption" in picture and "<table" in picture


def test_the_buttons_walk_and_stop_at_the_ends(handlers):
    chosen = (DIFFER, {}, "weights", (), *START, *WEIGHTS)
    ui = handlers.ui
    assert handlers.on_ahead(0, *chosen)[ui.steps].value == TITLES[1]
    assert handlers.on_back(2, *chosen)[ui.steps].value == TITLES[1]
    assert handlers.on_back(0, *chosen)[ui.steps].value == TITLES[0]
    assert handlers.on_ahead(9, *chosen)[ui.steps].value == TITLES[9]
    assert handlers.on_ahead(None, *chosen)[ui.steps].value == TITLES[1]


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
        assert min(p, q) > 0.5, "a lesson is clear only where both are"
        assert name == "end" or f"␣{base.strip()} " in words
        assert f"{100 * p:.1f} %" in words
        assert mixture == (run.pieces[index] or "<|im_end|>")
        if name == "differ":
            triples = run.request.prompt.partition(": ")[2].split("; ")
            assert len(triples) == 4 and all(one.split()[0] == base.strip() for one in triples)
            assert f"␣{mixture.strip()}" in words
            assert "Copper" not in "".join(run.pieces[index:]), "the name is not said again"
    assert run.pieces[-1] == "" and run.explained[len(run.pieces) - 1].mixture[0][0] == "<|im_end|>"
    assert "&lt;|im_end|&gt;" in words_html(5) and "∎" in words_html(5)
    assert END == len(run.pieces) - 1 and run.answer.finish_reason == "eos"
    assert run.answer.text.endswith("It is family friendly.")
    second, chance = run.explained[END].base[1]
    assert f"{100 * chance:.1f} % it begins one more sentence, ␣{second.strip()}" in words
    assert "familyFriendly yes" in run.request.prompt
    assert "customer rating 5 out of 5" in run.request.prompt
    assert f"{run.gates.shape[1]} layers" in plain(words_html(5)) and run.gates.shape[2] == 7
    assert known["even"] == f"{np.log(3):.2f}"
    assert not run.present[:, 0].any() and run.present[:, -1].all(), "“in the lowest layers”"


def test_what_the_base_says_alone_is_what_was_recorded():
    beside, words = gated().beside, plain(words_html(6))
    assert beside is not None and not beside.adapters
    invented = "a type of coffee that is not only delicious"
    assert invented in beside.text and f"“{invented}”" in words
    assert "delicious" not in gated().request.prompt + gated().answer.text
    for left_out in ("river", "rating"):
        assert left_out in gated().answer.text and left_out not in beside.text


def test_the_near_equals_of_step_7_are_near():
    run, words = gated(), plain(words_html(6))
    likeliest = run.explained[CLOSE].mixture
    assert likeliest[0][1] < 2 * likeliest[2][1]
    assert {text.strip() for text, _ in likeliest[:3]} == {".", "that", "with"}
    assert run.pieces[CLOSE] == "." and "It is family friendly" in run.answer.text
    for text, chance in likeliest[:3]:
        assert f"{text.replace(' ', '␣')} {100 * chance:.1f} %" in words


def test_what_an_adapter_adds_first_and_last_is_what_was_recorded():
    """Step 6: the two numbers of one adapter at the token that is picked at the start."""
    run, words = gated(), plain(words_html(5))
    v = run.answer.subset_logprob[DIFFER]
    none, first, rest, every = (np.exp(v[one]) for one in (0, 1, 6, 7))
    assert first / none > 2 * every / rest > 2, "the example must show a difference"
    assert f"{run.experts[0]} raises the probability from {100 * none:.1f} %" in words
    assert f"to {100 * first:.1f} % if it comes first" in words
    assert f"from {100 * rest:.1f} % to {100 * every:.1f} % if it comes last" in words


def test_similarities_are_the_products_of_the_vectors_and_those_of_the_run():
    kept, known = vectors(), facts()
    assert kept.prompt == gated().request.prompt
    prompt = np.array(kept.vector)
    assert np.linalg.norm(prompt) == pytest.approx(1, abs=1e-3) and len(prompt) > MEANING
    assert list(kept.adapters) == list(DOES), "the caption says what these do"
    assert f"by chance about {MEANING // 2} agree" in plain(vectors_html())
    for name, vector in kept.adapters.items():
        assert prompt @ np.array(vector) == pytest.approx(kept.similarities[name], abs=1e-3)
    ends = [next(iter(kept.similarities)), list(kept.similarities)[-1]]
    assert list(kept.adapters) == ends, "the nearest and the farthest"
    taken = list(kept.similarities)[:K]
    assert taken == gated().experts
    run = {found.name: found.score for found in gated().found}
    for name in taken:
        assert kept.similarities[name] == pytest.approx(run[name], abs=2e-4)
    parts = float(known["by_meaning"]) + float(known["by_words"])
    assert parts == pytest.approx(float(known["similarity"]), abs=1e-9)
    assert {
        path.name for path in (REPOSITORY / "adapters").iterdir() if path.name[0] != "_"
    } == set(kept.similarities)


def test_the_sizes_of_tables_are_those_of_a_real_adapter():
    folder = REPOSITORY / "adapters" / "true_case"
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    with safe_open(folder / "adapter_model.safetensors", "np") as file:
        name = next(n for n in file.keys() if "q_proj.lora_A" in n)  # noqa: SIM118
        (r, i), (o, _) = (
            file.get_slice(n).get_shape() for n in (name, name.replace("lora_A", "lora_B"))
        )
    assert (i, o, r) == (576, 576, 4)
    assert "low-rank adaptation" in plain(words_html(3))
    words = plain(words_html(3))
    assert f"576 · 576 = {i * o:,} numbers" in words and f"2 · 4 · 576 = {r * i + o * r:,}" in words


def test_who_answers_follows_from_the_numbers():
    shown = judged()
    assert [one.decision for _, one in shown].count("base") >= 2
    for _, one in shown:
        assert one.decision == ("adapters" if one.similarity >= one.threshold else "base")
        margin = one.threshold - one.base_similarity
        assert f"{margin:.3f}" == facts()["margin"]
    assert shown[-1][1].decision == "adapters", "the case that goes wrong is shown too"
    caption = plain(judged_html()).replace("“", '"').replace("”", '"')
    assert len(vectors().judged) == 3 and "No adapter fits the last three" in caption
    for said_ in ("Who are you?", "Count the words"):
        assert f'"{said_}' in caption and sum(one.startswith(said_) for one, _ in shown) == 1
    lines = re.findall(r"(0\.\d{3}) (0\.\d{3}) (adapters|the base)", plain(judged_html()))
    assert len(lines) == len(shown)
    for (base, threshold, _), (_, one) in zip(lines, shown, strict=True):
        assert float(base) + float(facts()["margin"]) == pytest.approx(float(threshold), abs=1e-9)
        assert float(threshold) == pytest.approx(one.threshold, abs=0.0011)


def result(name):
    return json.loads((REPOSITORY / "results" / name).read_text())


def test_measured_numbers_are_those_of_the_files():
    tested = result("test2.json")
    words, shown = plain(words_html(9)), plain(scores_html())
    rows = sum(task["rows"] for task in tested["tasks"].values())
    assert f"So {rows} prompts" in words and f"from {len(tested['tasks'])} tasks" in words
    for setting in ("iid", "ood"):
        for name in measured.METHODS:
            cell = tested["cells"][setting][name]
            assert f"{cell['mean']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" in shown
    crowd = tested["cells"]["crowded"]
    among = shown[shown.index("A third time 100 adapters") :]
    for name in ("similarity", "ramole_plus"):
        assert f"{crowd[name]['mean']:.1f} [{crowd[name]['low']:.1f}, " in among
    found = result("situations_dev.json")["situations"]["open"]
    left = found["systems"]["ramole_plus"]["left"]["mean"]
    far = found["parts"]["far tasks"]["systems"]["ramole_plus"]["left"]["mean"]
    words = plain(words_html(8))
    assert f"on {found['questions']} prompts of {found['units']} kinds" in words
    assert f"together {left:.0f} [" in words and f"only {far:.0f} [" in words
    lefts = [part["systems"]["ramole_plus"]["left"]["mean"] for part in found["parts"].values()]
    assert sum(lefts) / len(lefts) == pytest.approx(left, abs=1e-3), "parts of the same size"
    each = found["units"] // len(lefts)
    assert f"of {each} everyday kinds used for the fit {lefts[0]:.0f} [" in words
    assert f"of {each} others {lefts[1]:.0f} [" in words
    users, words = result("many_users.json"), plain(words_html(7))
    assert (
        f"{users['users']} browsers" in words
        and f"median of {len(users['times_faster'])} rounds" in words
    )
    assert f"{users['median_times_faster']:.1f} times as fast" in words
    bare = users["by_clients_of_the_endpoint"]["median_times_faster"]
    assert f"without browsers it was {bare:.1f} times" in words


def test_who_has_no_adapter_has_no_letter():
    """Step 8: the row that the base answers alone is grey, and no adapter's letter stands there."""
    rows = re.findall(r'<tr><th scope="row">(.*?)<br>(.*?)</th>(.*?)</tr>', batch_html())
    shown = {title: re.findall(r"<td[^>]+>([A-Z0-9]*)<span", cells) for title, _, cells in rows}
    assert [run.title for run in alone()] == list(shown)
    assert {run.request.method for run in alone()} == {"ramole_plus"}, "so the caption says"
    assert any(not run.experts for run in alone()) and "Grey without a letter" in batch_html()
    for run in alone():
        letters = shown[run.title]
        assert letters and any(letters) == bool(run.experts), run.title
    assert "(no text)" not in batch_html() and "<code>∎</code>" in batch_html()


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


def test_the_guess_is_not_given_away_above_it():
    """Step 6 shows its own answer in colours, so another one is asked about."""
    guess, run = GUESSES[5], runs()[GUESSES[5].title]
    assert (
        run is not gated() and "ramole_plus" == run.request.method and "ramole_plus" in guess.learnt
    )
    assert guess.answer == "spider_sql" and run.pieces[0] == "SELECT"
    assert run.effects[0][run.experts.index("ner_wnut17")] < -1
    assert run.contribution_shares[guess.first : guess.last + 1].mean(0).min() > 0


def test_the_guess_of_step_8_shows_that_the_nearest_need_not_do_most():
    guess, run = GUESSES[7], runs()[GUESSES[7].title]
    other = runs()["Facts to a sentence"]
    nearest = next(iter(vectors().similarities))
    assert run.request.method == "meteora" and run.request.prompt == other.request.prompt
    assert guess.text == " family friendly" and guess.answer == "e2e_nlg" != nearest
    at = other.pieces.index(" family")
    assert other.pieces[at : at + 2] == (" family", " friendly")
    shares = other.shares[at : at + 2].mean(0)
    assert other.experts[int(shares.argmax())] == guess.answer and nearest == "dart"
    assert f"{nearest} is nearest" in guess.learnt and f"{guess.answer} did most" in guess.learnt
    card = (REPOSITORY / "adapters" / "e2e_nlg" / "README.md").read_text()
    assert "restaurant, pub or coffee shop" in card and "familyFriendly" in card


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


def test_no_picture_of_a_step_gives_its_guess_away():
    for place, guess in GUESSES.items():
        assert escaped(guess.title) not in picture_html(place, []), guess.title


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


def test_hostile_words_are_inert(handlers):
    shown = opened(handlers, 0)["picture"]
    assert "<img" not in shown and "${" not in shown and "&lt;img" in shown
    assert EVIL not in shown


def test_nothing_else_stands_among_the_tabs():
    """Gradio counts a tab's place by what stands before it, and a timer would move those behind."""

    async def built():
        return build(learn_ramole())

    page = asyncio.run(built())
    (tabs,) = (block for block in page.blocks.values() if isinstance(block, gr.Tabs))
    assert {type(child) for child in tabs.children} == {gr.Tab} and len(tabs.children) == len(TABS)
    timers = [block for block in page.blocks.values() if isinstance(block, gr.Timer)]
    assert len(timers) >= 2, "the page still gives a sign of life"


def test_no_step_uses_a_word_before_it_is_explained():
    """A word is explained where it stands in bold for the first time."""
    checked = 0
    for place, step in enumerate(STEPS[:-1]):
        for word in re.findall(r"<b>([a-z ]+)</b>", " ".join(step.says)):
            if len(word) > 1:
                before = plain(" ".join(" ".join(one.says) for one in STEPS[:place])).lower()
                assert not re.search(rf"\b{word}s?\b", before), f"{word!r}, step {place + 1}"
                checked += 1
    assert checked > 15


FROM = {
    "weights?": 4,
    "mixtures?": 4,
    "low-rank": 4,
    "gates?": 5,
    "methods?": 5,
    "respon(?:ds?|ses?)": 5,
    "length of": 5,
    "contribut": 6,
    "modules?": 6,
    "entropy": 6,
    "∎": 6,
    "probabilit": 6,
    "nats?": 6,
    "threshold": 9,
    "drawn again": 9,
    "interval": 10,
}
"""The step that explains a word, whether or not it stands in bold."""
NEVER = ("experts?", "updates?", "LoRAs", "dims?", "starts with", "visitors?")
"""Words that no step explains."""


def test_no_page_uses_a_word_before_its_step():
    """Captions, table heads, lines to try and guesses count as well as paragraphs."""
    pages = [whole_page(place) for place in range(len(STEPS))]
    for word, step in FROM.items():
        assert re.search(rf"(?<!\w){word}", pages[step - 1]), f"{word!r} is not in step {step}"
        for place in range(step - 1):
            found = re.search(rf".{{0,30}}(?<![\w-]){word}.{{0,20}}", pages[place])
            assert not found, f"step {place + 1}: {found and found.group()}"
    for word in NEVER:
        for place, page in enumerate(pages):
            found = re.search(rf".{{0,30}}(?<!\w){word}(?!\w).{{0,20}}", page)
            assert not found, f"step {place + 1}: {found and found.group()}"


def whole_page(place: int) -> str:
    """Every word of a step but recorded prompts and answers and the pool's own cards."""
    parts = [words_html(place), tries_html(STEPS[place])]
    parts += [picture_html(place, [])] if place else []
    parts += [toy_html(toy(START, None if place == 4 else WEIGHTS))] if place in (3, 4) else []
    if place in GUESSES:
        parts += [question_html(GUESSES[place]), GUESSES[place].learnt]
    return plain(re.sub(r'<q class="prompt">.*?</q>', "", " ".join(parts)))
