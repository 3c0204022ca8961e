"""Files of prompts: every way to write a row, and a sentence with its line for every slip."""

import json
from collections import Counter
from pathlib import Path

import pytest

from ramole_core.batch.formats import JSON_ALONE, kind_of
from ramole_core.batch.prompt_file import read_batch, read_batch_file
from ramole_core.batch.rows import BatchLimits
from ramole_core.batch.run import refuse_unfit, run_rows
from ramole_core.errors import Busy, RamoleError
from ramole_core.methods import DEFAULT_METHOD
from ramole_core.request import Generation, Request, Step
from ramole_core.text_file import decode
from tests.support.fake_ramole import WORDS, FakeRamole, Late

FULL = {
    **{"prompt": "Which\nboats?", "method": "mixture", "k": 2, "adapters": ["ant", "bee"]},
    **{"weights": [0.25, -0.5], "exclude": ["cat"], "temperature": 0.5, "seed": 3},
    **{"stop": ["\n"], "system": "Be brief.", "split": False},
}
TALK = {
    "history": [["one", "1"], ["two", "2", ["ant"]], ["three", "", []]],
    "drop_turns": True,
    "prefix_ids": [4, 5],
    "without": [["ant", 3, "q_proj"], [None, None, None, 7]],
    "later_weights": {"ant": 0.5},
}


def sentences(text: str, **options) -> list[tuple[int, str]]:
    return [(row.line, row.sentence) for row in read_batch(text, **options).bad]


def test_what_is_null_is_unsaid():
    nothing = json.dumps({**FULL, **dict.fromkeys(TALK)})
    assert read_batch(nothing).rows[0].request == Request(**FULL, trace=False)


@pytest.mark.parametrize("name", JSON_ALONE)
def test_csv_has_no_conversation(name: str):
    with pytest.raises(RamoleError, match=f"column '{name}' needs lists in lists.*as jsonl"):
        read_batch(f"prompt,{name}\nx,true")


def test_a_row_s_fields_come_before_the_defaults_and_these_before_those_of_a_request():
    text = '{"prompt": "a", "k": 5}\n{"prompt": "b", "k": null}\n"c"'
    rows = read_batch(text, defaults={"k": 2, "method": "mixture"}, owner="me").rows
    assert [row.request.k for row in rows] == [5, 2, 2]
    assert {row.request.method for row in rows} == {"mixture"}
    assert {row.request.owner for row in rows} == {"me"}
    assert rows[0].request.max_new_tokens == Request("x").max_new_tokens


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Which boats?\nAnd where?", "lines"),
        ('"To be" or not?', "lines"),
        ("17", "lines"),
        ('\n{"prompt": "a"}', "jsonl"),
        ('{"prompt": broken', "jsonl"),
        ('"a string"', "jsonl"),
        ('[{"prompt": "a"}]', "jsonl"),
        ('[\n{"prompt": "a"},', "jsonl"),
        ("prompt\na", "csv"),
        ("id;Prompt\n1;a", "csv"),
        ('"prompt"\t"k"\na\t3', "csv"),
    ],
)
def test_a_text_without_a_name_says_itself_what_it_is(text: str, kind: str):
    assert kind_of(text) == kind == read_batch(text).kind


@pytest.mark.parametrize("between", [",", ";", "\t", "|"])
def test_csv_with_any_usual_delimiter_quotes_and_blank_lines(between: str):
    text = f'\n Prompt {between}K\r\n"a{between} ""b"""{between}4\r\n\r\nc\r\n'
    first, second = read_batch(text).rows
    assert first.request.prompt == f'a{between} "b"' and first.request.k == 4
    assert second.request.prompt == "c" and second.request.k == 3
    assert (first.line, second.line) == (3, 5) and (first.index, second.index) == (0, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("options", '{"top": HUGE}'),
        ("logit_bias", '{"5": HUGE}'),
        ("later_weights", '{"ant": HUGE}'),
        ("temperature", "HUGE"),
        ("seed", "HUGE"),
    ],
)
def test_a_whole_number_beyond_a_float_s_range_refuses_its_row_alone(name: str, value: str):
    value = value.replace("HUGE", "1" + "0" * 400)
    batch = read_batch(f'{{"prompt": "a"}}\n{{"prompt": "x", "{name}": {value}}}\n"b"')
    assert [row.line for row in batch.rows] == [1, 3]
    ((line, sentence),) = [(row.line, row.sentence) for row in batch.bad]
    assert line == 2 and name in sentence and len(sentence) < 300


@pytest.mark.parametrize(
    "text",
    [
        "question,text\nq1,c1\n,c2\n",
        "text,question\nc1,q1\nc2\n",
        "input,prompt,text\ni1,q1,c1\ni2, ,c2\n",
    ],
)
def test_the_header_says_which_column_of_csv_is_the_prompt_also_where_its_cell_is_empty(text):
    batch = read_batch(text, kind="csv")
    assert [row.request.prompt for row in batch.rows] == ["q1"]
    assert [(row.line, row.sentence) for row in batch.bad] == [
        (3, "The prompt is empty; type one.")
    ]


def test_other_columns_are_carried_along_and_never_applied():
    text = '{"prompt": "a", "label": {"x": 1}, "owner": "somebody", "trace": true, "id": "r1"}'
    batch = read_batch(text)
    (row,) = batch.rows
    assert row.extra == {"label": {"x": 1}, "owner": "somebody", "trace": True}
    assert row.request.owner is None and row.request.trace is False and row.id == "r1"
    assert batch.unused == ("label", "owner", "trace")


def test_bad_rows_stand_beside_the_good_with_line_and_sentence():
    text = "\n".join(
        [
            '{"prompt": "good"}',
            "",
            '{"prompt": "k", "k": "many"}',
            '{"prompt": }',
            '{"prompt": "x", "promt": "y"}',
            '{"prompt": "x", "prompt": "y"}',
            '{"k": 3}',
            "[1, 2]",
            '{"prompt": "x", "temperature": NaN}',
            '{"prompt": "\\ud83d"}',
            "[" * 100_000,
            '{"prompt": "x", "adapters": "[a"}',
            '{"prompt": "x", "id": [1]}',
            '{"prompt": "last"}',
            '{"prompt": "x", "score": {"of": [-1e999]}}',
        ]
    )
    batch = read_batch(text)
    assert [(row.index, row.line) for row in batch.rows] == [(0, 1), (12, 14)]
    wanted = {
        3: "k='many'; give a whole number.",
        4: "not JSON of one row",
        5: "'promt' is not known; did you mean 'prompt'?",
        6: "'prompt' is there twice",
        7: "The prompt is empty",
        8: "not JSON of one row",
        9: "NaN is not a number",
        10: "half of a character",
        11: "not JSON of one row",
        12: "this list is not JSON",
        13: "id=[1]",
        15: "-1e999 is beyond 1.8e308, the largest number; write a smaller one, or a text.",
    }
    told = {row.line: row.sentence for row in batch.bad}
    assert told.keys() == wanted.keys()
    for line, part in wanted.items():
        assert part in told[line] and "\n" not in told[line], line
    assert all(len(row.text) <= 80 and row.text.encode() for row in batch.bad)


def test_bad_rows_of_csv():
    assert sentences("prompt,k\na,2\nb,many\nc,1,2\n,3") == [
        (3, "k='many'; give a whole number."),
        (4, "3 cells, but the header names 2 columns."),
        (5, "The prompt is empty; type one."),
    ]
    broken = read_batch('prompt,k\na,2\n"b,3\nc,4\n')
    assert [row.request.prompt for row in broken.rows] == ["a"]
    assert [row.line for row in broken.bad] == [3]
    assert "this and all after it was not read" in broken.bad[0].sentence


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("", None, "There is no row"),
        ("prompt,k\n", None, "There is no row"),
        ("ask,k\na,2", "csv", "no column named prompt, question, text or input, but ask,k"),
        ("prompt,temprature\na,2", None, "did you mean 'temperature'?"),
        ("prompt,k,k\na,2,3", None, "'k' is there twice"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_one_sentence(text, kind, part):
    with pytest.raises(RamoleError) as told:
        read_batch(text, kind=kind)
    assert part in str(told.value)


def test_limits():
    limits = BatchLimits(rows=2, characters=5, adapters=4)
    told = sentences('{"prompt": "123456"}\n{"prompt": "x", "k": 5}', limits=limits)
    assert told == [
        (1, "The prompt has 6 characters, and 5 is the most."),
        (2, "5 adapters are asked for, and 4 is the most."),
    ]
    talk = json.dumps({"prompt": "12", "history": [["34", "56", list("abcde")]]})
    assert sentences(talk, limits=limits) == [
        (1, "The conversation has 6 characters, and 5 is the most.")
    ]
    wide = "\n".join(f'{{"prompt": "a", "my {n}": 1, "all": 2}}' for n in range(4))
    assert len(read_batch(wide, limits=BatchLimits(columns=5)).unused) == 5
    with pytest.raises(RamoleError, match="more than 4 columns that no request has"):
        read_batch(wide, limits=BatchLimits(columns=4))
    assert "5 adapters" in sentences(talk, limits=BatchLimits(adapters=4))[0][1]
    with pytest.raises(RamoleError, match="more than 2 rows"):
        read_batch("a\nb\nc", limits=limits)
    named = json.dumps({"prompt": "x", "adapters": list("abcde")})
    assert "5 adapters" in sentences(named, limits=limits)[0][1]


def test_files_by_their_endings_and_their_bytes(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("\ufeffprompt\nblå".encode())
    (tmp_path / "b.txt").write_bytes("prompt;k\nblå;3".encode("utf-16"))
    (tmp_path / "c.jsonl").write_bytes(b'"a"\n{"prompt": "\xe2\x80\xa8b"}\n')
    (tmp_path / "d.csv").write_bytes(b"prompt\nok\nbl\xe5")
    for name in "a.csv", "b.txt":
        assert read_batch_file(tmp_path / name).rows[0].request.prompt == "blå"
    assert [row.line for row in read_batch_file(tmp_path / "c.jsonl").rows] == [1, 2]
    with pytest.raises(RamoleError, match="d.csv is not UTF-8 text at line 3"):
        read_batch_file(tmp_path / "d.csv")
    with pytest.raises(RamoleError, match="not UTF-8"):
        decode(b"\xff\xfe\x00", "x")


def test_a_csv_cell_of_any_length_leaves_the_rows_after_it_readable():
    long = "x" * 140_000  # Python's own limit of a cell is 131,072
    batch = read_batch(f"prompt\nfirst\n{long}\nlast\n", limits=BatchLimits(characters=140_000))
    assert [row.request.prompt for row in batch.rows] == ["first", long, "last"]


def test_the_digest_changes_with_whatever_decides_the_answer():
    def digest(row: dict, **options) -> str:
        return read_batch(json.dumps(row), **options).rows[0].digest

    same = digest(FULL)
    assert same == digest(FULL, owner="me", defaults={"k": 9})
    assert same == digest({**FULL, "label": 1}) and len(same) == 16
    changed = {"prompt": "other", "method": "ramole", "k": 5, "seed": 4, "raw": True, "system": "x"}
    changed |= {"weights": [0.25, 0.5], "stop": ["x"], "id": "z", "temperature": 0.25}
    changed |= TALK
    bare = {key: value for key, value in FULL.items() if key != "system"}
    rows = [{**(bare if key == "raw" else FULL), key: value} for key, value in changed.items()]
    assert len({same, digest(bare), *map(digest, rows)}) == 17
    old = {"prompt": "x", "method": "ramole"}  # which a row that said none had once
    assert digest(old) == "d9082a6b566b1d73"  # what it was before conversations
    assert digest({"prompt": "x"}) == digest({**old, "method": DEFAULT_METHOD}) != digest(old)
    bare = {"prompt": "x"}
    assert digest(bare) != digest(bare, defaults={"k": 9})


# Running them


def told(events) -> dict[int, str]:
    ends = {}
    for row, item in events:
        if not isinstance(item, Step):
            assert row.index not in ends
            ends[row.index] = item.text if isinstance(item, Generation) else f"! {item}"
    return ends


class LastRefused(FakeRamole):
    """Refuses a bad prompt at its end, when rows before it have their answers."""

    def stream_batch(self, requests, **options):
        for index, item in super().stream_batch(requests, **options):
            if isinstance(item, Generation) and requests[index].prompt == "bad":
                raise RamoleError("It does not fit.")
            yield index, item


def test_a_row_that_has_its_answer_does_not_run_again():
    ends = told(run_rows(LastRefused(), read_batch("good\nbad\nfine").rows))
    assert sorted(ends) == [0, 1, 2] and ends[1] == "! It does not fit."


class Choosy(FakeRamole):
    """Refuses a call for one bad prompt, before anything runs; MAX_BATCH is 1."""

    def __init__(self, busy: int = 0):
        super().__init__(
            max_batch=1, refuses=lambda one: f"{one.prompt} is too long." * ("bad" in one.prompt)
        )
        self.busy, self.calls = busy, []

    def stream_batch(self, requests, **options):
        self.calls.append([request.prompt for request in requests])
        if self.busy:
            self.busy -= 1
            raise Busy("Too many wait.")
        yield from super().stream_batch(requests, **options)


def test_a_row_that_the_engine_refuses_is_found_and_the_others_run():
    prompts = [f"p{i}" for i in range(11)]
    prompts[2], prompts[6], prompts[10] = "bad 2", "bad 6", "bad 10"
    ramole = Choosy()
    ends = told(run_rows(ramole, read_batch("\n".join(prompts)).rows))
    assert sorted(ends) == list(range(11))
    refused = {index: text for index, text in ends.items() if text.startswith("!")}
    assert refused == {i: f"! bad {i} is too long." for i in (2, 6, 10)}
    assert len(ramole.calls[0]) == 8  # a window


def test_a_row_that_is_asked_from_its_beginning_again_is_named_first():
    tokens = Counter[str]()
    rows = read_batch("bad a\ngood\nbad b").rows
    for row, item in run_rows(Late(), rows, again=lambda row: tokens.pop(row.request.prompt)):
        tokens[row.request.prompt] += isinstance(item, Step)
    assert tokens == {"bad a": 1, "good": len(WORDS), "bad b": 1}


def test_a_busy_server_is_asked_again(monkeypatch):
    monkeypatch.setattr("ramole_core.batch.run.RETRY_SECONDS", 0.01)
    ramole = Choosy(busy=3)
    ends = told(run_rows(ramole, read_batch("a\nb").rows))
    assert sorted(ends) == [0, 1] and len(ramole.calls) == 4


def test_cancelling_ends_what_runs_and_asks_nothing_more():
    ramole, stop = Choosy(), []
    events = run_rows(ramole, read_batch("\n".join("abcdefghijkl")).rows, cancelled=lambda: stop)
    ends = []
    for row, item in events:
        stop.append(True)
        if isinstance(item, Generation):
            ends.append((row.index, item.finish_reason))
    assert ends == [(i, "cancelled") for i in range(8)] and ramole.running == 0


def test_places_and_session_are_passed_on_and_a_reader_who_goes_frees_the_engine():
    ramole, places = FakeRamole(), []
    rows = read_batch("a\nb").rows
    events = run_rows(ramole, rows, session="s", waiting=lambda *place: places.append(place))
    next(events)
    assert places == [(rows[0], 0), (rows[1], 0)] and ramole.sessions == ["s"]
    assert ramole.running == 1
    events.close()
    assert ramole.running == 0


def test_what_fails_for_sure_is_told_before_anything_runs():
    text = '{"prompt": "a"}\n{"prompt": "b", "adapters": ["bea"]}\n{"prompt": "c", "method": "x"}\n'
    text += '{"prompt": "d", "max_new_tokens": 9999}\n{"prompt": "e", "k": 0}'
    batch = refuse_unfit(FakeRamole(), read_batch(text), owner=None)
    assert [row.line for row in batch.rows] == [1]
    assert [row.line for row in batch.bad] == [2, 3, 4, 5]
    assert batch.bad[0].sentence == "There is no adapter 'bea' in the pool; did you mean 'bee'?"
    assert batch.bad[1].sentence.startswith("Unknown method 'x'; choose one of ramole,")
    assert batch.bad[2].sentence.startswith("max_new_tokens=9999, but this server gives at")
    talk = json.dumps({"prompt": "x", "history": [["a", "b", ["bea"]]]})
    (bad,) = refuse_unfit(FakeRamole(), read_batch(talk), owner=None).bad
    assert bad.sentence == "There is no adapter 'bea' in the pool; did you mean 'bee'?"
