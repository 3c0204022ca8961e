"""Find on the Hub, in the tab Pool: its words are inert, and one search serves everybody."""

import re
import threading
from dataclasses import replace

import pytest

from ramole_core import Listed, RamoleError, Request
from tests.page.test_ask import ask
from tests.support.hub_server import BASE, EVIL, Repository
from tests.support.pool_fakes import PoolRamole, write_adapter
from ui.api.answers import how_of
from ui.ask.found import found_html
from ui.charts.recorded import read_run, write_run
from ui.pool import hub as hub_page
from ui.pool.hub import MAX_ROWS, RETRY_SECONDS, SEARCH_PAUSE_SECONDS, HubRun, table_html

SHA = "0" * 40


def listed(name: str, **said) -> Listed:
    return Listed(f"ada/{name}", SHA, f"ada--{name}", **said)


@pytest.fixture
def ramole(tmp_path, hub_server):
    (tmp_path / "adapters").mkdir()
    for n, name in enumerate(("sums", "poems", "knots")):
        folder = write_adapter(tmp_path / name, seed=n, readme=f"All about {name}. {EVIL}")
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        hub_server.repositories[f"ada/{name}"] = Repository(files)
    system = PoolRamole(tmp_path, hub_adapters=True, hub_base=BASE)
    yield system
    system.close()


def test_the_table_has_only_text_of_strangers_and_says_what_is_shown():
    rows = [
        listed("one", description=EVIL, licence="mit", downloads=12345, bytes=3 * 2**20, rank=8),
        listed("two", verdict="refused", reason=EVIL + "DoRA"),
        listed("three", verdict="checked", examples=("how deep",)),
    ]
    page = table_html(rows, {"ada/three"})
    assert "Listed: 3 adapters, of which 1 cannot be used; the weights of 1 are here." in page
    assert "12,345" in page and "3.0" in page and "cannot be used" in page and "DoRA" in page
    assert "fits, read whole, weights are here" in page
    assert "<img" not in page and "${" not in page and "{{" not in page and "`" not in page
    assert page.count('scope="row"') == 3 and page.count('scope="col"') == 7

    def names(**said) -> list[str]:
        return re.findall(r'scope="row">ada/(\w+)', table_html(rows, {"ada/three"}, **said))

    assert names(show="fits") == ["one", "three"] and names(show="refused") == ["two"]
    assert names(show="fetched") == ["three"] and names(search="DEEP how") == ["three"]
    assert names(search="mit") == ["one"] and names(show="what") == ["one", "two", "three"]
    many = [listed(f"x{n}") for n in range(MAX_ROWS + 7)]
    page = table_html(many, ())
    assert f"The first {MAX_ROWS} of {MAX_ROWS + 7} are shown" in page
    assert page.count('scope="row"') == MAX_ROWS
    assert table_html([], ()) == '<p class="rm-empty">Nothing is listed yet.</p>'


def test_a_search_from_the_page_is_told_as_it_goes_and_not_begun_again_at_once(ramole):
    now = [1000.0]
    run = HubRun(ramole, clock=lambda: now[0])
    looks = list(run.looks("ann"))
    assert looks[-1][1] == "ready" and looks[-1][0].startswith(f"3 adapters of {BASE} are listed")
    assert {kind for _, kind in looks[:-1]} == {"busy"}
    with pytest.raises(RamoleError, match="ask again in 10 minutes"):
        list(run.looks("ben"))
    now[0] += SEARCH_PAUSE_SECONDS + 1
    assert list(run.looks("ben"))[-1][1] == "ready"


def test_two_visitors_share_one_search_and_only_who_began_it_stops_it(
    ramole, hub_server, monkeypatch
):
    monkeypatch.setattr(hub_page, "POLL_SECONDS", 0.02)
    began, goes_on = threading.Event(), threading.Event()
    check = ramole.hub._register.keep_only

    def slow(repos, **when):
        began.set()
        goes_on.wait(60)
        return check(repos, **when)

    monkeypatch.setattr(ramole.hub._register, "keep_only", slow)
    run = HubRun(ramole)
    assert not run.stop("ann")
    first = run.looks("ann")
    next(first)
    began.wait(60)
    second = run.looks("ben")
    assert next(second)[1] == "busy"
    assert not run.stop("ben") and not ramole.hub._stop.is_set()
    assert run.stop("ann") and ramole.hub._stop.is_set()
    goes_on.set()
    ends = [list(looks)[-1] for looks in (first, second)]
    assert ends[0] == ends[1] and "stopped" in ends[0][0]
    assert len([path for path in hub_server.asked if path.startswith("/api/models ")]) == 1


def test_a_hub_that_is_gone_is_one_sentence_and_may_be_asked_again_soon(
    ramole, monkeypatch, outcomes
):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    now = [0.0]
    run = HubRun(ramole, clock=lambda: now[0])
    *_, (sentence, kind) = run.looks("ann")
    assert kind == "wrong" and sentence.startswith("The Hub at http://127.0.0.1:9 does not answer")
    assert outcomes == ["refused"]
    with pytest.raises(RamoleError, match="ask again in 30 seconds"):
        next(run.looks("ann"))
    now[0] += RETRY_SECONDS
    assert next(run.looks("ann"))


def test_where_the_operator_does_not_allow_it_nothing_is_asked(tmp_path, hub_server):
    (tmp_path / "adapters").mkdir()
    system = PoolRamole(tmp_path)
    with pytest.raises(RamoleError, match="RAMOLE_HUB_ADAPTERS=true"):
        next(HubRun(system).looks("ann"))
    system.close()
    assert not hub_server.asked


def test_what_came_of_the_hub_is_said_beside_the_answer_and_kept_with_it(tmp_path):
    run, _, _ = ask(Request("x"))
    answer = replace(run.answer, notes=(f"ada/sums was fetched. {EVIL}",))
    shown = found_html(run.found, None, notes=answer.notes)
    assert "ada/sums was fetched." in shown and "<img" not in shown
    write_run(replace(run, answer=answer), tmp_path / "x.json")
    assert read_run(tmp_path / "x.json").answer.notes == answer.notes
    assert how_of(answer, Request("x"), [])["notes"] == list(answer.notes)
