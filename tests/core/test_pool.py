"""The pool: adding from disk and from a Hub, finding, removing, owners, and the data folder."""

import json
import os
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ramole_core import MAX_EXAMPLE, AdapterRefused, Busy, Ramole, RamoleError, Settings
from ramole_core.pool import Limits, write_manifest
from ramole_core.pool.tensors import fold
from ramole_core.pool.uploads import Uploads
from tests.support.adapter_files import (
    CONFIG,
    PREFIX,
    SHAPES,
    WEIGHTS,
    arrays_of,
    open_pool,
    pair_arrays,
    tree_of,
    write_adapter,
)
from tests.support.hub_server import Repository
from tests.support.workers import at_once, python

Q0 = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"
Q1 = "model.layers.1.self_attn.q_proj"


@pytest.fixture
def pool(tmp_path):
    with open_pool(tmp_path, limits=Limits(max_upload_mb=1)) as pool:
        yield pool


def add_sample(tmp_path: Path, name: str, *, seed: int = 0, **more) -> Path:
    folder = write_adapter(tmp_path / "samples" / name, seed=seed, **more)
    write_manifest(folder, name=name, shapes=SHAPES)
    return folder


class Ears:
    """A listener that writes down what it hears."""

    def __init__(self, *, deaf: bool = False):
        self.heard, self.deaf = [], deaf

    def added(self, card):
        self.heard.append(("added", card.key, card.folder.exists()))
        if self.deaf:
            raise OSError("the index is away")

    def removed(self, card):
        self.heard.append(("removed", card.key, card.folder.exists()))


def test_added_card_says_what_the_tensors_say(pool, tmp_path):
    arrays = {**pair_arrays(Q1, rank=5), **pair_arrays(DOWN, rank=2)}
    config = {"r": 2, "lora_alpha": 8, "rank_pattern": {Q1: 5}, "base_model_name_or_path": "some/x"}
    card = pool.add(write_adapter(tmp_path / "My LoRA", arrays=arrays, config=config))
    assert (card.name, card.owner, card.sample) == ("my-lora", None, False)
    assert card.ranks == {DOWN: 2, Q1: 5} and card.rank == 5
    assert card.scales == {DOWN: 4.0, Q1: 8 / 5} and card.scale == 4.0
    assert card.modules == ("down_proj", "q_proj") and card.layers == (0, 1)
    assert card.parameters == 2 * (28 + 12) + 5 * (12 + 20)
    assert (card.dtype, card.base_model) == ("F32", "some/x")
    assert card.bytes == (tmp_path / "My LoRA" / WEIGHTS).stat().st_size
    assert card.folder.is_dir() and card.folder.is_relative_to(tmp_path / "data" / "uploads")
    assert pool.card("my-lora") == card and pool.cards() == [card]
    assert json.loads(json.dumps(card.as_dict()))["key"] == "pool/my-lora"


@pytest.mark.parametrize(
    ("said", "noted"),
    [
        ("meta-llama/Llama-2-7b-hf", True),
        ("someone/SmolLM2-135M", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", False),
        ("unsloth/smollm2-135m-instruct-bnb-4bit", False),
        ("/home/ada/models/llama", False),
        ("", False),
    ],
)
def test_an_adapter_of_another_base_says_so(tmp_path, said, noted):
    config = {"r": 3, "base_model_name_or_path": said}
    with open_pool(tmp_path, base_name="HuggingFaceTB/SmolLM2-135M-Instruct") as pool:
        card = pool.add(write_adapter(tmp_path / "a", config=config))
    notes = [note for note in card.notes if note.startswith("Made for ")]
    assert len(notes) == noted
    assert not noted or f"Made for {said}, not for HuggingFaceTB/Smol" in notes[0]


def test_a_manifest_of_their_hashes_lies_beside_the_plain_files(pool, tmp_path):
    lie = json.dumps({"schema": 1, "name": "other", "owner": None}).encode()
    folder = write_adapter(tmp_path / "a", files={"manifest.json": lie})  # is not believed
    card = pool.add(folder, examples=["one", "two"])
    assert (card.name, card.rank) == ("a", 3)
    manifest = json.loads((card.folder / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert manifest["files"][WEIGHTS]["sha256"] == card.sha256
    assert set(manifest["files"]) == {WEIGHTS, CONFIG, "examples.jsonl"}
    lines = (card.folder / "examples.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "one"}, {"text": "two"}]


def test_the_next_process_finds_the_same_cards(tmp_path):
    add_sample(tmp_path, "sample", seed=1)
    with open_pool(tmp_path) as first:
        first.add(write_adapter(tmp_path / "a", seed=2), name="mine", owner="ada", examples=["x"])
        first.add(write_adapter(tmp_path / "b", seed=3), name="all")
        before = first.all_cards()
    with open_pool(tmp_path) as second:
        key = lambda card: card.key  # noqa: E731
        assert sorted(second.all_cards(), key=key) == sorted(before, key=key)
        assert len(before) == 3 and second.problems == []


@pytest.mark.parametrize("rslora", [False, True])
def test_tensors_hold_the_folded_scale(pool, tmp_path, rslora):
    arrays = {**pair_arrays(Q0, rank=4), **pair_arrays(DOWN, rank=2)}
    config = {"r": 4, "lora_alpha": 6, "use_rslora": rslora, "alpha_pattern": {"down_proj": 10}}
    card = pool.add(write_adapter(tmp_path / "a", arrays=arrays, config=config))
    tensors = pool.tensors(card)
    assert list(tensors.modules) == [Q0, DOWN]
    scales = {Q0: 6 / 2, DOWN: 10 / 2**0.5} if rslora else {Q0: 6 / 4, DOWN: 10 / 2}
    for path, scale in scales.items():
        A, B = tensors.modules[path]
        np.testing.assert_array_equal(A.numpy(), arrays[f"{PREFIX}{path}.lora_A.weight"])
        np.testing.assert_allclose(
            B.numpy(), arrays[f"{PREFIX}{path}.lora_B.weight"] * scale, rtol=1e-6
        )


def test_folding_keeps_a_half_dtype_only_where_nothing_is_lost():
    B = torch.tensor([[1.5, -0.3], [0.7, 2.0], [0.1, 1e-3]], dtype=torch.bfloat16)
    assert fold(B, 4.0).dtype == torch.bfloat16
    assert fold(B, 1 / 3).dtype == torch.float32
    assert torch.equal(fold(B, 4.0).float(), B.float() * 4)
    half = torch.tensor([[6e4]], dtype=torch.float16)
    assert fold(half, 2.0).dtype == torch.float32  # twice as much overflows float16


@pytest.mark.parametrize(
    "key", ["{prefix}{path}.lora_{half}.default.weight", "{path}.lora_{half}.weight"]
)
def test_other_spellings_of_the_names_are_read(pool, tmp_path, key):
    pair = pair_arrays(Q0)
    arrays = {
        key.format(prefix=PREFIX, path=Q0, half=half): pair[f"{PREFIX}{Q0}.lora_{half}.weight"]
        for half in "BA"
    }
    card = pool.add(write_adapter(tmp_path / "a", arrays=arrays))
    assert card.ranks == {Q0: 3}
    np.testing.assert_array_equal(
        pool.tensors(card).modules[Q0][0].numpy(), pair[f"{PREFIX}{Q0}.lora_A.weight"]
    )


@pytest.mark.parametrize(
    ("halved", "name", "dtype"),
    [
        (lambda wide: wide.astype("f2"), "F16", torch.float16),
        (lambda wide: (wide.view("u4") >> 16).astype("u2"), "BF16", torch.bfloat16),
    ],
)
def test_half_precision_files_give_their_values(pool, tmp_path, halved, name, dtype):
    wide = pair_arrays(Q0)
    arrays = {key: halved(value) for key, value in wide.items()}
    card = pool.add(write_adapter(tmp_path / "a", arrays=arrays))
    A, B = pool.tensors(card).modules[Q0]
    assert card.dtype == name and A.dtype == B.dtype == dtype
    expected = wide[f"{PREFIX}{Q0}.lora_A.weight"]
    np.testing.assert_allclose(A.float().numpy(), expected, rtol=1e-2)


# Where adapters come from


def zip_of(folder: Path, target: Path, *, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        if top:
            archive.writestr(top, b"")
        for path in folder.iterdir():
            member = zipfile.ZipInfo(top + path.name)  # as it is: `write` takes `./` away
            archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return target


FORMS = {
    "folder": lambda folder, tmp: folder,
    "outer folder": lambda folder, tmp: folder.parent,
    "zip": lambda folder, tmp: zip_of(folder, tmp / "poems.zip"),
    "zip with a folder": lambda folder, tmp: zip_of(folder, tmp / "poems.zip", top="inner/"),
    "zip of its dot": lambda folder, tmp: zip_of(folder, tmp / "poems.zip", top="./"),
    "files": lambda folder, tmp: [str(path) for path in folder.iterdir()],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_upload_gives_the_same_adapter(pool, tmp_path, form):
    folder = write_adapter(
        tmp_path / "source" / "poems",
        files={
            "README.md": b"---\nlicense: mit\n---\n# Poems\nWrites short poems.\n",
            "examples.jsonl": b'{"text": "a poem, please"}\n',
            "training.log": b"loss 1",
        },
    )
    card = pool.add(FORMS[form](folder, tmp_path), owner="ada")
    assert card.name == ("poems" if form != "files" else f"adapter-{card.sha256[:8]}")
    assert card.licence == "mit" and card.description == "Writes short poems."
    assert card.examples == ("a poem, please",) and card.vector_from == "examples"
    assert any("'training.log'" in note for note in card.notes)
    assert sorted(p.name for p in card.folder.iterdir()) == sorted(
        [WEIGHTS, CONFIG, "README.md", "examples.jsonl", "manifest.json"]
    )


def test_unusable_words_are_left_out_with_a_note(pool, tmp_path):
    files = {
        "README.md": b"\xff\xfe not text",
        "examples.jsonl": b'{"text": "good"}\n[1]\n{"text": ""}\n{"texts": "x"}\nnot json\n',
    }
    card = pool.add(write_adapter(tmp_path / "a", files=files))
    assert card.examples == ("good",)
    notes = " ".join(card.notes)
    assert "README.md is not UTF-8" in notes and "4 lines of examples.jsonl" in notes
    assert not (card.folder / "README.md").exists()


@pytest.mark.parametrize(
    ("config", "note"),
    [
        *(
            ({"init_lora_weights": start}, "No examples")  # leaves the base alone
            for start in (True, False, "gaussian", "eva", "orthogonal", "mica")
        ),
        ({"lora_dropout": 0.1}, "lora_dropout"),
        ({"inference_mode": False}, "inference_mode"),
        ({"some_future_key": 3}, "'some_future_key'"),
        ({"r": 7}, "says rank 7"),
        ({"velora_config": {"scale": 1.0}}, "VeLoRA"),
    ],
)
def test_used_with_a_note(pool, tmp_path, config, note):
    silent = {k: v * (0 if "lora_B" in k else 1) for k, v in arrays_of().items()}
    card = pool.add(write_adapter(tmp_path / "a", config=config, arrays=silent))
    plain = pool.add(write_adapter(tmp_path / "plain"), examples=["x"])
    assert not any(note in said or "is zero" in said for said in plain.notes)
    assert "The update is zero in 3 of 3 modules." in card.notes
    assert any(note in said for said in card.notes)


def test_vector_is_made_from_examples_then_card_then_name(pool, tmp_path):
    many = [f"input {n}" for n in range(30)]
    readme = {"README.md": b"# Title\n\nAnswers **chess** questions.\n"}
    examples = pool.add(write_adapter(tmp_path / "a", seed=1, files=readme), examples=many)
    card = pool.add(write_adapter(tmp_path / "b", seed=2, files=readme))
    name = pool.add(write_adapter(tmp_path / "chess_endings", seed=3))
    assert (examples.vector_from, examples.texts) == ("examples", tuple(many[:20]))
    assert (card.vector_from, card.texts) == ("card", ("Answers chess questions.",))
    assert (name.vector_from, name.texts) == ("name", ("chess endings",))
    assert not any("No examples" in note for note in examples.notes)
    assert any("No examples" in note for note in card.notes + name.notes)


# From a Hub: a small server behind HF_ENDPOINT, and the real client


def repository_of(folder, spoil=lambda files: files):
    return Repository(spoil({path.name: path.read_bytes() for path in folder.iterdir()}))


def downloads(hub_server):
    """Names of the files that were requested."""
    paths = (path.rpartition(" ")[0] for path in hub_server.asked if "/resolve/" in path)
    return {path.rpartition("/")[2] for path in paths}


def test_only_the_allowed_files_of_one_commit_are_fetched(hub_server, pool, tmp_path):
    readme = b"---\nlicense: mit\n---\nWrites poems.\n"
    files = {"README.md": readme, "optimizer.pt": b"x", "evil.py": b"x", "big.bin": bytes(2**21)}
    hub_server.repositories["ada/poems"] = repository_of(write_adapter(tmp_path / "a", files=files))
    before = tree_of(tmp_path / "data")
    card = pool.add("hf:ada/poems@v1", owner="bob")
    assert (card.name, card.licence) == ("poems", "mit")
    assert any(hub_server.repositories["ada/poems"].sha in note for note in card.notes)
    assert downloads(hub_server) == {WEIGHTS, CONFIG, "README.md"}
    assert not (card.folder / ".hub").exists() and pool.tensors(card).modules
    pool.remove("poems", "bob")
    assert tree_of(tmp_path / "data") == before
    assert hub_server.tokens == {None}, "a visitor never uses the operator's token"
    pool.add("hf:ada/poems")
    assert "Bearer hf_operator" in hub_server.tokens


@pytest.mark.parametrize(
    ("repo", "spoil", "sentence"),
    [
        ("ada/nothing", None, "could not be fetched from the Hub"),
        ("ada/poems@v9", lambda files: files, "could not be fetched from the Hub"),
        ("ada/poems", lambda f: {**f, WEIGHTS: bytes(2**20 + 1)}, "larger than 1 MiB"),
        ("ada/poems", lambda f: {CONFIG: f[CONFIG], "adapter_model.bin": b"x"}, "can run code"),
        ("ada/poems", lambda f: {WEIGHTS: f[WEIGHTS]}, "no adapter_config.json"),
        ("ada/poems", lambda f: {**f, CONFIG: b'{"use_dora": true}'}, "DoRA"),
    ],
)
def test_refused_from_the_hub_without_a_trace(hub_server, pool, tmp_path, repo, spoil, sentence):
    if spoil:
        hub_server.repositories["ada/poems"] = repository_of(write_adapter(tmp_path / "a"), spoil)
    before = tree_of(tmp_path / "data")
    with pytest.raises(AdapterRefused, match=sentence):
        pool.add(f"hf:{repo}")
    assert tree_of(tmp_path / "data") == before
    assert bool(downloads(hub_server)) == (sentence == "DoRA")  # weighed before anything is fetched


def test_without_a_network_there_is_one_sentence(pool, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AdapterRefused, match="check the name and the network"):
        pool.add("hf:ada/poems")


# Owners, names, limits


def test_owners_see_the_shared_and_their_own(tmp_path):
    add_sample(tmp_path, "chess", seed=1)
    with open_pool(tmp_path) as pool:
        mine = pool.add(write_adapter(tmp_path / "a", seed=2), name="chess", owner="ada")
        theirs = pool.add(write_adapter(tmp_path / "b", seed=3), name="chess", owner="bob")
        sample = pool.card("chess")
        assert sample.sample and len({mine.folder, theirs.folder, sample.folder}) == 3
        assert pool.card("chess", "ada") == mine and pool.card("chess", "bob") == theirs
        assert pool.cards() == [sample] and pool.cards("ada") == [mine]
        pool.remove("chess", "ada")
        assert pool.card("chess", "ada") == sample and pool.card("chess", "bob") == theirs
        for owner in ("ada", None):
            with pytest.raises(AdapterRefused, match="sample pool, which is read-only"):
                pool.remove("chess", owner)
        with pytest.raises(AdapterRefused, match="already another adapter named 'chess'"):
            pool.add(write_adapter(tmp_path / "c", seed=4), name="chess")
        assert sample.folder.is_dir()


def test_each_name_is_one_card_and_it_is_the_one_that_is_found_by_it(tmp_path):
    add_sample(tmp_path, "chess", seed=1)
    with open_pool(tmp_path) as pool:
        for seed, (name, owner) in enumerate([("go", "ada"), ("go", None), ("chess", "bob")], 2):
            pool.add(write_adapter(tmp_path / f"{seed}", seed=seed), name=name, owner=owner)
    add_sample(tmp_path, "go", seed=9)
    with open_pool(tmp_path) as pool:
        assert len(pool.all_cards()) == 5
        for owner in ("ada", "bob", None):
            found = [pool.card(name, owner) for name in ("chess", "go")]
            assert sorted(pool.cards(owner), key=lambda card: card.name) == found


def test_another_owners_upload_is_unknown(pool, tmp_path):
    pool.add(write_adapter(tmp_path / "a"), name="secret", owner="ada")
    for attempt in (pool.card, pool.remove, lambda n, o: pool.set_examples(n, ["x"], o)):
        with pytest.raises(RamoleError, match="no adapter 'secret'") as error:
            attempt("secret", "bob")
        assert "mean" not in str(error.value)  # nor is its name given away
    with pytest.raises(RamoleError, match="did you mean 'secret'"):
        pool.card("secrets", "ada")


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("My LoRA (v2)!", "my-lora-v2"),
        ("Café_au-lait", "cafe_au-lait"),
        ("../../etc/passwd", "etc-passwd"),
        ("x" * 90, "x" * 64),
    ],
)
def test_names_are_cleaned(pool, tmp_path, wanted, name):
    card = pool.add(write_adapter(tmp_path / "a"), name=wanted)
    assert card.name == name == card.folder.name
    assert any("was written as" in note for note in card.notes)


def test_same_content_is_the_same_adapter_for_the_same_owner(pool, tmp_path):
    folder = write_adapter(tmp_path / "a")
    card = pool.add(folder, owner="ada")
    before = tree_of(tmp_path / "data")
    assert pool.add(folder, name="other", owner="ada") == card
    assert tree_of(tmp_path / "data") == before
    assert pool.add(folder, owner="bob") != card
    other = write_adapter(tmp_path / "b", config={"lora_alpha": 12})
    louder = pool.add(other, owner="ada")  # the same weights, but another adapter
    assert louder.scale == 2 * card.scale and louder.sha256 == card.sha256
    assert louder.content != card.content
    twice = pool.tensors(louder).modules[Q0][1] / pool.tensors(card).modules[Q0][1]
    torch.testing.assert_close(twice, torch.full_like(twice, 2))


def test_the_same_content_again_brings_its_new_examples(pool, tmp_path):
    folder = write_adapter(tmp_path / "a")
    first = pool.add(folder, name="mine", owner="ada")
    again = pool.add(folder, name="second", examples=["one", "two"], owner="ada")
    assert (again.name, again.added, again.content) == ("mine", first.added, first.content)
    assert again.examples == ("one", "two") and not any("No examples" in n for n in again.notes)
    assert [card.name for card in pool.cards("ada")] == ["mine"]
    assert pool.add(folder, owner="ada") == again == pool.card("mine", "ada"), "none: as they were"
    replaced = []
    refuse = lambda card: bool(replaced.append(card))  # noqa: E731
    kept = pool.add(folder, examples=["three"], owner="ada", may_replace=refuse)
    assert kept == again == pool.card("mine", "ada") and replaced == [again]


# Changes and the disk


def test_shared_uploads_belong_to_everyone_and_a_full_pool_takes_no_more(tmp_path):
    with open_pool(tmp_path, shared_uploads=True, limits=Limits(max_adapters=1)) as pool:
        card = pool.add(write_adapter(tmp_path / "a", seed=1), owner="ada")
        assert card.owner is None and pool.cards("bob") == [card]
        before = tree_of(tmp_path / "data")
        with pytest.raises(AdapterRefused, match="full with 1 adapters"):
            pool.add(write_adapter(tmp_path / "b", seed=2))
        assert tree_of(tmp_path / "data") == before
        pool.remove("a", owner="bob")
        assert pool.all_cards() == []


def test_add_then_remove_leaves_the_data_folder_as_it_was(pool, tmp_path):
    before = tree_of(tmp_path / "data")
    for owner in (None, "ada"):
        pool.add(write_adapter(tmp_path / "a"), name="x", examples=["one"], owner=owner)
        assert tree_of(tmp_path / "data") != before
        pool.set_examples("x", ["two"], owner)
        pool.remove("x", owner)
        assert tree_of(tmp_path / "data") == before
    with pytest.raises(RamoleError, match="no adapter 'x'"):
        pool.card("x")


def test_set_examples_replaces_them_on_disk_and_in_the_card(pool, tmp_path):
    old = pool.add(write_adapter(tmp_path / "a"), owner="ada")
    ears = Ears()
    pool.listeners.append(ears)
    card = pool.set_examples("a", [" first ", "second"], owner="ada")
    assert card.examples == ("first", "second") and card.vector_from == "examples"
    assert pool.card("a", "ada") == card
    assert (card.sha256, card.added, card.ranks) == (old.sha256, old.added, old.ranks)
    assert ears.heard == [("added", "ada/a", True)]
    pool.tensors(card)
    assert pool.set_examples("a", [], owner="ada").examples == ()
    pool.close()
    with open_pool(tmp_path) as again:
        assert again.card("a", "ada").examples == () and again.problems == []


def test_listeners_hear_after_the_disk_and_can_stop_an_addition(pool, tmp_path):
    ears, deaf = Ears(), Ears(deaf=True)
    pool.listeners.append(ears)
    pool.add(write_adapter(tmp_path / "a"))
    pool.remove("a")
    assert ears.heard == [("added", "pool/a", True), ("removed", "pool/a", False)]
    before = tree_of(tmp_path / "data")
    pool.listeners.append(deaf)
    with pytest.raises(OSError, match="index is away"):
        pool.add(write_adapter(tmp_path / "b"))
    assert tree_of(tmp_path / "data") == before and pool.all_cards() == []
    assert ears.heard[-2:] == [("added", "pool/b", True), ("removed", "pool/b", False)]


def test_damaged_folders_are_left_out_with_a_sentence(tmp_path):
    broken = {
        "gone": lambda folder: (folder / CONFIG).unlink(),
        "short": lambda folder: (folder / WEIGHTS).write_bytes(b"x"),
        "words": lambda folder: (folder / "examples.jsonl").write_text('{"text": "EX"}\n'),
        "manifest": lambda folder: (folder / "manifest.json").write_text('{"schema": 1}'),
        "moved": lambda folder: folder.rename(folder.with_name("renamed")),
        "gone-2": lambda folder: (folder / CONFIG).unlink(),
    }
    with open_pool(tmp_path) as pool:
        for seed, name in enumerate([*broken, "sound"]):
            pool.add(write_adapter(tmp_path / name, seed=seed), examples=["ex"])
        folders = {name: pool.card(name).folder for name in broken}
    for name, spoil in broken.items():
        spoil(folders[name])
    with open_pool(tmp_path) as pool:
        assert [card.name for card in pool.all_cards()] == ["sound"]
        assert len(pool.problems) == len(broken)
        for name in broken.keys() - {"moved"}:
            assert any(str(folders[name]) in problem for problem in pool.problems)
        pool.remove("gone")  # what cannot be served can still be removed
        assert not folders["gone"].exists() and len(pool.problems) == len(broken) - 1
        pool.add(write_adapter(tmp_path / "short", seed=9))  # or replaced
        assert pool.card("short").folder == folders["short"]


def test_a_refused_opening_leaves_the_folder_free(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(Uploads, "read", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_pool(tmp_path)
    open_pool(tmp_path).close()
    places = {"data_dir": tmp_path / "data", "adapters_dir": tmp_path / "samples"}
    with pytest.raises(RamoleError, match="CHROMA_URL") as refused:
        Ramole(Settings(**places, chroma_url="x"))
    assert refused.value.__traceback__  # holds what was opened
    open_pool(tmp_path).close()


def test_as_many_examples_as_may_be_stay_in_any_script(tmp_path):
    texts = [f"{n:03}" + "語" * (MAX_EXAMPLE - 3) for n in range(200)]
    with open_pool(tmp_path) as pool:
        card = pool.add(write_adapter(tmp_path / "a"), examples=[*texts, "one more"])
        assert card.examples == tuple(texts) and any("200 of 201" in note for note in card.notes)
    files = {"examples.json": json.dumps(texts, ensure_ascii=False).encode()}
    listed = write_adapter(tmp_path / "b", seed=1, files=files)
    with open_pool(tmp_path) as pool:
        assert pool.card("a").examples == tuple(texts)
        assert pool.add(listed).examples == tuple(texts)


def test_sample_folders_that_are_no_adapters_are_passed_over(tmp_path):
    add_sample(tmp_path, "good")
    write_adapter(tmp_path / "samples" / "_router")
    (tmp_path / "samples" / "docs").mkdir()
    write_adapter(tmp_path / "samples" / "bare")
    with open_pool(tmp_path) as pool:
        assert [card.name for card in pool.all_cards()] == ["good"]
        assert len(pool.problems) == 1 and "bare" in pool.problems[0]


def test_adapters_of_another_base_are_taken_out_of_the_cards(tmp_path):
    with open_pool(tmp_path) as pool:
        arrays = arrays_of(Q0)
        pool.add(write_adapter(tmp_path / "fits", arrays=arrays), name="fits")
        pool.add(write_adapter(tmp_path / "whole"), name="whole")
        assert pool.leave_out_unfit() == []
    with open_pool(tmp_path, shapes=lambda: {Q0: SHAPES[Q0], Q1: (99, 98)}) as pool:
        assert len(pool.all_cards()) == 2
        assert [card.name for card in pool.leave_out_unfit()] == ["whole"]
        assert [card.name for card in pool.all_cards()] == ["fits"]
        assert "'whole' is left out" in pool.problems[0]
        other = write_adapter(tmp_path / "other", arrays={n: 2 * a for n, a in arrays.items()})
        with pytest.raises(
            AdapterRefused, match="adapter of another base is named 'whole'; give .*-2"
        ):
            pool.add(other, name="whole")
    with open_pool(tmp_path) as pool:  # the earlier base again, and nothing is lost
        assert [card.name for card in pool.all_cards()] == ["fits", "whole"]
    with open_pool(tmp_path, shapes=lambda: {Q0: SHAPES[Q0], Q1: (99, 98)}) as pool:
        pool.leave_out_unfit()
        pool.remove("whole")
        assert pool.add(other, name="whole").name == "whole"


# Cache, locks, speed


def test_many_threads_add_and_remove(pool, tmp_path):
    sources = [write_adapter(tmp_path / f"s{n}", seed=n) for n in range(6)]
    failures = []

    def work(n: int) -> None:
        try:
            for _ in range(4):
                pool.add(sources[n], owner=f"owner {n % 2}")
                assert pool.tensors(pool.card(f"s{n}", f"owner {n % 2}")).modules
                pool.remove(f"s{n}", f"owner {n % 2}")
        except BaseException as error:
            failures.append(error)

    before = tree_of(tmp_path / "data")
    at_once(*[partial(work, n) for n in range(6)])
    assert failures == [] and pool.all_cards() == []
    assert tree_of(tmp_path / "data") == before


def test_one_writer_and_any_reader(pool, tmp_path):
    card = pool.add(write_adapter(tmp_path / "a"))
    with pytest.raises(Busy, match="in use by (this very|another) process; stop it"):
        open_pool(tmp_path)
    script = (
        "import sys; from pathlib import Path; from ramole_core.pool import Pool;"
        "a = dict(adapters_dir=Path(sys.argv[1]), data_dir=Path(sys.argv[2]), shapes=dict);"
        "print([c.name for c in Pool(**a, read_only=True).cards()], 'torch' in sys.modules);"
        "Pool(**a)"
    )
    other = python("-c", script, tmp_path / "samples", tmp_path / "data")
    assert other.stdout == "['a'] False\n"
    assert other.returncode != 0 and "Busy: The data folder" in other.stderr
    with open_pool(tmp_path, read_only=True) as reader:
        before = tree_of(tmp_path / "data")
        for change in (lambda: reader.add(tmp_path / "a"), lambda: reader.remove("a")):
            with pytest.raises(RamoleError, match="for reading only"):
                change()
        assert reader.tensors(card).modules and tree_of(tmp_path / "data") == before
    pool.close()
    with open_pool(tmp_path) as next_pool:
        assert next_pool.cards() == [card]


OPENED = """
import sys
from collections import Counter
from pathlib import Path
from ramole_core.pool import Pool
from tests.support.clocks import Steps
samples, data, opened = *map(Path, sys.argv[1:]), Counter()
def hear(event, said):
    if event == "open" and samples in Path(str(said[0])).parents:
        opened[Path(str(said[0])).name] += 1
sys.addaudithook(hear)
with Steps() as steps, Pool(adapters_dir=samples, data_dir=data, shapes=dict) as pool:
    print(len(pool.cards()), steps.count, *sorted(opened.items()))
"""


def test_of_many_adapters_two_small_files_each_are_opened(tmp_path):
    shapes = {f"model.layers.{n}.mlp.up_proj": (4, 6) for n in range(120)}
    arrays = arrays_of(rank=2, shapes=shapes)
    examples = "".join(f'{{"text": "example {n}"}}\n' for n in range(20)).encode()
    first = write_adapter(tmp_path / "n", arrays=arrays, files={"examples.jsonl": examples})
    write_manifest(first, name="n", shapes=shapes)
    manifest = json.loads((first / "manifest.json").read_text())

    def lines(count: int) -> int:
        samples = tmp_path / f"{count} samples"
        for n in range(count):
            shutil.copytree(first, samples / f"n{n}", copy_function=os.link)
            file = samples / f"n{n}" / "manifest.json"
            file.unlink()
            file.write_text(json.dumps({**manifest, "name": f"n{n}"}))
        done = python("-c", OPENED, samples, tmp_path / f"{count}")
        there, steps, *opened = done.stdout.split(" ", 2)
        assert there == f"{count}", done.stderr
        assert opened == [f"('examples.jsonl', {count}) ('manifest.json', {count})\n"]
        return int(steps)

    assert lines(400) < 4.4 * lines(100)
