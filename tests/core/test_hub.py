"""The Hub's adapters of one base: listed by the thousand with their cards, judged before a weight
is fetched, and a search that can be stopped, goes on, and meets a Hub that is gone."""

import itertools
import json
import threading
import time

import pytest

from ramole_core import Busy, RamoleError
from ramole_core.hub.client import HubClient, _pause
from ramole_core.hub.search import names_for
from tests.support.adapter_files import CONFIG, WEIGHTS, tree_of
from tests.support.hub_server import EVIL, LATE, Repository, adapter, made

REASONS = {
    "another-base": "use an adapter trained on this base",
    "deeper-base": "which this base does not have",
    "dora": "DoRA",
    "pickle": "can run code",
    "too-big": "larger than 1 MiB",
    "gated": "let in",
    "secretly-gated": "let in",
    "missing": "does not have it",
    "rank": "rank 40; at most 32",
    "no-adapter": "has no adapter_model.safetensors",
    "cut-short": "bytes",
    "not-json": "adapter_config.json",
}


def test_a_thousand_are_listed_and_judged_and_no_weight_is_fetched(hub_server, open_hub, tmp_path):
    hub_server.repositories = made(1000)
    hub = open_hub(hub_listed=5000)
    told = []
    found = hub.search(lambda words, fraction: told.append(fraction))
    assert len(found.rows) == 1000 and found.read == 1000 and not found.unread
    assert [one.repo for one in found.rows] == list(hub_server.repositories)
    assert told == sorted(told) and told[-1] == 1.0
    for one in found.rows:
        kind = one.repo.partition("/")[2].rpartition("-")[0]
        if not one.repo.startswith("bob/") or kind in LATE:
            assert one.verdict == "fits" and one.rank == 3 and one.bytes > 0, one
        else:
            assert one.verdict == "refused" and REASONS[kind] in one.reason, one
    assert {one.repo.partition("/")[2].rpartition("-")[0] for one in found.rows} >= {*REASONS}
    assert not hub_server.weights_asked() and hub_server.tokens == {None}
    assert not hub.fetched() and not (tmp_path / "data" / "uploads").exists()

    (near, score), *_ = hub.near("Writes sums of kind 27 about the thing called item27.", 3)
    assert near.repo == "ada/sums-27" and score == pytest.approx(1)
    refused = [one.name for one in found.rows if one.verdict == "refused"]
    assert not {one.name for one, _ in hub.near("adapter", 1000)} & {*refused}


def test_a_list_outlives_a_restart_and_only_what_changed_is_read_again(hub_server, open_hub):
    hub_server.repositories = made(20)
    rows = open_hub().search().rows
    hub = open_hub()
    assert hub.rows() == list(rows) and hub.when
    assert hub.near("Writes sums of kind 0 about the thing called item0.", 1)[0][0].name == (
        "ada--sums-0"
    )
    changed, gone = list(hub_server.repositories)[0], list(hub_server.repositories)[4]
    hub_server.repositories[changed] = Repository(adapter(77, card="Counts sheep."), downloads=999)
    del hub_server.repositories[gone]
    hub_server.repositories["eve/new"] = Repository(adapter(78))
    hub_server.asked.clear()
    found = hub.search()
    read = {path.split("/")[2] for path in hub_server.asked if "/resolve/" in path}
    assert found.read == 2 and read == {changed.partition("/")[2], "new"}
    assert gone not in {one.repo for one in found.rows}
    assert hub.near("counts sheep", 1)[0][0].repo == changed
    assert hub.search(anew=True).read == 20
    assert open_hub(hub_base="made/other").rows() == []
    assert len(open_hub().search(most=3).rows) == 3


def test_what_a_card_says_is_bounded_text_and_its_prompts_are_examples(hub_server, open_hub):
    widget = [{"text": "how deep"}, {"messages": [{"role": "user", "content": "how wide"}]}, 7]
    long = tuple("x" * 1990 for _ in range(20))
    hub_server.repositories = {
        "a/widget": Repository(adapter(1), card={"widget": widget, "x": 1}),
        "a/examples": Repository(adapter(2, examples=("one", "two"))),
        "a/long": Repository(adapter(3, examples=long)),
        "a/evil": Repository(adapter(4, card=EVIL * 500), tags=["license:<b>", "license:mit"]),
        "a/binary": Repository(adapter(5) | {"README.md": b"\xff" * 300_000}),
        "_x/.y": Repository(adapter(6, card=None)),
        "a b/c": Repository(adapter(7)),
        "a/..": Repository(adapter(8)),
    }
    rows = {one.repo: one for one in open_hub().search().rows}
    assert rows["a/widget"].examples == ("how deep", "how wide")
    assert rows["a/examples"].examples == ("one", "two") and not rows["a/examples"].blind
    assert 0 < sum(map(len, rows["a/long"].examples)) <= 2**14
    assert len(rows["a/evil"].description) <= 1004 and rows["a/evil"].licence == "mit"
    assert rows["a/binary"].description == "" and rows["a/binary"].verdict == "fits"
    assert rows["_x/.y"].name == "x---y"
    assert not {"a b/c", "a/.."} & {*rows}
    assert json.loads(json.dumps([one.record() for one in rows.values()]))


def test_names_are_clean_and_of_one_adapter_each():
    names = names_for(["A/x.y", "a/x-y", "é/ü", "o" * 80 + "/n", "o" * 80 + "/m"], {"é/ü": "kept"})
    assert names["A/x.y"] == "a--x-y" and names["a/x-y"] == "a--x-y-2" and names["é/ü"] == "kept"
    assert len({*names.values()}) == 5 and all(len(name) <= 64 for name in names.values())


@pytest.mark.parametrize("parts", [True, False])
def test_a_long_header_is_read_to_its_end(hub_server, open_hub, monkeypatch, parts):
    """Also from a mirror that gives whole files alone."""
    monkeypatch.setattr("ramole_core.hub.repository.HEADER_BYTES", 16)
    hub_server.repositories = {"a/b": Repository(adapter(1))}
    hub_server.parts = parts
    (one,) = open_hub().search().rows
    assert one.verdict == "fits", one.reason
    assert one.bytes == len(hub_server.repositories["a/b"].files[WEIGHTS])


@pytest.mark.parametrize("parts", [True, False])
def test_a_piece_begins_and_ends_where_it_was_asked(hub_server, parts):
    hub_server.repositories = {"a/b": Repository({"x": bytes(range(200)) * 1000})}
    hub_server.parts = parts
    client = HubClient(threading.Event())
    sha = hub_server.repositories["a/b"].sha
    piece = client.begin("a/b", sha, "x", most=7, start=150_000)
    assert (piece.data, piece.size) == (bytes(range(7)), 200_000)


@pytest.mark.parametrize("spoil", [{"status": 500}, {"status": 200}, {"url": "http://[::1]:9"}])
def test_a_hub_that_is_gone_is_one_sentence(hub_server, open_hub, monkeypatch, spoil):
    monkeypatch.setattr("ramole_core.hub.client.TRIES", 1)
    if "url" in spoil:
        monkeypatch.setenv("HF_ENDPOINT", spoil["url"])
    hub_server.status = spoil.get("status")
    hub_server.repositories = made(3)
    hub = open_hub()
    sentence = r"^The Hub at \S+ does not answer \([^\n]+\); check.*\.$"
    with pytest.raises(RamoleError, match=sentence):
        hub.search()
    assert hub.rows() == [] and hub.stage is None
    hub_server.status = None
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
    assert len(hub.search().rows) == 3


def test_a_busy_hub_is_waited_for_and_one_repository_that_fails_stops_nobody(hub_server, open_hub):
    hub_server.repositories = made(12)
    hub_server.repositories["a/down"] = Repository(adapter(1), status=404)
    hub_server.busy = 3
    found = open_hub().search()
    assert found.read == 13 and not found.unread
    assert "does not have it" in next(one.reason for one in found.rows if one.repo == "a/down")


def test_a_pause_is_as_long_as_the_hub_says():
    assert _pause({"retry-after": "7"}, otherwise=3.0) == 7
    assert _pause({"ratelimit": '"resolvers";r=0;t=143'}, otherwise=3.0) == 143
    assert _pause({"retry-after": "soon", "ratelimit": "no"}, otherwise=3.0) == 3


def test_what_does_not_answer_for_now_is_not_refused_for_good(hub_server, open_hub, monkeypatch):
    monkeypatch.setattr("ramole_core.hub.client.TRIES", 1)
    ill, well = Repository(adapter(1), status=503), Repository(adapter(2))
    hub_server.repositories = {"a/ill": ill, "a/b": well}
    hub = open_hub()
    found = hub.search()
    assert [one.repo for one in found.rows] == ["a/b"] and "503" in found.unread["a/ill"]
    assert "1 could not be read" in str(found)
    ill.status = 200
    assert {one.repo for one in hub.search().rows} == {"a/ill", "a/b"}


def test_a_search_is_stopped_and_what_was_read_stays_and_the_next_one_goes_on(hub_server, open_hub):
    hub_server.repositories = made(200)
    hub = open_hub()

    def stop(words: str, fraction: float) -> None:
        assert hub.stage is not None and hub.stage.words == words
        with pytest.raises(Busy, match="already"):
            hub.search()
        if fraction > 0.5:
            hub.stop()

    found = hub.search(stop)
    assert found.stopped and 100 <= len(found.rows) < 150 and "stopped" in str(found)
    assert hub.stage is None
    again = hub.search()
    assert not again.stopped and len(again.rows) == 200
    assert again.read == 200 - len(found.rows)


def test_no_prompt_waits_for_the_cards_that_a_search_embeds(hub_server, open_hub, monkeypatch):
    hub_server.repositories = made(60)
    hub = open_hub()
    embed, one_at_a_time = hub._retriever._encoder.embed, threading.Lock()
    at_once: list[int] = []
    cards, prompts = threading.Semaphore(0), threading.Semaphore(0)

    def slowly(texts):
        if threading.current_thread() is threading.main_thread():
            assert all(text.startswith("sums of ") for text in texts), "a prompt embeds a card"
        else:
            at_once.append(len(texts))
            cards.release()
            assert prompts.acquire(timeout=60), "a prompt waits for a card"
        with one_at_a_time:
            return embed(texts)

    monkeypatch.setattr(hub._retriever._encoder, "embed", slowly)
    monkeypatch.setattr(hub._retriever.recent, "_embed", slowly)
    monkeypatch.setattr("ramole_core.hub.search.BATCH_SIZE", 20)
    searching = threading.Thread(target=hub.search)
    searching.start()
    found = 0
    for number in itertools.count():
        found += bool(hub.near(f"sums of kind {number}", 3))
        if cards.acquire(blocking=False):
            prompts.release()
        if not searching.is_alive():
            break
        time.sleep(0.02)
    assert found > 3 and max(at_once) <= 8, f"{at_once}: a prompt waits for so many at the encoder"
    assert len(hub.near("sums of any kind", 60)) > 50


def test_ctrl_c_keeps_what_was_read_and_leaves_no_thread(hub_server, open_hub):
    hub_server.repositories = made(100)
    hub = open_hub()

    def interrupt(words: str, fraction: float) -> None:
        if fraction > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.search(interrupt)
    assert len(hub.rows()) > 65
    for thread in threading.enumerate():
        if thread.name.startswith("hub"):
            thread.join(60)
            assert not thread.is_alive()
    assert len(open_hub().search().rows) == 100


def test_broken_files_of_the_list_cost_the_list_and_nothing_else(hub_server, open_hub, tmp_path):
    hub_server.repositories = made(5)
    hub = open_hub()
    hub.search()
    before = tree_of(tmp_path / "samples")
    file = tmp_path / "data" / "hub" / "listed.json"
    said = json.loads(file.read_bytes())
    said["adapters"][1] = {"repo": 3}
    said["adapters"][2] = "x"
    file.write_text(json.dumps(said))
    assert len(open_hub().rows()) == 3
    file.write_text('{"schema": 1, "base": [')
    assert open_hub().rows() == []
    assert tree_of(tmp_path / "samples") == before
    assert CONFIG in hub_server.repositories["ada/sums-0"].files


def test_a_base_without_a_name_on_the_hub_says_what_to_set(open_hub):
    with pytest.raises(RamoleError, match="RAMOLE_HUB_BASE"):
        open_hub(hub_base="/some/folder").search()
