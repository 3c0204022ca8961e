"""Training rows under other instructions: contents are found and put elsewhere, none is lost."""

import json
import re

import pytest

from lab.reword import ASIDE, EVERY, OFFERED, TIMES, main, read_wordings, reword_examples
from ramole_core.errors import RamoleError
from ramole_core.training.rows import read_lines

TOLD = {
    "patterns": ["Say (?P<text>.+?)\\nOPTIONS:\\n(?P<options>.+)"],
    "wordings": [
        {"prompt": f"{n}: {{text}} ({{choices}})", "answers": {"yes": "aye"}}
        for n in range(2 * EVERY)
    ],
}


@pytest.fixture
def wordings(tmp_path, monkeypatch):
    folder = tmp_path / "wordings"
    folder.mkdir()
    (folder / "red.json").write_text(json.dumps(TOLD))
    monkeypatch.setattr("lab.reword.WORDINGS", folder)
    return folder


def write(folder, rows):
    folder.mkdir(parents=True)
    text = "".join(json.dumps({"inputs": i, "targets": t, "task": "red"}) + "\n" for i, t in rows)
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text(text)


def test_examples_get_wordings_in_turn_and_what_has_none_keeps_its_own(tmp_path, wordings):
    write(tmp_path / "red", [("Say {choices}\nOPTIONS:\n- no\n- yes", "yes")])
    task = read_wordings("red", tmp_path)
    texts = [f"Say {n}\nOPTIONS:\n- no" for n in range(5)] + ["Other"] * 2
    found = reword_examples(task, texts, seed=4)
    assert found[1::2] == texts[1::2] and found[6] == "Other"
    changed = [one.partition(": ") for one in found[:5:2]]
    assert [one[2] for one in changed] == ["0 (no)", "2 (no)", "4 (no)"]
    assert len({one[0] for one in changed}) == 3 and found == reword_examples(task, texts, seed=4)


def test_a_wording_offers_few_labels_and_the_right_one_among_them(tmp_path, wordings):
    many = [f"- {letter}" for letter in "abcdefgh"]
    write(tmp_path / "data" / "red", [("Say 1\nOPTIONS:\n" + "\n".join(many), "c")] * 40)
    main(tmp_path / "data", tmp_path / "work")
    made = [row["inputs"] for row in read_lines(tmp_path / "work/red/train.jsonl")]
    offered = [re.findall(r"\b[a-h]\b", one.partition("(")[2]) for one in made if "(" in one]
    assert {len(one) for one in offered} == set(range(OFFERED[0], OFFERED[1] + 1))
    assert all("c" in one and one == sorted(one) for one in offered)


def test_dev_rows_have_wordings_of_their_own_and_every_second_keeps_its_own(tmp_path, wordings):
    rows = [(f"Say {n}\nOPTIONS:\n- no\n- yes", "yes") for n in range(60)] + [("Other", "no")]
    write(tmp_path / "data" / "red", rows)
    main(tmp_path / "data", tmp_path / "work")
    found = {s: read_lines(tmp_path / "work" / "red" / f"{s}.jsonl") for s in ("train", "dev")}
    own = {s: [r["inputs"] == i for r, (i, _) in zip(found[s], rows, strict=True)] for s in found}
    used = {
        s: {r["inputs"].partition(":")[0] for r in found[s] if "(" in r["inputs"]} for s in found
    }
    assert used["dev"] == {str(EVERY - 1), str(2 * EVERY - 1)} and not used["train"] & used["dev"]
    assert own["dev"][::2] == [True] * 31 and not any(own["dev"][1::2])
    assert 0 < sum(own["train"]) < 40 and own["train"][-1]
    assert all(r["targets"] == ("aye" if "(" in r["inputs"] else t)
               for r, (_, t) in zip(found["train"], rows, strict=True))  # fmt: skip
    again = tmp_path / "again"
    main(tmp_path / "data", again)
    assert (again / "red/train.jsonl").read_bytes() == (
        tmp_path / "work/red/train.jsonl"
    ).read_bytes()


def test_half_of_the_training_rows_are_written_and_every_eighth_is_for_dev(
    tmp_path, wordings, monkeypatch
):
    rows = [(f"Say {n}\nOPTIONS:\n- no\n- yes", "yes") for n in range(60)]
    write(tmp_path / "data" / "red", rows)
    folder = tmp_path / "written"
    folder.mkdir()
    lines = [json.dumps({"inputs": f"own {n}", "targets": str(n)}) for n in range(2 * ASIDE + 1)]
    (folder / "red.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr("lab.reword.WRITTEN", folder)
    main(tmp_path / "data", tmp_path / "work")
    found = {s: read_lines(tmp_path / "work" / "red" / f"{s}.jsonl") for s in ("train", "dev")}
    own = {s: [r["inputs"] for r in found[s] if r["inputs"][:4] == "own "] for s in found}
    assert own["dev"] == [f"own {ASIDE - 1}", f"own {2 * ASIDE - 1}"]
    assert [found["dev"][n]["inputs"] for n in (1, 3)] == own["dev"] and len(found["dev"]) == 62
    assert len(own["train"]) == TIMES * (2 * ASIDE - 1) and not {*own["train"]} & {*own["dev"]}
    assert len(found["train"]) == 2 * len(own["train"])
    assert all(row["task"] == "red" for rows in found.values() for row in rows)


def test_patterns_that_match_nothing_are_refused(tmp_path, wordings):
    write(tmp_path / "data" / "red", [("Other", "no")])
    with pytest.raises(RamoleError, match="matches the patterns of its wordings"):
        main(tmp_path / "data", tmp_path / "work")
