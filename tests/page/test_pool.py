"""The tab Pool as plain functions: what the cards say, what an upload is told, whose it is."""

import codecs
import gc
import json
import re
import threading
import weakref
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import gradio as gr
import pytest
from gradio.utils import get_upload_folder

from ramole_core import AdapterRefused, RamoleError
from ramole_core.pool.examples_and_readme import check_examples
from tests.support.fake_ramole import FakeRamole
from tests.support.pool_fakes import PoolRamole, upload, write_adapter, write_sample, zipped
from ui.api.endpoints import Endpoints
from ui.api.fields import UploadFields, WrongField, checked
from ui.model import spaces
from ui.model.loading import loading_of
from ui.parts.errors import UNEXPECTED, one_sentence
from ui.parts.markup import escaped
from ui.pool import cards
from ui.pool.cards import cards_html
from ui.pool.declared import examples_from_file, examples_from_lines
from ui.pool.details import card_text, details_html, removals_html, write_bundle
from ui.pool.intake import judge
from ui.pool.tab import PoolHandlers
from ui.session.leaving import sweep
from ui.session.owner import OPERATOR_HEADER, OPERATOR_KEY, owner_of
from ui.session.quota import MIB, Quota, quota_of
from ui.session.removed import MAX_REMOVED, UNDO_SECONDS, Removed
from ui.session.uploads import taken

ANN, BEN = "session-ann", "session-ben"
EVIL = "<img src=x onerror=alert(1)> ${alert(2)} {{value}} `x`"


@pytest.fixture
def ramole(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    adapters = tmp_path / "adapters"
    command = "python -m ramole_core train adapter squad --rank 5"
    readme = f"---\nlicense: apache-2.0\n---\n# Squad\n\nReads {EVIL}."
    write_sample(
        adapters, "squad", rank=5, seed=1, examples=["where", "who"], readme=readme, command=command
    )
    write_sample(adapters, "dart", rank=2, seed=2, modules=["down_proj"], examples=["list"])
    system = PoolRamole(tmp_path)
    yield system
    system.close()


@pytest.fixture
def quota(ramole):
    return Quota(ramole)


@pytest.fixture
def archive(tmp_path):
    """An uploaded zip with one adapter, by name and seed."""

    def make(name: str, *, seed: int = 9, **made) -> str:
        folder = write_adapter(tmp_path / f"made-{name}-{seed}", seed=seed, **made)
        return upload(zipped(folder, tmp_path / f"{name}.zip"), folder=f"{name}{seed}")

    return make


# Cards


def test_a_card_says_what_it_is_in_words_and_only_text_reaches_the_page(ramole):
    card = ramole.pool.card("squad")
    assert not set("<>\"'`${") & set(escaped(EVIL + "\"'"))
    page = cards_html([card], yours=(), total=1)
    words = ("sample", "rank 5", "attention, 2 layers", "scale 2", "2 examples")
    for word in (*words, "licence apache-2.0"):
        assert f">{word}<" in page
    other = replace(card, notes=("Made for a/b, not for c/d: its shapes fit.", "Another."))
    shown = cards_html([other], yours=(), total=1)
    assert ">made for a/b<" in shown and ">1 note<" in shown
    assert ">1 adapter</p>" in page and ">1 of 2 adapters<" in cards_html([card], yours=(), total=2)
    assert 'data-name="squad"' in page and "&lt;img" in page
    evil = replace(card, notes=(EVIL,), examples=(EVIL,), base_model=EVIL, licence=EVIL)
    shown = details_html(evil, ramole.neighbours("squad"), yours=False, card_text=EVIL)
    for html in (page, shown):
        assert "<img" not in html and "${" not in html and "{{" not in html and "`" not in html


def test_the_time_of_an_upload_has_its_time_zone(ramole):
    card = replace(ramole.pool.card("squad"), added="2026-12-31T23:30:00-02:00")
    assert "<td>2027-01-01 01:30 UTC</td>" in details_html(card, (), yours=True, card_text="")
    old = replace(card, added="last year")
    assert "<td>last year</td>" in details_html(old, (), yours=True, card_text="")


@pytest.mark.parametrize(
    ("search", "show", "order", "names"),
    [
        ("", "everything", "name", ["mine", "dart", "squad"]),
        ("", "everything", "largest rank", ["mine", "squad", "dart"]),
        ("DOWN_proj", "everything", "name", ["dart"]),
        ("reads apache", "samples", "name", ["squad"]),
        ("reads gpl", "everything", "name", []),
        ("", "yours", "newest", ["mine"]),
    ],
)
def test_search_and_filters(ramole, quota, archive, search, show, order, names):
    list(judge(ramole, quota, [archive("mine")], owner=ANN))
    handlers = PoolHandlers(ramole)
    shown = handlers.listing(search, show, order, ANN)
    assert re.findall('data-name="(.*?)"', shown) == names, "one's own first"
    count = f"{len(names)} of 3 adapters" if names else "No adapter matches"
    assert len(names) == 3 or count in shown
    assert shown.count(">yours<") == ("mine" in names)
    assert "mine" not in handlers.listing(search, show, order, BEN)


def test_details_have_numbers_neighbours_card_examples_and_the_command(ramole):
    handlers = PoolHandlers(ramole)
    shown, command, *_ = handlers.on_choose("squad", gr.Request())
    assert command.value == "python -m ramole_core train adapter squad --rank 5"
    for words in (
        "q_proj, v_proj",
        "0 to 1 (2)",
        "apache-2.0",
        "dart",
        "<li>where</li>",
        "# Squad",
    ):
        assert words in shown
    assert ramole.pool.card("squad").sha256[:16] in shown
    assert not handlers.on_choose("dart", gr.Request())[1].visible
    with pytest.raises(gr.Error, match="squat.*squad"):
        handlers.on_choose("squat", gr.Request())
    file = ramole.pool.card("dart").folder / "train.json"
    for content, command in (("[" * 100_000, ""), ('{"command": ["python", "-m", "x"]}', None)):
        file.write_text(content)
        shown = handlers.on_choose("dart", gr.Request())[1]
        assert (shown.value or "") == ("python -m x" if command is None else command)


# Uploads


def test_several_uploads_each_get_a_verdict_and_leave_the_cache(ramole, quota, archive, tmp_path):
    pickle = tmp_path / "adapter_model.bin"
    pickle.write_bytes(b"\x80\x04.")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 no zip")
    prompt = f'Where is "it"?\n{EVIL}'
    ramole.pool._base_name = "made/base"
    far = archive("far", seed=22, base_model_name_or_path="a/b")
    mine = archive("one", rank=4, examples=[prompt], base_model_name_or_path="made/base")
    paths = [mine, upload(broken), far, upload(pickle)]
    verdicts = list(judge(ramole, quota, paths, owner=ANN, name="ignored", examples=["ignored"]))
    told = [(v.label, v.outcome) for v in verdicts]
    assert told == [
        ("one.zip", "usable"),
        ("broken.zip", "refused"),
        ("far.zip", "usable with a note"),
        ("adapter_model.bin", "refused"),
    ]
    assert [card.name for card in ramole.pool.cards(ANN) if card.owner == ANN] == ["one", "far"]
    assert not any(Path(path).exists() for path in paths)
    assert {hit.name for hit in verdicts[0].neighbours} == {"squad", "dart"}
    html = verdicts[0].as_html()
    assert "attention, 2 layers; rank 4; scale 2" in html and "usable." in html
    assert f'class="rm-try" data-prompt="{escaped(prompt)}"' in html
    assert "its answers may not" in verdicts[2].as_html()
    assert "rm-try" not in verdicts[2].as_html(), "it shows no example"
    (verdict,) = judge(ramole, quota, [archive("nobodys", seed=5)], owner=None)
    assert "belongs to a session" in verdict.reason


def test_the_two_files_make_one_adapter_with_the_name_and_examples_given(ramole, tmp_path):
    folder = write_adapter(tmp_path / "pair", seed=31)
    paths = [upload(file, folder=file.name) for file in sorted(folder.iterdir())]
    ann, words = _request("abc"), "how far\n\nhow long"
    steps = list(PoolHandlers(ramole).on_drop(paths, " Fine One ", words, ann))
    assert len(steps) == 2 and steps[-1][1:] == (None, "", "")
    (card,) = [card for card in ramole.pool.cards(owner_of(ann)) if card.owner]
    assert card.name.startswith("fine")
    assert card.examples == ("how far", "how long")
    assert "adapter_config.json + adapter_model.safetensors" in steps[0][0]


@pytest.mark.parametrize(("name", "lines"), [("mine", ""), ("", "how far"), ("", " ")])
def test_with_two_adapters_a_typed_name_and_examples_are_kept_and_a_sentence_says_so(
    ramole, archive, name, lines
):
    paths = [archive("one", seed=21), archive("two", seed=22)]
    (*_, last) = PoolHandlers(ramole).on_drop(paths, name, lines, _request("abc"))
    typed = bool(name or lines.strip())
    assert "one.zip" in last[0] and "two.zip" in last[0]
    assert last[0].count("for one adapter at a time, so what is typed was not used") == typed
    assert last[1:] == (None, *((gr.skip(), gr.skip()) if typed else ("", "")))
    cards = [card for card in ramole.pool.cards(owner_of(_request("abc"))) if card.owner]
    assert [(card.name, card.examples) for card in cards] == [("one", ()), ("two", ())]


def test_loose_files_of_two_adapters_are_refused_because_nothing_says_which_is_whose(
    ramole, quota, tmp_path
):
    paths = [
        upload(file, folder=f"{name}{file.name}")
        for name in ("a", "b")
        for file in sorted(write_adapter(tmp_path / name, seed=ord(name)).iterdir())
    ]
    (verdict,) = judge(ramole, quota, paths, owner=ANN)
    assert verdict.outcome == "refused" and "one folder at a time" in verdict.reason
    assert len(ramole.pool.cards(ANN)) == 2


@pytest.mark.parametrize(
    "path",
    ["/etc/hostname", "../../etc/hostname", "app.py", "one two\n" * 2000, "a\0b", 5, None, ["a"]],
)
def test_a_path_that_is_no_upload_is_refused_and_left_alone(ramole, quota, path):
    for paths in ([path], path if isinstance(path, str | int) else {"path": path}):
        (verdict,) = judge(ramole, quota, paths, owner=ANN)
        assert "not an uploaded file" in verdict.reason


@pytest.mark.parametrize(
    ("event", "name"),
    [("download", None), ("remove", None)]
    + [
        (event, name)
        for event in ("choose", "download", "remove", "examples")
        for name in (5, ["squad"], {"name": "squad"}, 1.5)
    ],
)
def test_without_a_name_that_is_a_text_nothing_is_chosen(ramole, event, name):
    handler = getattr(PoolHandlers(ramole), f"on_{event}")
    more = ("a line", None) if event == "examples" else ()
    with pytest.raises(gr.Error, match="No adapter is chosen"):
        handler(name, *more, gr.Request())


def test_words_that_are_no_text_and_an_examples_file_alone_are_no_fault(ramole, archive):
    handlers = PoolHandlers(ramole)
    (*_, last) = handlers.on_drop([archive("mine", seed=1)], 5, {"a": 1}, gr.Request())
    assert "mine.zip" in last[0]
    (*_, last) = handlers.on_drop([upload("examples.jsonl", b"{}")], "", "", gr.Request())
    assert "give it as examples" in last[0]


def test_a_link_out_of_the_cache_is_refused(ramole, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("s")
    cache = Path(get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "link.txt").symlink_to(secret)
    with pytest.raises(AdapterRefused, match="not an uploaded"), taken([str(cache / "link.txt")]):
        pass
    with pytest.raises(AdapterRefused, match="no longer"), taken([str(cache / "gone.zip")]):
        pass
    assert secret.read_text() == "s"


# Quotas and owners


def test_quota_counts_adapters_and_megabytes_in_one_sentence_each(ramole, archive):
    quota = Quota(ramole, adapters=1, mb=1)
    with pytest.raises(AdapterRefused, match=r"It has 3.0 MB, and 1.0 of the session's 1 MB"):
        with quota.room(ANN, 3 * MIB):
            pass
    assert next(judge(ramole, quota, [archive("one", seed=41)], owner=ANN)).card
    (verdict,) = judge(ramole, quota, [archive("two", seed=42)], owner=ANN)
    assert "has 1 adapters, the most" in verdict.reason
    assert next(judge(ramole, quota, [archive("three", seed=43)], owner=BEN)).card
    assert quota.sentence(ANN).startswith("1 of 1 adapters")


def test_room_is_held_while_an_upload_is_checked_and_given_back(ramole):
    quota = Quota(ramole, adapters=1)
    with quota.room(ANN, 10):
        with pytest.raises(AdapterRefused, match="the most"), quota.room(ANN, 10):
            pass
        with quota.room(BEN, 10):
            pass
    with pytest.raises(ValueError, match="boom"), quota.room(ANN, 10):
        raise ValueError("boom")
    with quota.room(ANN, 10):
        pass


def test_only_its_own_session_removes_and_changes_an_upload(ramole, quota, archive):
    list(judge(ramole, quota, [archive("mine")], owner=ANN))
    with pytest.raises(RamoleError, match="no adapter 'mine'"):
        quota.remove("mine", BEN)
    for owner in (ANN, None):
        with pytest.raises(AdapterRefused, match="sample pool"):
            quota.remove("squad", owner)
    with pytest.raises(AdapterRefused, match="sample pool"):
        quota.owned("squad", ANN)
    quota.remove("mine", ANN)
    assert len(ramole.pool.cards(ANN)) == 2


@pytest.fixture
def shared(tmp_path, ramole):
    """A page whose uploads are everybody's, with no sample."""
    (tmp_path / "shared" / "adapters").mkdir(parents=True)
    system = PoolRamole(tmp_path / "shared", shared_uploads=True)
    yield system
    system.close()


def test_shared_uploads_are_everyones_to_use_and_their_uploaders_to_remove(
    shared, archive, tmp_path
):
    quota = quota_of(shared)
    shared.pool.add(write_adapter(tmp_path / "theirs", seed=52), name="operators")

    def drop(owner, path):
        (verdict,) = judge(shared, quota, [path], owner=owner)
        return verdict

    assert drop(ANN, archive("made", seed=51)).card.name == "made"
    before = shared.pool.card("made")
    folder = write_adapter(tmp_path / "b", seed=51, readme="Else.", examples=["said by another"])
    again = zipped(folder, tmp_path / "again.zip")
    verdict = drop(BEN, upload(again))
    assert verdict.known and verdict.card == before == shared.pool.card("made"), "another's stays"
    assert drop(ANN, upload(again)).card.examples == ("said by another",), "one's own does not"
    for name, owner in (("made", BEN), ("operators", BEN), ("operators", None), ("made", None)):
        with pytest.raises(AdapterRefused, match="not this session's"):
            quota.remove(name, owner)
    assert quota.leave(ANN) == 0 and sweep(shared) == 0
    quota.remove("made", ANN)
    assert [card.name for card in shared.pool.cards()] == ["operators"]


def test_what_the_operator_puts_in_the_place_of_a_shared_upload_is_no_sessions(
    shared, archive, tmp_path
):
    quota = quota_of(shared)
    list(judge(shared, quota, [archive("made", seed=51)], owner=ANN))
    assert quota.owns(shared.pool.card("made"), ANN)
    operator = SimpleNamespace(headers={OPERATOR_HEADER: OPERATOR_KEY}, session_hash=None)
    assert Endpoints(shared).remove_adapter("made", operator) == {"removed": "made"}
    card = shared.pool.add(write_adapter(tmp_path / "theirs", seed=52), name="made")
    assert not quota.owns(card, ANN) and quota.used(ANN) == (0, 0)
    with pytest.raises(AdapterRefused, match="not this session's"):
        quota.remove("made", ANN)


def test_uploads_go_with_their_session_and_with_the_process(ramole, quota, archive):
    for owner, name in ((ANN, "one"), (ANN, "two"), (BEN, "three")):
        list(judge(ramole, quota, [archive(name, seed=sum(name.encode()))], owner=owner))
    ramole.pool.add(Path(archive("four", seed=77)), owner="operator")
    assert quota_of(ramole).leave(ANN) == 2 and quota_of(ramole).leave(ANN) == 0
    assert [c.name for c in ramole.pool.cards(BEN)][2:] == ["three"]
    assert sweep(ramole) == 1
    assert [c.name for c in ramole.pool.all_cards()][2:] == ["four"]


def test_what_the_page_keeps_of_a_system_is_freed_with_it():
    ramole = FakeRamole()
    kept = [weakref.ref(one) for one in (ramole, quota_of(ramole), loading_of(ramole))]
    assert None not in [one() for one in kept]
    del ramole
    gc.collect()
    assert [one() for one in kept] == [None] * 3


def _request(session=None, **headers):
    return SimpleNamespace(session_hash=session, headers=headers)


def test_an_owner_is_one_session_and_does_not_give_it_away():
    one, two = owner_of(_request("abc")), owner_of(_request("abd"))
    assert one != two and one == owner_of(_request("abc"))
    assert re.fullmatch("session-[0-9a-f]{24}", one) and "abc" not in one
    assert owner_of(_request("../../etc")).startswith("session-")
    assert owner_of(_request()) is None and owner_of(None) is None


def test_an_mcp_client_is_its_secret_and_never_the_session_that_all_of_them_share():
    mcp = {"x-gradio-user": "mcp"}
    assert owner_of(_request("shared", **mcp)) is None
    assert owner_of(_request("shared", **mcp, **{"x-ramole-session": "short"})) is None
    secret = {"x-ramole-session": "a secret of mine!"}
    mine = owner_of(_request("shared", **mcp, **secret))
    assert mine == owner_of(_request("other", **mcp, **secret))
    assert mine != owner_of(_request("shared", **secret))


# Examples


def test_examples_replace_those_that_were_there(ramole, archive, tmp_path):
    handlers, ann = PoolHandlers(ramole), _request("abc")
    list(handlers.on_drop([archive("mine", examples=["old"])], "", "", ann))
    file = tmp_path / "more.jsonl"
    file.write_text('{"text": "two"}\n\n"three"\n{"inputs": "four"}\n')
    told, *_, shown = handlers.on_examples("mine", "one", [upload(file)], ann)
    assert "<li>three</li>" in shown
    assert ramole.pool.card("mine", owner_of(ann)).examples == ("one", "two", "three", "four")
    assert "made from 4" in told
    for name, lines, reason in ((None, "x", "No adapter"), ("mine", " \n", "No example is given")):
        with pytest.raises(gr.Error, match=reason):
            handlers.on_examples(name, lines, (), ann)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"text": "x"}\n{oops', "line 2 is not JSON"),
        ("a.jsonl", b'{"label": 1}', "line 1 has no text"),
        ("a.txt", b"caf\xe9", "not UTF-8 text"),
        ("a.txt", b"x" * 2001, "2001 characters, and 2000 is the most"),
        ("a.txt", b"x\n" * 1001, "1001 examples are given, and 1000 is the most"),
    ],
)
def test_what_is_wrong_with_an_examples_file(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RamoleError, match=reason):
        examples_from_file(tmp_path / name)


def test_the_page_takes_examples_as_long_as_the_pool_keeps_and_more_than_it_keeps():
    most = ["x" * 1998 + str(n % 90 + 10) for n in range(1000)]
    assert examples_from_lines("\n".join(most)) == most
    assert checked(UploadFields, examples=most).examples == most
    assert check_examples(most) == (most[:200], ["The first 200 of 1000 examples are kept."])
    for more in ([*most, "y"], ["y" * 2001]):
        with pytest.raises(AdapterRefused, match="is the most"):
            examples_from_lines("\n".join(more))
        with pytest.raises(WrongField, match=r"^examples.* at most (1000 items|2000 characters)"):
            checked(UploadFields, examples=more)
    for typed, lines in ((None, []), (" \n", []), (" one \n\ntwo\n", ["one", "two"])):
        assert examples_from_lines(typed) == lines
    paragraphs = examples_from_lines("Translate:\nboat\n \n\nSay:\n  hi")
    assert paragraphs == ["Translate:\nboat", "Say:\n  hi"]


# Taking away


def test_a_bundle_holds_the_adapter_and_nothing_else_and_can_be_added_again(ramole):
    folder = ramole.pool.card("squad").folder
    (folder / "secret.txt").write_text("not to be taken")
    first = write_bundle(folder, "squad")
    second = write_bundle(folder, "squad")
    assert first != second and first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as bundle:
        names = {Path(name).name for name in bundle.namelist()}
        weights = bundle.read("squad/adapter_model.safetensors")
    assert names == {
        "adapter_model.safetensors", "adapter_config.json", "README.md", "examples.jsonl",
        "train.json",
    }  # fmt: skip
    assert weights == (folder / "adapter_model.safetensors").read_bytes()
    again = ramole.pool.add(first, owner=ANN)
    assert again.sha256 == ramole.pool.card("squad").sha256 and again.examples == ("where", "who")


# Removing can be undone


def uploads(ramole) -> dict[str, bytes]:
    """Every file of the uploads, by its path; what is hidden included."""
    root = ramole.settings.data_dir / "uploads"
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()
    }


def found(ramole, owner) -> list[str]:
    return [hit.name for hit in ramole.retrieve("where is it", k=9, owner=owner)]


def test_a_removal_can_be_undone_and_all_is_as_it_was(ramole, quota, archive):
    list(judge(ramole, quota, [archive("mine", examples=["where is it"])], owner=ANN))
    before, card = uploads(ramole), ramole.pool.card("mine", ANN)
    quota.remove("mine", ANN, keep=True)
    assert "mine" not in found(ramole, ANN) and len(ramole.pool.cards(ANN)) == 2
    assert quota.used(ANN) == (0, 0) and "can still be undone" in quota.sentence(ANN)
    ((removal, left),) = quota.removed.of(ANN)
    assert removal.name == "mine" and 0 < left <= UNDO_SECONDS and quota.removed.of(BEN) == []
    html = removals_html(quota.removed.of(ANN))
    assert "mine was removed" in html and "for 2 minutes" in html and removal.token in html
    assert removals_html([]).count("<p>") == 0
    for token, owner in ((removal.token, BEN), (removal.token, None), ("guess", ANN), ("", ANN)):
        with pytest.raises(AdapterRefused, match="cannot be undone any more"):
            quota.undo(token, owner)
    assert quota.undo(removal.token, ANN) == card
    assert uploads(ramole) == before and found(ramole, ANN)[0] == "mine"
    assert quota.owns(ramole.pool.card("mine", ANN), ANN) and quota.removed.of(ANN) == []
    with pytest.raises(AdapterRefused, match="cannot be undone any more"):
        quota.undo(removal.token, ANN)


def test_what_was_removed_goes_with_the_time_the_session_and_the_process(ramole, quota, archive):
    for name in ("one", "two", "three"):
        list(judge(ramole, quota, [archive(name, seed=sum(name.encode()))], owner=ANN))
    now = [0.0]
    quota.removed = Removed(clock=lambda: now[0])
    quota.remove("one", ANN, keep=True)
    (removal, _), *_ = quota.removed.of(ANN)
    now[0] = UNDO_SECONDS + 1
    assert quota.removed.of(ANN) == []
    quota.removed.drop(removal.token)
    assert len({Path(name).parent for name in uploads(ramole)}) == 2
    quota.remove("two", ANN, keep=True)
    assert len({Path(name).parent for name in uploads(ramole)}) == 2, "it is kept"
    quota.leave(ANN)
    assert not (ramole.settings.data_dir / "uploads").exists(), "nothing is left, not even a folder"


def test_a_kill_leaves_nothing_of_what_was_removed(ramole, quota, archive):
    list(judge(ramole, quota, [archive("mine")], owner=ANN))
    quota.remove("mine", ANN, keep=True)
    assert uploads(ramole)
    ramole.pool.close()
    again = PoolRamole(ramole.settings.data_dir.parent)
    assert not (ramole.settings.data_dir / "uploads").exists() and not again.pool.problems
    again.close()


def test_a_name_that_was_taken_meanwhile_is_one_sentence(ramole, quota, archive):
    list(judge(ramole, quota, [archive("mine", seed=1)], owner=ANN))
    quota.remove("mine", ANN, keep=True)
    list(judge(ramole, quota, [archive("mine", seed=2)], owner=ANN))
    ((removal, _),) = quota.removed.of(ANN)
    with pytest.raises(AdapterRefused, match="already another adapter named 'mine'.*remove that"):
        quota.undo(removal.token, ANN)
    ((removal, _),) = quota.removed.of(ANN)
    quota.remove("mine", ANN)
    assert quota.undo(removal.token, ANN).name == "mine"
    quota.remove("mine", ANN, keep=True)
    list(judge(ramole, quota, [archive("other", seed=1)], owner=ANN))
    ((removal, _),) = quota.removed.of(ANN)
    with pytest.raises(AdapterRefused, match="added again meanwhile, as other"):
        quota.undo(removal.token, ANN)


def test_what_was_removed_is_counted_and_is_the_first_to_make_room(ramole, archive):
    size = Path(archive("size", seed=5)).stat().st_size
    quota = Quota(ramole, mb=1)
    (verdict,) = judge(ramole, quota, [archive("one", seed=1)], owner=ANN)
    assert verdict.card is not None
    quota.remove("one", ANN, keep=True)
    with quota.room(ANN, MIB - 4 * size):
        assert len(quota.removed.of(ANN)) == 1, "there is room beside it"
    with quota.room(ANN, MIB - 10):
        assert quota.removed.of(ANN) == [], "its room was needed"
    assert not uploads(ramole)
    for n in range(MAX_REMOVED + 2):
        list(judge(ramole, quota, [archive(f"many{n}", seed=100 + n)], owner=ANN))
        quota.remove(f"many{n}", ANN, keep=True)
    assert len(quota.removed.of(ANN)) == MAX_REMOVED


def test_an_index_that_fails_leaves_the_removal_as_it_was(ramole, quota, archive):
    list(judge(ramole, quota, [archive("mine")], owner=ANN))
    quota.remove("mine", ANN, keep=True)
    ((removal, _),) = quota.removed.of(ANN)
    broken = SimpleNamespace(added=Mock(side_effect=RamoleError("The index cannot be written.")))
    broken.removed = Mock()
    ramole.pool.listeners.append(broken)
    kept = uploads(ramole)
    with pytest.raises(RamoleError, match="cannot be written"):
        quota.undo(removal.token, ANN)
    assert uploads(ramole) == kept and "mine" not in found(ramole, ANN)
    ramole.pool.listeners.pop()
    ((removal, _),) = quota.removed.of(ANN)
    assert quota.undo(removal.token, ANN).name == "mine"


# Names of loose files


@pytest.mark.parametrize(
    ("readme", "config", "name"),
    [
        ("---\nmodel_name: My Fine LoRA\n---\n# x", {}, "my-fine-lora"),
        ("---\nmodel-index:\n- name: ann/boats\n---\n", {}, "boats"),
        ("---\nlicense: mit\n---\n\n# Boats of Bergen\n\nFinds boats.", {}, "boats-of-bergen"),
        ("# Model Card for Model ID", {}, "my-adapter"),
        ("# <img src=x>", {}, "img-src-x"),
        ("# _____", {}, "my-adapter"),
        ("", {"adapter_name": "squad"}, "squad-2"),
        ("", {"name": ["x"]}, "my-adapter"),
        ("", {}, "my-adapter"),
    ],
)
def test_loose_files_are_named_by_what_they_say(ramole, quota, tmp_path, readme, config, name):
    folder = write_adapter(tmp_path / "pair", seed=31, readme=readme, **config)
    paths = [upload(file, folder=file.name) for file in sorted(folder.iterdir())]
    (verdict,) = judge(ramole, quota, paths, owner=ANN)
    assert verdict.card is not None and verdict.card.name == name
    assert ("do not say its name" in verdict.as_html()) == (name == "my-adapter")


def test_files_with_a_byte_order_mark_say_what_they_say_without_it(ramole, quota, tmp_path):
    readme = "---\nlicense: mit\n---\n# Boats\n\nFinds boats."
    for name in ("README.md", "examples.jsonl", "adapter_config.json"):
        folder = write_adapter(
            tmp_path / name, seed=len(name), readme=readme, examples=["where", "who"]
        )
        file = folder / name
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
        paths = [upload(file, folder=name + file.name) for file in sorted(folder.iterdir())]
        (verdict,) = judge(ramole, quota, paths, owner=ANN)
        card = verdict.card
        assert card is not None, verdict.reason
        assert card.name.startswith("boats") and card.notes == ()
        assert (card.licence, card.description) == ("mit", "Finds boats.")
        assert card.examples == ("where", "who") and card_text(card.folder) == readme


# Errors


@pytest.mark.parametrize(
    ("error", "how", "message"),
    [
        (RamoleError("There is no <b>x</b>."), {}, "There is no &lt;b&gt;x&lt;/b&gt;."),
        (RamoleError("There is no <b>x</b>."), {"markup": False}, "There is no <b>x</b>."),
        (KeyError("/srv/secret"), {}, UNEXPECTED),
        (gr.Error("as it is"), {}, "as it is"),
    ],
)
def test_an_error_is_one_sentence_and_markup_in_it_is_inert(caplog, error, how, message):
    with pytest.raises(gr.Error) as told, one_sentence(**how):
        raise error
    assert told.value.message == message
    assert ("KeyError" in caplog.text) == (message == UNEXPECTED)
    assert told.value.print_exception == isinstance(error, gr.Error)


def test_without_the_spaces_package_a_handler_stays_as_it_is(monkeypatch):
    def handler():
        return 1

    monkeypatch.setattr(spaces, "ELSEWHERE", False)
    assert spaces.gpu(9)(handler) is handler
    lent = SimpleNamespace(GPU=lambda duration: lambda fn: (duration, fn))
    monkeypatch.setattr(spaces, "ELSEWHERE", True)
    monkeypatch.setattr(spaces, "import_module", lambda name: lent)
    assert spaces.gpu(9)(handler) == (9, handler)


def test_loading_tells_how_far_it_is_and_why_it_failed():
    go, told = threading.Event(), {"fail": True}

    class Slow:
        loaded = False

        def load(self, progress):
            progress("reading", 0.25)
            go.wait(120)
            if told["fail"]:
                raise RamoleError("No network; connect it.")
            self.kept = [[n] for n in range(100_000)]
            self.loaded = True

    slow = Slow()
    loading = loading_of(slow)
    assert loading_of(slow) is loading
    loading.start()
    loading.start()
    while loading.fraction == 0:
        pass
    assert loading.status() == {"ready": False, "stage": "reading", "fraction": 0.25, "error": None}
    go.set()
    assert loading.ended.wait(120) and loading.error == "No network; connect it."
    told["fail"] = False
    loading.start()
    assert loading.ended.wait(120) and loading.ready and loading.error is None
    assert json.loads(json.dumps(loading.status()))["fraction"] == 1.0
    assert len(gc.get_objects()) < 50_000 < len(slow.kept), "what was loaded is garbage no more"


def test_a_search_of_many_words_reads_each_card_once(ramole, monkeypatch):
    read, ranks = [], cards.ranks_in_words
    monkeypatch.setattr(cards, "ranks_in_words", lambda card: read.append(card) or ranks(card))
    every = ramole.pool.cards()
    words = (" ".join(every[0].name) + " ") * 2000
    found = cards.matching(every, search=words, show="everything", order="name", yours=())
    assert every[0] in found and len(read) == len(every)
