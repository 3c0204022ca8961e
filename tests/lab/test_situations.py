"""Situations beyond the rows of one task: who is right, what is asked of whom, and what is kept."""

import json

import pytest

from lab.evaluation import command, further
from lab.evaluation.asking import Asker, judge_score
from lab.evaluation.cells import Cells
from lab.evaluation.evaluate import (
    Rows,
    draw_pairs,
    make_copied,
    make_switch,
    make_unseen,
    read_rows,
)
from lab.evaluation.further import (
    FAR_PART,
    FITTED,
    FURTHER,
    HELD_OUT,
    Material,
    fitted_half,
    make_chats,
    make_open,
    make_phrased,
    make_uploads,
)
from lab.evaluation.intervals import share_of_way
from lab.evaluation.questions import Found, Question, Situation
from lab.evaluation.report import make_situation_table
from lab.evaluation.situation_run import (
    Pace,
    count_left,
    estimate_whole,
    run_situations,
)
from lab.evaluation.situations import SITUATIONS, Crowd
from lab.evaluation.systems import (
    ORDER,
    RANDOM,
    Ask,
    Way,
    describe,
    draw_weights,
    read_way,
)
from ramole_core.errors import RamoleError
from ramole_core.training.prompt_sets import (
    Everyday,
    FollowUp,
    Phrased,
    Upload,
    read_everyday,
)
from ramole_core.training.rows import Row
from tests.support.fake_answers import AnsweringRamole

CROWD = Crowd(samples=("ant", "bee", "cat"), distractors=("copy1-ant", "other-x"))
HIDDEN = CROWD.distractors
ASK = Ask(k=2, tokens=5)
TASKS = [
    Rows(name, "", "em", tuple(Row(f"{name} {n}?", f"of {name}") for n in range(6)))
    for name in ("ant", "bee", "cat")
]


@pytest.fixture
def ramole():
    return AnsweringRamole(CROWD)


def table_of(tmp_path, situation, systems=None):
    """The situation, run and told."""
    systems = systems or situation.systems
    cells = Cells(tmp_path, {})
    run_situations([situation], cells, systems=systems)
    return make_situation_table(situation, cells, systems=systems)


def mean(table, system, measure):
    return table["systems"][system][measure]["mean"]


# --- who is right ---------------------------------------------------------------------------------


def test_phrased_counts_who_is_first_and_what_is_left_to_the_base(ramole, tmp_path):
    prompts = [Phrased("ant", "ant please"), Phrased("ant", "bee no I mean an ant")]
    prompts += [Phrased("bee", "bee please"), Phrased("bee", "bee now")]
    ramole.leaves = {"bee now"}
    table = table_of(tmp_path, make_phrased(ramole, prompts, hidden=HIDDEN, ask=ASK))
    assert (table["unit"], table["units"], table["questions"]) == ("adapter", 2, 4)
    assert mean(table, "selection", "right") == 75 and mean(table, "selection", "left") == 0
    assert mean(table, "ramole_plus", "right") == 50 and mean(table, "ramole_plus", "left") == 25
    parts = table["parts"]  # ant's were fitted on, so bee's decide
    assert mean(parts[FITTED], "ramole_plus", "right") == 50
    assert mean(parts[HELD_OUT], "ramole_plus", "left") == 50
    assert {r.max_new_tokens for r in ramole.asked} == {1}, "who answers is known at once"
    assert {r.exclude for r in ramole.asked} == {HIDDEN}


def test_a_follow_up_keeps_and_a_change_leaves_the_adapter(ramole, tmp_path):
    chats = [
        FollowUp("ant", "ant 1", "yes", "and this one", "ant"),
        FollowUp("bee", "bee 1", "yes", "now the same", "bee"),
        FollowUp("ant", "ant 2", "yes", "bee instead", "bee"),
        FollowUp("ant", "ant 3", "yes", "who are you", None),
        FollowUp("ant", "ant 4", "yes", "bee who are you", None),
    ]
    ramole.keeps, ramole.leaves = {"and this one", "now the same"}, {"who are you"}
    chats.append(FollowUp("bee", "bee 2", "yes", "and then", "bee"))
    kept, changed = make_chats(ramole, chats, fitted=chats[-1:], hidden=HIDDEN, ask=ASK)
    table = table_of(tmp_path, kept)
    assert set(kept.groups) == {"ant", "bee", "bee, fitted on"}
    table = table["parts"][HELD_OUT]
    assert mean(table, "ramole_plus", "right") == 100 and mean(table, "selection", "right") == 50
    assert table["compared by"] == "right"
    gap = next(one for one in table["differences"] if one["rival"] == "selection")
    assert gap["mean"] == 50 and gap["low"] == 0, "two adapters' interval holds 0"
    other = table_of(tmp_path, changed)
    assert mean(other, "ramole_plus", "right") == pytest.approx(200 / 3, abs=0.01)
    assert mean(other, "selection", "right") == pytest.approx(100 / 3, abs=0.01)


def test_rivals_are_found_anew_for_each_turn_and_ours_as_they_serve(ramole, tmp_path):
    question = Question("bee 1?", ("ant", "bee"), (("ant 0?", "yes"),), "of bee", "em", HIDDEN)
    situation = make_switch(ramole, TASKS, hidden=HIDDEN, ask=ASK, seed=0, pairs=1, chats=1)
    asked = {}
    for system in situation.systems:
        ramole.asked.clear()
        situation.measure(system, [question])
        (asked[system],) = ramole.asked
    turns = {system: request.history[0].adapters for system, request in asked.items()}
    assert turns["base"] == () and turns["perfect"] == ("ant",)
    assert asked["perfect"].adapters == ("bee",)
    assert turns["selection"] == ("ant",) and asked["selection"].adapters == ("bee",)
    for system in ("mixture", "similarity", "uniform_router", "random_router", RANDOM):
        assert turns[system] == ("ant", "bee") and asked[system].adapters == ("bee", "ant")
    assert asked[RANDOM].weights == draw_weights("bee 1?", 2)
    for system in ("ramole", "ramole_plus"):
        assert turns[system] is None and asked[system].adapters is None
        assert asked[system].exclude == HIDDEN


def test_a_rival_that_is_asked_to_abstain_is_asked_as_it_serves(ramole, monkeypatch):
    told = []
    monkeypatch.setattr(Way, "of", lambda way, request: told.append(way) or request)
    question = Question("bee 1?", ("ant", "bee"), (("ant 0?", "yes"),), "of bee", "em", HIDDEN)
    asker = Asker(ramole, ASK, judge_score)
    request = asker.request("similarity@abstain=true", question)
    assert told[0].abstain and request.adapters is None and request.history[0].adapters is None
    request = asker.request("similarity@abstain=false", question)
    assert told[1].abstain is False and request.adapters == ("bee", "ant")
    monkeypatch.undo()
    its_own = asker.request("llava_mole", question)
    assert its_own.adapters is None and its_own.history[0].adapters is None


def test_switch_scores_the_second_answer_and_says_how_far_it_is_to_the_right_one(ramole, tmp_path):
    situation = make_switch(ramole, TASKS, hidden=HIDDEN, ask=ASK, seed=0, pairs=6, chats=4)
    assert len(situation.groups) == 6 and situation.count == 24
    for name, questions in situation.groups.items():
        first, second = name.split(", then ")
        assert first != second
        for one in questions:
            assert one.right == (first, second) and one.prompt.startswith(second)
            assert one.history[0][0].startswith(first) and one.history[0][1] == f"of {first}"
            assert one.target == f"of {second}"
    ramole.keeps = {one.prompt for one in next(iter(situation.groups.values()))}  # the wrong one
    table = table_of(tmp_path, situation)
    assert mean(table, "selection", "score") == mean(table, "perfect", "score") == 100
    assert mean(table, "base", "score") == 0
    assert 0 < mean(table, "ramole_plus", "score") < 100
    gap = next(d for d in table["differences"] if d["rival"] == "selection")
    assert gap["method"] == "ramole_plus" and gap["mean"] < 0


def test_uploads_are_their_owner_s(ramole, tmp_path):
    ramole.names += ("chatty",)
    uploads = [Upload("chatty", ("hi",), ("chatty talk", "ant talk"))]
    situation = make_uploads(ramole, uploads, hidden=HIDDEN, owner="me", ask=ASK)
    table = table_of(tmp_path, situation)
    assert mean(table, "selection", "right") == 50
    assert {r.owner for r in ramole.asked} == {"me"}


def test_open_tells_fitted_families_from_others_and_compares_with_the_base(ramole, tmp_path):
    prompts = [Everyday(f, f"{f} {n}") for f in ("talk", "poem", "food", "maths") for n in (1, 2)]
    far = {"far": [Rows("far", "", "em", (Row("far 1?", "x"),))]}
    situation = make_open(ramole, prompts, far, hidden=HIDDEN, ask=ASK)
    assert fitted_half(one.family for one in prompts) == ("talk", "food")
    ramole.leaves = {"poem 1", "poem 2", "maths 1", "talk 1"}
    table = table_of(tmp_path, situation)
    assert (table["unit"], table["questions"]) == ("family", 9)
    parts = table["parts"]
    assert mean(parts[HELD_OUT], "ramole_plus", "right") == 75
    assert mean(parts[HELD_OUT], "ramole_plus", "same") == 75
    assert mean(parts[FITTED], "ramole_plus", "right") == 25
    assert mean(parts[FAR_PART], "ramole_plus", "right") == 0
    for system in ("selection", "mixture", RANDOM):
        assert mean(table, system, "same") == 0 and mean(table, system, "right") == 0
    assert mean(table, "base", "same") == 100 and mean(table, "base", "likeness") == 100
    assert mean(table, "base", "right") == 100, "it is the base that answers"
    assert set(table_of(tmp_path, situation.cut(1))["parts"]) == {FITTED}


def test_open_asks_the_base_once_for_each_prompt(ramole, tmp_path):
    prompts = [Everyday("talk", f"talk {n}") for n in range(3)]
    situation = make_open(ramole, prompts, {}, hidden=HIDDEN, ask=ASK)
    table_of(tmp_path, situation, ["selection", "mixture", "base"])
    assert sum(r.method == "base" for r in ramole.asked) == 6  # beside selection; and as a system
    assert all(r.trace for r in ramole.asked), "token for token needs the tokens"


def test_the_written_families_are_halved():
    families = [one.family for one in read_everyday()]
    assert len(set(families)) == 10 and len(fitted_half(families)) == 5


def test_unseen_tasks_have_no_right_adapter(ramole, tmp_path):
    tasks = [Rows("dog", "", "em", (Row("dog 1?", "of ant"), Row("dog 2?", "hm")))]
    ramole.leaves = {"dog 2?"}
    situation = make_unseen(ramole, tasks, hidden=HIDDEN, ask=ASK)
    assert "perfect" not in situation.systems and set(situation.systems) >= {"base", RANDOM}
    table = table_of(tmp_path, situation)
    assert mean(table, "ramole_plus", "score") == 100 and mean(table, "ramole_plus", "left") == 50
    assert mean(table, "mixture", "score") == 50 and mean(table, "base", "score") == 50


def test_copies_are_what_is_found_and_the_samples_are_hidden(ramole, tmp_path):
    ramole.names += ("unnamed-1", "unnamed-2", "unnamed-3")
    copies = dict(zip(("ant", "bee", "cat"), ramole.names[-3:], strict=True))
    situation = make_copied(
        ramole, TASKS, copies, name="blind", what="", hidden=ramole.names[:5], owner="me", ask=ASK
    )
    table = table_of(tmp_path, situation)
    assert mean(table, "selection", "right") == pytest.approx(100 / 3, abs=0.01)
    assert mean(table, "perfect", "right") == 100
    found = {name for r in ramole.asked for name in (r.adapters or ())}
    assert found <= set(copies.values())
    assert {r.exclude for r in ramole.asked if r.method == "mixture" and not r.adapters} == {
        ramole.names[:5]
    }


# --- what is drawn --------------------------------------------------------------------------------


def test_pairs_are_ordered_and_balanced():
    names = [f"t{n}" for n in range(24)]
    pairs = draw_pairs(names, 50, seed=0)
    assert len(set(pairs)) == 50 and all(a != b for a, b in pairs)
    for place in (0, 1):
        counts = [sum(pair[place] == name for pair in pairs) for name in names]
        assert max(counts) - min(counts) <= 1
    assert pairs == draw_pairs(names, 50, seed=0) != draw_pairs(names, 50, seed=1)
    assert sorted(draw_pairs(["a", "b"], 9, seed=0)) == [("a", "b"), ("b", "a")]
    assert draw_pairs(["a"], 9, seed=0) == []


def write_tasks(folder, names):
    """Ten rows of each split; every text says its split."""
    for name in names:
        (folder / name).mkdir()
        for split in ("train", "dev", "test", "test2"):
            rows = [
                {"inputs": f"{name} {split} {n}?", "targets": f"{split} {n}", "metric": "em"}
                for n in range(10)
            ]
            text = "\n".join(json.dumps(row | {"domain": ""}) for row in rows)
            (folder / name / f"{split}.jsonl").write_text(text)


def test_no_row_of_another_split_is_asked_and_none_that_is_skipped(ramole, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    write_tasks(data, ["ant", "bee", "cat", "dog", "emu"])
    monkeypatch.setattr(further, "FAR", {"birds": ("emu",)})
    monkeypatch.setattr(further, "FAR_ROWS", 3)
    tasks = read_rows(data, CROWD.samples, split="dev", count=4, skip=5)
    material = Material(ramole, CROWD, data, tasks, ASK, 0, "dev", 4, 5)
    for name in ("unseen", "switch", "open"):
        situation = FURTHER[name](material)
        said = [
            text
            for group in situation.groups.values()
            for one in group
            for text in (one.prompt, *(text for turn in one.history for text in turn))
        ]
        rows = [text for text in said if text.split()[0] in ("ant", "bee", "cat", "dog", "emu")]
        assert rows and all(" dev " in text for text in rows)
        assert {int(text.split()[-1].strip("?")) for text in rows} <= set(range(5, 9))
    unseen = FURTHER["unseen"](material)
    assert set(unseen.groups) == {"dog", "emu"}


# --- what is kept ---------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_and_asks_nothing_twice(ramole, tmp_path):
    situation = make_switch(ramole, TASKS, hidden=HIDDEN, ask=ASK, seed=0, pairs=6, chats=24)
    systems = ("selection", "mixture")
    cells = Cells(tmp_path, {})
    ramole.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        run_situations([situation], cells, systems=systems)
    done = list(cells.folder.glob("*/*/*.json"))
    assert 0 < len(done) < 12
    left = count_left([situation], cells, systems=systems)
    assert sum(left.values()) == 24 * (12 - len(done))
    cells.release()
    ramole.stop_after, ramole.asked = None, []
    told = []
    run_situations([situation], cells, systems=systems, told=told.append)
    assert len(ramole.asked) == 24 * (12 - len(done))
    assert told[0].startswith("switch") and f"{24 * (12 - len(done))} questions left" in told[0]
    ramole.asked = []
    run_situations([situation], cells, systems=systems)
    assert not ramole.asked


def test_other_questions_have_other_cells(ramole):
    prompts = [Phrased("ant", "ant please")]
    one = make_phrased(ramole, prompts, hidden=HIDDEN, ask=ASK)
    same = make_phrased(ramole, prompts, hidden=HIDDEN, ask=ASK)
    other = make_phrased(ramole, [Phrased("ant", "ant, now")], hidden=HIDDEN, ask=ASK)
    assert one.place("selection") == same.place("selection") != other.place("selection")


def test_what_does_not_retrieve_is_taken_from_the_rows_cells(ramole, tmp_path):
    copies = {name: name for name in CROWD.samples}
    situation = make_copied(
        ramole, TASKS, copies, name="blind", what="", hidden=HIDDEN, owner="me", ask=ASK
    )
    assert situation.place("base") == situation.place("perfect") == "alone"
    assert situation.place("mixture") != "alone"
    assert situation.cut(1).place("base") != "alone", "a trial asks other rows"


def test_a_cell_that_is_missing_leaves_its_system_out(ramole, tmp_path):
    situation = make_switch(ramole, TASKS, hidden=HIDDEN, ask=ASK, seed=0, pairs=2, chats=1)
    cells = Cells(tmp_path, {})
    run_situations([situation.cut(1)], cells, systems=("mixture",))
    run_situations([situation], cells, systems=("selection",))
    table = make_situation_table(situation, cells, systems=("selection", "mixture"))
    assert set(table["systems"]) == {"selection"}


def test_known_systems_run_where_they_can_differ_and_new_ones_everywhere(ramole):
    situation = make_phrased(ramole, [Phrased("ant", "ant")], hidden=HIDDEN, ask=ASK)
    wanted = [*ORDER, "similarity@abstain=true", "oracle"]
    assert situation.asked(wanted) == ["selection", "ramole_plus", "similarity@abstain=true"]
    trial = make_switch(ramole, TASKS, hidden=HIDDEN, ask=ASK, seed=0).cut(2)
    assert len(trial.groups) == 2 and trial.count == 4


# --- numbers --------------------------------------------------------------------------------------


def test_units_count_alike_and_intervals_draw_them(tmp_path):
    def measure(system, questions):
        return [Found((), {"right": float(one.prompt == "good") * 100}) for one in questions]

    groups = {
        "many": tuple(Question("good", (None,)) for _ in range(30)),
        "few": (Question("bad", (None,)),),
    }
    situation = Situation("phrased", "", "adapter", ("selection",), groups, measure)
    table = table_of(tmp_path, situation)
    assert table["systems"]["selection"]["right"] == {"mean": 50.0, "low": 0.0, "high": 100.0}


def test_the_share_of_the_way():
    found = share_of_way([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], [1.5, 1.5, 1.5])
    assert found and (found.mean, found.low, found.high) == (50, 50, 50)
    found = share_of_way([0.0, 0.0], [10.0, 30.0], [0.0, 30.0])  # of the sums, not of the shares
    assert found and found.mean == 75 and found.low == 0 and found.high == 100
    assert share_of_way([1.0, 2.0], [1.0, 2.0], [3.0, 4.0]) is None


def test_the_pace_estimates_what_is_left():
    pace = Pace()
    assert pace.left({("switch", "ramole"): 10}) == 0
    pace.add("switch", "base", 10, 5.0)
    pace.add("open", "base", 10, 20.0)
    assert pace.left({("switch", "ramole"): 10}) == 5.0, "as the situation's other systems"
    assert pace.left({("blind", "ramole"): 10}) == 12.5, "as everything"
    assert pace.left({("open", "base"): 2, ("switch", "base"): 2}) == 5.0, "each as it was"


def test_hours_of_whole_situations(ramole):
    pace = Pace()
    pace.add("switch", "mixture", 1, 3600.0)
    whole = make_switch(ramole, TASKS, hidden=HIDDEN, ask=ASK, seed=0, pairs=6, chats=4)
    assert estimate_whole([whole], pace, systems=("mixture", "base")) == {"switch": 48.0}


def test_a_system_may_be_changed_after_an_at():
    way = read_way("similarity@abstain=true")
    assert (way.method, way.options, way.abstain) == ("similarity", None, True)
    way = read_way("ramole_plus@surprise=0@abstain=false")
    assert (way.method, way.options, way.abstain) == ("ramole_plus", {"surprise": 0}, False)
    assert describe("ramole_plus@surprise=0").endswith("(surprise=0)")
    with pytest.raises(RamoleError, match="no option 'surprize'"):
        describe("ramole_plus@surprize=0")
    with pytest.raises(RamoleError, match="true or false"):
        read_way("ramole_plus@abstain=3")


def test_random_weights_are_far_from_equal_and_the_prompt_s_own():
    drawn = [draw_weights(f"prompt {n}", 3) for n in range(200)]
    assert drawn[0] == draw_weights("prompt 0", 3) != drawn[1]
    assert all(abs(sum(weights) - 1) < 1e-9 for weights in drawn)
    assert sum(max(weights) for weights in drawn) / 200 > 0.55


def test_the_command_names_every_situation():
    assert command.SITUATIONS.split(",") == [*SITUATIONS, *FURTHER]
