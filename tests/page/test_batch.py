"""The tab Batch without a browser: rows, runs, the picture and the files, driven with a fake."""

import csv
import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from ramole_core import Generation, Ramole, RamoleError
from ramole_core.base.shapes import read_shapes
from ramole_core.selection.part_stream import join
from tests.conftest import tiny_settings
from tests.core.test_ramole import write_lora
from tests.support.blocks import built
from tests.support.fake_ramole import WORDS, FakeRamole, Late, gate_of
from tests.support.pool_fakes import upload
from tests.support.tiny_encoder import write_encoder
from ui.batch import run as batch_run
from ui.batch.examples import EXAMPLES
from ui.batch.files import record_of, write_results
from ui.batch.layout import BatchLayout
from ui.batch.picture import caption, picture_of
from ui.batch.rows import MAX_BYTES, MAX_ROWS, read, refused_html, text_of, verdict_html
from ui.batch.run import BatchRun, run_of, watched
from ui.batch.tab import BatchHandlers
from ui.batch.views import HEADERS, WIDTHS, progress_html, row_html, standing_html, table_of
from ui.parts.errors import UNEXPECTED
from ui.session.owner import page_owner
from ui.session.quota import quota_of

ADAPTERS = Path(__file__).parents[2] / "adapters"
DEFAULTS = {"method": "ramole", "k": 3, "max_new_tokens": 8}
EVIL = "<img src=x onerror=alert(1)> ${alert(2)} {{value}}"


class Breaks(FakeRamole):
    """Breaks at the end of a call with the prompt p9."""

    def stream_batch(self, requests, **options):
        yield from super().stream_batch(requests, **options)
        if any(request.prompt == "p9" for request in requests):
            raise ValueError("of the machine")


def batch_of(ramole, text: str, kind: str = "automatic", **defaults):
    return read(ramole, text, kind, **(DEFAULTS | defaults), owner="session-ann")


def ran(ramole, text: str, *, stop=None, **defaults) -> BatchRun:
    """The run after its end; once `stop` of it is true, it is stopped."""
    run = run_of(batch_of(ramole, text, **defaults), owner="session-ann")
    for _ in watched(ramole, run):
        if stop is not None and stop(run):
            run.cancelled.set()
    assert run.ended.is_set()
    return run


def jsonl(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(batch_run, "MIN_PAUSE", 0.01)


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "prompts"),
    [
        ("a\n\n  b \n", "one prompt a line", ["a", "b"]),
        ('{"prompt": "a", "id": 7}\n"b"\n', "jsonl", ["a", "b"]),
        ("id;prompt;k\n1;a;2\n2;b;\n", "csv", ["a", "b"]),
    ],
)
def test_three_kinds_of_text_are_rows(text, kind, prompts):
    batch = batch_of(FakeRamole(), text)
    assert [row.request.prompt for row in batch.rows] == prompts and not batch.bad
    assert {row.request.owner for row in batch.rows} == {"session-ann"}
    assert verdict_html(batch).startswith('<div class="rm-batch-verdict good" role="status">')
    assert f"<strong>2 rows</strong> ready, read as {kind}." in verdict_html(batch)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ('{"prompt": "a", "metod": "base"}', "'metod' is not known; did you mean 'method'?"),
        ('{"prompt": "a", "method": "magic"}', "Unknown method 'magic'; choose one of ramole"),
        ('{"prompt": "a", "adapters": ["bea"]}', "There is no adapter 'bea' in the pool; did you"),
        (
            '{"prompt": "a", "max_new_tokens": 999}',
            "max_new_tokens=999, but this server gives at most",
        ),
        ('{"prompt": "a", "k": 33}', "33 adapters are asked for, and 32 is the most."),
    ],
)
def test_a_bad_row_is_told_in_one_sentence_and_the_others_run(row, sentence):
    batch = batch_of(FakeRamole(), f'{{"prompt": "good"}}\n{row}\n')
    html = verdict_html(batch)
    (item,) = re.findall(r"<li><b>Line 2:</b> (.*?)(?: <code>|</li>)", html)
    assert sentence.replace("'", "&#x27;") in item and item.count(". ") == 0
    assert "1 row</strong> ready" in html and 'verdict fair"' in html
    assert [row.request.prompt for row in batch.rows] == ["good"]


def test_many_bad_rows_are_not_all_listed_and_none_that_is_good_is_told_in_red():
    html = verdict_html(batch_of(FakeRamole(), '{"prompt": "a"}\n' + "{}\n" * 50))
    assert html.count("<li>") == 30 and "and 20 more; the results have each." in html
    html = verdict_html(batch_of(FakeRamole(), json.dumps({"prompt": EVIL, "method": EVIL})))
    assert 'verdict bad"' in html and "0 rows</strong> ready" in html
    assert "run the others" not in html
    assert "<img" not in html and "<img" not in refused_html(EVIL)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n \n", "There is no row; give one prompt a line"),
        ("a\n" * (MAX_ROWS + 1), "There are more than 2000 rows; split them."),
        ("a" * (MAX_BYTES + 1), "longer than 2 MB; split it, or use the command line"),
        ("prompt,prompt\na,b\n", "The column 'prompt' is there twice"),
    ],
)
def test_a_text_that_is_no_batch_is_one_sentence(text, sentence):
    with pytest.raises(RamoleError, match=re.escape(sentence)):
        batch_of(FakeRamole(), text)
    for what in (7, None):
        with pytest.raises(RamoleError, match="not a text"):
            batch_of(FakeRamole(), what)
    with pytest.raises(RamoleError, match="not a text"):
        batch_of(FakeRamole(), "a", kind="pickle")


def test_a_dropped_file_becomes_the_text_and_leaves_the_cache():
    path = upload("rows.tsv", "\ufeffprompt\tk\nä\t2\n".encode())
    assert text_of(path) == ("prompt\tk\nä\t2\n", "csv") and not Path(path).exists()
    assert text_of(upload("r.jsonl", b'{"prompt": "a"}')) == ('{"prompt": "a"}', "jsonl")
    assert text_of(upload("r.TXT", b"a\n"))[1] == "automatic"


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("rows.xlsx", b"PK", "rows.xlsx does not end in .jsonl, .ndjson, .csv, .tsv, .txt;"),
        ("rows.csv", b"prompt\n\xff\xff\n", "rows.csv is not UTF-8 text at line 2"),
        ("rows.csv", b"a" * (MAX_BYTES + 1), "rows.csv is larger than 2 MB"),
    ],
)
def test_a_file_that_is_no_batch_is_one_sentence(name, data, sentence, tmp_path):
    path = upload(name, data)
    with pytest.raises(RamoleError, match=re.escape(sentence)):
        text_of(path)
    assert not Path(path).exists()
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(RamoleError, match="not an uploaded file"):
        text_of(str(tmp_path / "secret.txt"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_example_runs(example):
    ramole = FakeRamole()
    ramole.pool.names = sorted(path.name for path in ADAPTERS.glob("[a-z]*"))
    batch = batch_of(ramole, example.make(64), kind=example.kind)
    assert not batch.bad and not batch.unused and len(batch.rows) >= 6
    assert ran(ramole, example.make(64)).count() == {"answered": len(batch.rows)}
    assert batch.kind == batch_of(ramole, example.make(64)).kind  # found without being told


# --- runs ---------------------------------------------------------------------------------------

ROWS = jsonl(
    {"prompt": "one", "id": "x", "label": 1},
    {"prompt": "two", "method": "selection", "max_new_tokens": 3},
    {"prompt": "three", "k": "?"},
    {"prompt": "four", "adapters": ["dog", "bee"]},
    {"prompt": "five", "method": "base"},
)


def test_a_run_has_every_row_in_the_order_of_the_file_with_what_it_used():
    run = ran(FakeRamole(), ROWS)
    assert [item.state for item in run.items] == ["answered"] * 2 + ["refused"] + ["answered"] * 2
    experts = [" ".join(item.experts) for item in run.items]
    assert experts == ["ant bee cat", "ant", "", "dog bee", ""]
    assert run.items[0].scores == (0.9, 0.7, 0.5) and run.tokens == 8 + 3 + 8 + 8
    for item, length in zip(run.items, (8, 3, 0, 8, 8), strict=True):
        k = len(item.experts)
        if k:
            wanted = np.mean([gate_of(t, k).mean((0, 1)) for t in range(length)], 0)
            np.testing.assert_allclose(item.weights, wanted, atol=2e-3)
            np.testing.assert_allclose(item.shares, wanted, atol=2e-3)
        assert item.text == "".join(WORDS[:length])
    assert run.items[0].answer.trace is None  # 2,000 of them would fill the memory
    assert not run.error and run.speed > 0 and run.elapsed == run.seconds


class InParts(FakeRamole):
    """Answers each prompt as two tasks."""

    def stream_batch(self, requests, **options):
        for index, item in super().stream_batch(requests, **options):
            if isinstance(item, Generation):
                assert item.trace
                item = join([replace(item, part=part) for part in ("This.", "That.")])
            yield index, item


def test_a_row_that_was_answered_part_by_part_keeps_no_trace():
    answer = ran(InParts(), "This. That.\n").items[0].answer
    assert all(part.text for part in answer.parts) and len(answer.parts) == 2
    assert [part.trace for part in (answer, *answer.parts)] == [None] * 3


def test_a_row_that_runs_shows_its_adapters_weights_and_text_so_far():
    ramole = FakeRamole(pause=0.02, length=10_000)
    run = run_of(batch_of(ramole, ROWS, max_new_tokens=10_000), owner=None)
    done, item = [], run.items[0]
    for _ in watched(ramole, run):
        if item.state == "runs" and len(item.pieces) > 2:
            done.append(item.done)
            assert item.experts == ("ant", "bee", "cat")
            assert sum(item.weights) == pytest.approx(1, abs=0.01)
            html = row_html(run, 1)
            assert "as far as it has come" in html and "The boats" in html
        if len(done) == 4:
            run.cancelled.set()
    assert len(done) >= 4 and 0 < done[0] < 1 and done == sorted(done)


def test_stop_keeps_what_is_finished_and_says_what_is_not():
    ramole = FakeRamole(pause=0.005, max_batch=1)  # a call of the engine gets eight rows
    text = "".join(f"p{i}\n" for i in range(1000))  # they would take a minute
    run = ran(ramole, text, stop=lambda run: run.count()["answered"] >= 8)
    count = run.count()
    assert ramole.running == 0 and 8 <= count["answered"]
    assert count["answered"] + count["stopped"] == 1000 and count["stopped"] >= 4
    assert len(ramole.requests) < 1000  # the rest was not asked
    assert all(item.text == "".join(WORDS) for item in run.items[:8])
    assert "Stopped. What was answered is below" in standing_html(run)
    assert table_of(run)[-1][-1] == "stopped by you"
    assert record_of(run.items[0])["text"] == "".join(WORDS)
    assert record_of(run.items[-1])["error"] == "Stopped before it ran."


def test_a_reader_who_goes_away_frees_the_engine():
    ramole = FakeRamole(length=50_000, pause=0.01)
    run = run_of(batch_of(ramole, ROWS, max_new_tokens=50_000), owner=None)
    turns = watched(ramole, run)
    while not run.tokens:
        next(turns)
    assert ramole.running == 1
    turns.close()
    assert run.ended.wait(60) and ramole.running == 0


def test_rows_wait_while_the_model_loads_and_can_be_stopped_there(outcomes):
    ramole = FakeRamole(loaded=False, pause=0.05)
    run = run_of(batch_of(ramole, ROWS), owner=None)
    turns = watched(ramole, run)
    next(turns)
    assert "The model is loading" in standing_html(run)
    list(turns)
    assert run.count()["answered"] == 4
    ramole = FakeRamole(loaded=False, pause=0.2)
    run = ran(ramole, ROWS, stop=lambda run: True)
    assert run.count() == {"stopped": 4, "refused": 1} and ramole.batches == 0
    ramole = FakeRamole(loaded=False)
    ramole.load_error = "There is no such base model; set RAMOLE_BASE_MODEL."
    outcomes.clear()
    run = ran(ramole, ROWS)
    said = standing_html(run)
    assert "There is no such base model" in said and 'role="alert"' in said
    assert run.count() == {"stopped": 4, "refused": 1} and outcomes == ["refused"]
    assert table_of(run)[0][-1] == f"not answered: {ramole.load_error}"


def test_a_row_that_the_engine_refuses_stands_alone():
    sentence = f"The prompt has 9,000 tokens {EVIL}."
    refuses = FakeRamole(max_batch=1, refuses=lambda one: sentence * (one.prompt == "p5"))
    run = ran(refuses, "".join(f"p{i}\n" for i in range(12)))
    assert run.count() == {"answered": 11, "refused": 1} and not run.error
    assert run.items[5].sentence.startswith("The prompt has 9,000 tokens")
    assert "<img" not in row_html(run, 6) and "9,000 tokens" in row_html(run, 6)


def test_rows_beside_others_that_fail_later_have_each_token_once():
    run = ran(Late(), "bad a\ngood\nbad b\n")
    assert run.count() == {"answered": 1, "refused": 2}
    assert [len(item.pieces) for item in run.items] == [1, len(WORDS), 1]
    assert [item.text for item in run.items] == [WORDS[0], "".join(WORDS), WORDS[0]]
    assert run.tokens == len(WORDS) + 2 and run.items[1].traced == len(WORDS)


def test_a_fault_of_ours_is_one_sentence_and_what_came_before_it_is_kept(caplog):
    run = ran(Breaks(max_batch=1), "".join(f"p{i}\n" for i in range(20)))
    assert run.error == UNEXPECTED and "of the machine" not in standing_html(run)
    assert run.count() == {"answered": 16, "stopped": 4}
    assert "of the machine" in caplog.text
    assert record_of(run.items[19])["error"] == UNEXPECTED


class Emptied(FakeRamole):
    """Its adapters are removed once the rows are read."""

    def _names(self, request):
        return ["ant", "bee", "cat"][: request.k]

    def retrieve(self, *_, **__):
        raise RamoleError("The pool holds no adapter ant; it was removed.")


def test_a_pool_that_changes_under_a_run_stops_no_row():
    run = ran(Emptied(), ROWS)
    assert run.count() == {"answered": 4, "refused": 1}
    assert run.items[0].experts == ("ant", "bee", "cat")  # from its answer


# --- what is shown ------------------------------------------------------------------------------


def test_the_picture_has_a_line_for_each_request_and_a_column_for_each_adapter():
    run = ran(FakeRamole(), ROWS)
    value = picture_of(run)
    uses = [(column["name"], column["uses"]) for column in value["columns"]]
    assert uses == [("ant", 2), ("bee", 2), ("cat", 1), ("dog", 1)]
    assert [line["n"] for line in value["rows"]] == [1, 2, 3, 4, 5]
    cells = [[(value["columns"][c]["name"], w) for c, w in line["c"]] for line in value["rows"]]
    assert [name for name, _ in cells[0]] == ["ant", "bee", "cat"] and cells[1] == [("ant", 1.0)]
    assert sum(w for _, w in cells[0]) == pytest.approx(1, abs=0.02)
    assert [name for name, _ in cells[3]] == ["dog", "bee"] and cells[2] == cells[4] == []
    assert value["rows"][2]["s"] == "refused" and not value["running"] and not value["empty"]
    assert "4 requests, 4 different adapters; most used: ant, by 2." in caption(run)
    json.dumps(value, allow_nan=False)
    rows = table_of(run)
    assert len(HEADERS) == len(WIDTHS) and {len(row) for row in rows} == {len(HEADERS)}
    assert rows[0][:2] == [1, "x"] and rows[0][5].startswith("ant 0.")
    assert rows[1][4:7] == ["selection", "ant 1.00", 3]
    assert rows[2][-1] == "refused: k='?'; give a whole number."
    assert rows[4][5] == "" and table_of(None) == []


def test_adapters_that_are_not_weighed_yet_are_known_and_a_long_prompt_is_cut():
    run = run_of(batch_of(FakeRamole(), ROWS), owner=None)
    run.items[3].experts, run.items[4].experts = ("dog", "bee"), ("bee",)
    value = picture_of(run)
    assert [column["name"] for column in value["columns"]] == ["dog", "bee"] and value["running"]
    assert value["rows"][3]["c"] == [[0, None], [1, None]]
    run = run_of(batch_of(FakeRamole(), json.dumps({"prompt": "a\nb " * 100})), owner=None)
    assert caption(run).startswith("No row uses")
    text = picture_of(run)["rows"][0]["t"]
    assert len(text) == 90 and text.endswith("…") and "\n" not in text


def test_progress_in_numbers_and_the_place_in_the_queue():
    run = run_of(batch_of(FakeRamole(), ROWS), owner=None)
    html = progress_html(run)
    for name, value in {"answered": "0 of 4", "running": 0, "waiting": 4, "refused": 1}.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in html
    assert 'value="20.0"' in html  # the refused one has ended
    for item, place in zip(run.items, (0, 3, 0, 4, 5), strict=True):
        item.place = place
    assert run.place == 0  # the first one has its row, though no token came yet
    run.items[0].place = 2
    assert "your next one is number 2 in the queue" in standing_html(run)
    run.items[1].state = "runs"
    assert run.place == 0 and "queue" not in standing_html(run)
    html = progress_html(ran(FakeRamole(), ROWS))
    assert "<dd>4 of 4</dd>" in html and 'value="100.0"' in html and "5 of 5 rows have" in html
    assert re.search(r"<dt>tokens/s, all together</dt><dd>[\d.]+</dd>", html)
    assert progress_html(None) == ""


def test_one_row_in_full_is_text_and_never_markup():
    run = ran(FakeRamole(), jsonl({"prompt": EVIL}, {"prompt": "a", "method": "base"}))
    html = row_html(run, 1)
    assert "&lt;img" in html and "<img" not in html and "&lt;b&gt;lie" in html
    assert "<td>0.900</td>" in html and 'class="bar"' in html
    assert "No adapter: the base model alone." in row_html(run, 2)
    assert row_html(run, 0) == row_html(run, 3) == row_html(None, 1) == ""
    named = ran(FakeRamole(), jsonl({"prompt": "a", "adapters": ["dog"], "method": "selection"}))
    named.items[0].scores = (math.nan,)
    assert "<td>named</td>" in row_html(named, 1)


# --- results ------------------------------------------------------------------------------------


def test_results_as_jsonl_and_csv_say_the_same(tmp_path):
    rows = ROWS + jsonl({"prompt": '=1+1\nsaid "so"', "note": ["ä", None], "label": "-2"})
    run = ran(FakeRamole(), rows)
    lines, table = write_results(run, into=tmp_path)
    told = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert told == [record_of(item) for item in run.items]
    assert [record["index"] for record in told] == list(range(6))
    assert told[0]["extra"] == {"label": 1} and told[0]["adapters"] == ["ant", "bee", "cat"]
    assert told[0]["mean_weights"] == [round(weight, 4) for weight in run.items[0].weights]
    assert told[0]["shares"] == [round(share, 4) for share in run.items[0].shares]
    row, error = '{"prompt": "three", "k": "?"}', "k='?'; give a whole number."
    assert told[2] == {"index": 2, "line": 3, "row": row, "error": error}
    talk = ran(FakeRamole(), jsonl({"prompt": "and?", "history": [["a", "b", ["ant"]]]}))
    assert json.loads(json.dumps(record_of(talk.items[0])))["history"] == [["a", "b", ["ant"]]]
    assert "history" not in told[0]
    with table.open(encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 6 and cells[0]["label"] == "1"
    for record, row in zip(told, cells, strict=True):
        for name in ("text", "method", "error", "id", "finish_reason"):
            assert row[name] == str(record.get(name) or "")
        for name in ("adapters", "shares", "mean_weights"):
            assert row[name] == "|".join(map(str, record.get(name, [])))
    assert cells[5]["prompt"] == '\'=1+1\nsaid "so"' and cells[5]["label"] == "'-2"
    assert told[5]["prompt"] == '=1+1\nsaid "so"' and cells[5]["note"] == "ä|"
    early = run_of(batch_of(FakeRamole(), ROWS), owner=None)
    one, other = (write_results(early, into=tmp_path)[0] for _ in range(2))
    assert one.parent != other.parent and len(one.parent.name) > len("trace-") + 6, "no guess"
    errors = [json.loads(line)["error"] for line in one.read_text().splitlines()]
    assert errors[:2] == ["Not answered yet."] * 2 and errors[2].startswith("k='?'")


# --- sessions -----------------------------------------------------------------------------------


HOW = ("automatic", "ramole", 3, 8)


def visitor(name: str | None) -> SimpleNamespace:
    return SimpleNamespace(session_hash=name, headers={})


def row_of(handlers: BatchHandlers, name: str | None, run: str) -> str:
    """The first row of the run, as this visitor sees it."""
    return handlers.on_row(visitor(name), SimpleNamespace(_data={"run": run, "n": 1}))


def handlers_of(ramole: FakeRamole) -> BatchHandlers:
    return BatchHandlers(ramole, built(lambda: BatchLayout(ramole)))


def looks(handlers: BatchHandlers, name: str, text: str = ROWS, how: tuple = HOW):
    return handlers.on_run(visitor(name), text, *how)


def test_another_session_sees_nothing_of_my_run():
    ramole = FakeRamole()
    sessions = handlers_of(ramole)
    name = list(looks(sessions, "ann"))[-1][2]["run"]
    assert "Request 1" in row_of(sessions, "ann", name)
    assert row_of(sessions, "ben", name) == row_of(sessions, None, name) == ""
    with pytest.raises(gr.Error, match="no results yet"):
        sessions.on_take(visitor("ben"))
    list(looks(sessions, "ben", "other\n"))
    assert row_of(sessions, "ben", name) == ""
    mine, others = (Path(sessions.on_take(visitor(who))[0]).read_text() for who in ("ann", "ben"))
    assert "other" not in mine and "five" in mine and "five" not in others
    assert ramole.sessions == [page_owner("ann"), page_owner("ben")]


def test_stopping_or_leaving_ends_my_run_alone():
    ramole = FakeRamole(pause=0.01, length=100_000)
    sessions = handlers_of(ramole)
    streams = {
        name: looks(sessions, name, how=("automatic", "ramole", 3, 100_000))
        for name in ("ann", "ben", "eve")
    }
    for stream in streams.values():
        while "Answering" not in next(stream)[0]:
            pass
    assert ramole.running == 3 and all(map(sessions.busy, streams))
    sessions.on_stop(visitor("ann"))
    quota_of(ramole).presence.sessions.leave("eve")
    last = [list(streams[name])[-1] for name in ("ann", "eve")]
    assert all("Stopped." in look[0] for look in last)
    assert "Answering" in next(streams["ben"])[0] and ramole.running == 1
    assert [sessions.busy(name) for name in streams] == [False, True, False]
    assert "Request 1" in row_of(sessions, "ann", last[0][2]["run"])
    assert row_of(sessions, "eve", last[1][2]["run"]) == ""
    streams["ben"].close()  # the connection is lost
    sessions.on_stop(visitor("nobody"))


def test_rows_that_cannot_run_leave_the_results_before_in_sight(outcomes):
    sessions = handlers_of(FakeRamole())
    first = list(looks(sessions, "ann"))[-1]
    (look,) = looks(sessions, "ann", '{"prompt": ""}')
    assert "No row can run" in look[0] and look[1:] == first[1:]
    (look,) = looks(sessions, "ben", "")
    assert "There is no row" in look[0] and look[2]["empty"] and look[3]["data"] == []
    assert outcomes[-2:] == ["refused", "refused"]


def test_what_a_hostile_browser_says_is_nothing():
    sessions = handlers_of(FakeRamole())
    name = list(looks(sessions, "ann", "a\n"))[-1][2]["run"]
    many = {"run": name, "n": 10**9}
    for said in (None, [], "x", {"run": name, "n": "1"}, many, {"run": name}):
        assert sessions.on_row(visitor("ann"), SimpleNamespace(_data=said)) == ""
    for how in (("automatic", "ramole", [], 8), ("automatic", {}, 3, 8), ([], "ramole", 3, 8)):
        (look,) = looks(sessions, "ann", "a\n", how)
        assert 'role="alert"' in look[0] and "Traceback" not in look[0]
        assert 'class="rm-batch-verdict bad"' in sessions.on_check(visitor("ann"), "a\n", *how)


def test_a_run_that_ended_in_another_process_is_kept(monkeypatch):
    monkeypatch.setattr("ui.batch.tab.ELSEWHERE", True)
    there, here = handlers_of(FakeRamole()), handlers_of(FakeRamole())
    ran = list(looks(there, "ann"))[-1][-1]
    here.on_end(visitor("ann"), pickle.loads(pickle.dumps(ran)))
    here.on_end(visitor("ann"), None)
    assert row_of(here, "ann", ran.name) == row_of(there, "ann", ran.name) != ""
    assert len({Path(one.on_take(visitor("ann"))[0]).read_text() for one in (here, there)}) == 1


# --- the real thing, small ----------------------------------------------------------------------


TASKS = {"red": "red blue", "green": "green pink", "loud": "loud low", "high": "high soft"}
TABLE = """prompt,method,k,adapters,weights,max_new_tokens,ignore_eos
please sing red,mixture,2,,,7,yes
say loud now,selection,,,,5,yes
low,base,,,,6,yes
blue,mixture,,high|green,0.25|0.75,9,yes
pink 1 2 3,fusion,3,,,4,yes
soft,mixture,2,,,99,yes
"""


def test_a_batch_on_a_real_model_says_what_each_request_gets_alone(tiny_llama, tmp_path):
    encoder = str(write_encoder(tmp_path / "encoder"))
    sizes = {"max_batch": 3, "max_new_tokens": 20}
    with Ramole(tiny_settings(tiny_llama, tmp_path, encoder=encoder, **sizes)) as ramole:
        for seed, (name, words) in enumerate(TASKS.items()):
            folder = tmp_path / "files" / name
            write_lora(folder, read_shapes(tiny_llama), rank=2 + seed, seed=seed)
            ramole.pool.add(folder, name=name, examples=words.split())
        run = ran(ramole, TABLE)
        assert run.count() == {"answered": 5, "refused": 1}
        assert "=99, but this server gives at most 20" in run.items[5].sentence
        for item in run.items[:5]:
            (alone,) = ramole.generate([item.row.request])
            assert item.text == alone.text and list(item.experts) == alone.adapters
            own = slice(alone.trace.prompt_length - 1, len(alone.trace.tokens) - 1)
            if item.experts:
                gates = alone.trace.weights[own].astype(float).mean((0, 1, 2))
                np.testing.assert_allclose(item.weights, gates, atol=2e-3)
                shares = alone.trace.shares[own].mean(0)
                np.testing.assert_allclose(item.shares, shares, atol=2e-3)
                even = item.row.request.method == "fusion"  # nobody can say whose part is whose
                assert (np.ptp(item.shares) < 1e-4) == (even or len(item.shares) == 1)
        assert len({item.text for item in run.items[:5]}) == 5
        assert run.items[3].weights == pytest.approx([0.25, 0.75], abs=1e-3)
    told = [json.loads(line) for line in write_results(run)[0].read_text().splitlines()]
    assert [record["new_tokens"] for record in told[:5]] == [7, 5, 6, 9, 4]
