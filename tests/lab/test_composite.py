"""Two tasks in one prompt: whose tokens are whose, the oracle that switches, who is ahead."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from transformers import PreTrainedTokenizer

from lab.evaluation.cells import Cells
from lab.evaluation.composite import BETWEEN, SYSTEMS, compose, make_composite, measure_ahead
from lab.evaluation.composite_n import Writing, cut, draw_sets, make_composite_n, score_parts, short
from lab.evaluation.evaluate import Rows
from lab.evaluation.report import make_situation_table
from lab.evaluation.situation_run import run_situations
from lab.evaluation.situations import Crowd
from ramole_core.errors import RamoleError
from ramole_core.request import Trace
from ramole_core.training.rows import Row
from tests.support.fake_answers import AnsweringRamole

TASKS = [
    Rows(name, "", "em", tuple(Row(f"{name} {n}?", f"{name}{n}") for n in range(5)))
    for name in ("ant", "bee", "cat")
]


class Letters(PreTrainedTokenizer):
    """A tokenizer of one letter a token."""

    vocab_size = 0

    def __init__(self):
        super().__init__(eos_token="\0")
        self.chat_template = "{{ messages[0]['content'] + '\n' }}"

    def get_vocab(self):
        return {}

    def _tokenize(self, text):
        return list(text)

    def _convert_token_to_id(self, token):
        return ord(token)

    def _convert_id_to_token(self, index):
        return chr(index)


class Traced(AnsweringRamole):
    """`ramole_plus` has its weight where `leads` says, by the answer's token: 0, 1 or neither."""

    def __init__(self, leads):
        super().__init__(Crowd(("ant", "bee", "cat"), ()))
        self.leads = leads

    def _answer(self, request):
        answer = super()._answer(request)
        if not request.prefix_ids:
            return answer
        prompt = Letters().encode(request.prompt + "\n")
        ids = [*prompt, *request.prefix_ids, 0]
        weights = np.full((len(ids), 3, 2, 2), 0.5, np.float16)
        for n in range(len(request.prefix_ids) + 1):
            if (lead := self.leads(n, len(request.prefix_ids) + 1)) is not None:
                weights[len(prompt) - 1 + n, ..., lead] = 0.7
        trace = Trace(
            [""] * len(ids),
            ids,
            len(prompt),
            list(request.adapters),
            [0, 1, 2],
            ["q", "v"],
            weights,
        )
        return replace(answer, trace=trace)


def forced(asked):
    """2 nats a token where both adapters or none are asked; alone, 1 for its own part's, else 4."""
    found = []
    for row, request in asked:
        names = request.adapters or ()
        if len(names) != 1:
            found.append((2.0,) * len(row.parts))
            continue
        first = "".join(map(chr, row.encoded.prompt)).split()[0]
        own = 0 if names[0] == first else 1
        found.append(tuple(1.0 if part == own else 4.0 for part in row.parts))
    return found


def situation_with(leads, pairs=4):
    ramole = Traced(leads)
    return ramole, make_composite(ramole, forced, Letters(), TASKS, seed=0, pairs=pairs, rows=2)


def table_of(tmp_path, situation, systems=SYSTEMS):
    cells = Cells(tmp_path, {})
    run_situations([situation], cells, systems=systems)
    return make_situation_table(situation, cells, systems=systems)


def test_a_prompt_of_two_tasks_says_whose_each_token_is():
    _, situation = situation_with(lambda n, count: None)
    question = situation.groups["ant and bee"][0] if "ant and bee" in situation.groups else None
    question = question or next(iter(situation.groups.values()))[0]
    first, second = question.right
    assert question.prompt.startswith(first) and f"{BETWEEN}{second}" in question.prompt
    row = compose(question, Letters())
    answer = "".join(map(chr, row.encoded.answer[:-1]))
    assert answer == question.target and row.encoded.answer[-1] == 0
    assert row.parts == (0,) * 4 + (None,) * 2 + (1,) * 5, "the end is the second's"


def test_the_oracle_switches_and_the_way_there_is_measured(tmp_path):
    _, situation = situation_with(lambda n, count: 0 if n < count // 2 else 1)
    assert situation.count == 8 and situation.unit == "pair"
    table = table_of(tmp_path, situation)
    loss = {system: row["loss"]["mean"] for system, row in table["systems"].items()}
    assert loss["oracle"] == 1 and loss["mixture"] == loss["base"] == loss["ramole_plus"] == 2
    assert table["way"]["to"] == "oracle" and table["way"]["percent"]["ramole_plus"]["mean"] == 0
    assert table["systems"]["ramole_plus"]["ahead"]["mean"] == 100
    assert "ahead" not in table["systems"]["mixture"]


@pytest.mark.parametrize(
    ("leads", "share"),
    [
        (lambda n, count: 0, 100 * 4 / 9),  # right for the first part's four, of nine
        (lambda n, count: None, 0),  # level is not ahead
        (lambda n, count: 1 if n == count - 1 else None, 100 / 9),  # the end alone
        (lambda n, count: 0 if n == 0 else None, 100 / 9),  # the first alone
    ],
)
def test_who_is_ahead_is_counted_at_the_tokens_that_it_predicts(tmp_path, leads, share):
    _, situation = situation_with(leads)
    table = table_of(tmp_path, situation, ("ramole_plus",))
    assert table["systems"]["ramole_plus"]["ahead"]["mean"] == pytest.approx(share, abs=1e-3)


def test_contribution_is_used_where_a_trace_has_it():
    ramole, situation = situation_with(lambda n, count: 0)
    question = next(iter(situation.groups.values()))[0]
    row = compose(question, Letters())
    (found,) = situation.measure("ramole_plus", [question])
    assert set(found.measures) == {"loss", "first loss", "second loss", "ahead"}

    @dataclass(frozen=True)
    class Told(Trace):
        contribution: np.ndarray | None = None

    even, moved = np.full((40, 3, 2, 2), 0.5, np.float16), np.zeros((40, 3, 2, 2), np.float32)
    moved[..., 1] = 1.0
    start, names = len(row.encoded.prompt), list(question.right)
    told = Told([], [], start, names, [0, 1, 2], ["q", "v"], even, contribution=moved)
    shares = measure_ahead(told, row, names)
    assert shares["ahead"] == 0 and shares["leads"] == pytest.approx(100 * 5 / 9)


def test_targets_with_an_empty_line_stay_out():
    tasks = [*TASKS[:2], Rows("dog", "", "em", (Row("dog?", "a\n\nb"), Row("dog 2?", "dog2")))]
    ramole = Traced(lambda n, count: None)
    situation = make_composite(ramole, forced, Letters(), tasks, seed=0, pairs=6, rows=2)
    said = [one.target for group in situation.groups.values() for one in group]
    assert any("dog2" in target for target in said)
    assert all(target.count(BETWEEN) == 1 for target in said)


# --- several questions in one prompt --------------------------------------------------------------


NAMES = ("ant", "bee", "cat", "dog")
FOUR = [Rows(n, "", "em", tuple(Row(f"{n} {i}?", f"{n}{i}") for i in range(5))) for n in NAMES]
ASKED = ("meteora", "mixture", "base")


class Numbered(AnsweringRamole):
    """Answers the first question rightly and the second wrongly; `meteora` lets the pool's first
    adapter lead the first five tokens of an answer, and then the right one the second part."""

    def _answer(self, request):
        names = [] if request.method == "base" else list(request.adapters or NAMES)
        right = request.prompt.rpartition("number:\n\n")[2].split("\n\n")
        words = [right[0].replace(" ", "").rstrip("?"), "no"]
        tokens = ["1", ". ", words[0], "\n", "2", ". ", "n", "o"]
        ids = list(range(3 + len(tokens)))
        told = np.zeros((len(ids), 2, 3, len(names)), np.float16)
        for n in range(len(tokens)):
            if names:
                lead = (
                    names.index(right[1].split()[0]) if n > 4 and request.method == "meteora" else 0
                )
                told[2 + n, ..., lead] = 0.7
        trace = Trace(
            ["", "", "", *tokens], ids, 3, names, [0, 1], ["q", "k", "v"], told, told, told > -1
        )
        plain = super()._answer(replace(request, method="base"))
        return replace(plain, text="".join(tokens), adapters=names, trace=trace)


def situation_of(ramole, **changes):
    writing = Writing(ramole, dict.fromkeys(NAMES, "em"), 3, 5)
    rows = short(FOUR)
    return make_composite_n(writing, rows, rows, n=2, sets=6, systems=ASKED, **changes)


def test_sets_have_different_tasks_each_about_equally_often():
    sets = draw_sets(NAMES, 3, 8, seed=1)
    assert all(len(set(one)) == 3 for one in sets)
    assert {name: sum(name in one for one in sets) for name in NAMES} == dict.fromkeys(NAMES, 6)
    assert draw_sets(NAMES, 3, 8, seed=1) == sets != draw_sets(NAMES, 3, 8, seed=2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1. red\n2. blue", ["red", "blue"]),
        ("1) red\nmore\n 2: blue\n3. green\n", ["red\nmore", "blue\n3. green"]),
        ("red\n\nblue\ngreen", ["red", "blue\ngreen"]),  # no numbers: by line
        ("1. red", ["red", ""]),
        ("2. red\n1. blue", ["blue", ""]),  # in turn
        ("", ["", ""]),
    ],
)
def test_an_answer_is_cut_at_its_numbers(text, parts):
    assert [text[low:high].strip() for low, high in cut(text, 2)] == parts


def test_of_an_answer_the_first_line_counts_by_the_metric_of_its_task():
    metrics = {"ant": "em", "bee": "rouge"}
    parts = [" red\nmore", "blue sky"]
    assert score_parts(parts, ["red", "blue sky"], ("ant", "bee"), metrics) == [100, 100]
    assert score_parts(parts, ["more", "blue"], ("ant", "bee"), metrics)[0] == 0


def test_each_part_is_scored_and_whose_tokens_it_has_is_counted(tmp_path):
    situation = situation_of(Numbered(Crowd(NAMES, ())))
    assert situation.count == 6 and situation.unit == "set"
    cells = Cells(tmp_path, {})
    run_situations([situation], cells, systems=ASKED)
    table = make_situation_table(situation, cells, systems=ASKED)["systems"]
    for system in ASKED:
        assert table[system]["score"]["mean"] == table[system]["lenient"]["mean"] == 50
        assert table[system]["lenient 1"]["mean"] == 100 and table[system]["written"]["mean"] == 100
    assert "leads" not in table["base"] and table["meteora"]["found"]["mean"] == 100
    assert table["meteora"]["leads 2"]["mean"] == 100, "all tokens of the second part"
    first = [unit.split()[1].rstrip(",") == NAMES[0] for unit in situation.groups]
    second = [unit.split()[2] == NAMES[0] for unit in situation.groups]
    assert table["meteora"]["leads 1"]["mean"] == pytest.approx(100 * np.mean(first), abs=0.01)
    assert table["mixture"]["leads 2"]["mean"] == pytest.approx(100 * np.mean(second), abs=0.01)
    asked = len(situation.measure.__self__.ramole.asked)
    run_situations([situation], cells, systems=ASKED)
    assert len(situation.measure.__self__.ramole.asked) == asked, "the cells are there"


def test_who_is_named_and_what_cannot_be_asked():
    ramole = Numbered(Crowd(NAMES, ()))
    question = next(iter(situation_of(ramole, hidden=("copy",)).groups.values()))[0]
    assert question.prompt.count("Example") == 2 and question.prompt.count("?") == 6
    writing = Writing(ramole, {}, 3, 5, named=True)
    assert writing.request("mixture", question).adapters == question.right
    asked = replace(writing, named=False).request("meteora@top=1", question)
    assert (asked.exclude, asked.options, asked.max_new_tokens) == (("copy",), {"top": 1}, 10)
    with pytest.raises(RamoleError, match="5 questions .* 4 tasks have short rows"):
        rows = short(FOUR)
        make_composite_n(writing, rows, rows, n=5, sets=1, systems=ASKED)
