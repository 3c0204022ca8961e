"""Who answered, and why, at every door: records, the command line, the API, the page."""

import json
from dataclasses import replace

import pytest

from ramole_core import Evidence, Generation, Request, Selection, read_batch
from ramole_core.terminal.console import write_answer
from ramole_core.terminal.records import answer_record
from tests.support.fake_ramole import FakeRamole
from ui.api.answers import how_of
from ui.api.fields import read_ask
from ui.ask.answer import found_by
from ui.ask.found import found_html
from ui.charts.run import FoundAdapter

EVIDENCE = Evidence(
    "base", nearest="a<b", similarity=0.214, base_similarity=0.28, threshold=0.27, calibrated=True
)
ANSWER = Generation("Hello.", [], [], None, "eos", 3, 2, 0.1, 0.1, evidence=EVIDENCE)


def steps():
    return ANSWER
    yield


def test_every_decision_has_its_sentence():
    assert EVIDENCE.sentence == (
        "No adapter fits, so the base model answers alone: a<b, the nearest adapter, has "
        "similarity 0.21, and 0.27 is needed (everyday prompts: 0.28)."
    )
    assert "respond to these words too weakly, by 0.05" in EVIDENCE.by_response(-0.05).sentence
    loud = EVIDENCE.by_response(0.05)
    assert loud.decision == "adapters" and "strongly enough, by 0.05" in loud.sentence
    assert "not calibrated for this encoder" in replace(EVIDENCE, calibrated=False).sentence
    kept = replace(EVIDENCE, decision="kept", leader="sums").sentence
    assert "names no task of its own" in kept and "sums first" in kept


def test_the_command_line_tells_it_and_records_have_it(capsys):
    write_answer(steps(), quiet=False)
    assert EVIDENCE.sentence in capsys.readouterr().err
    row = read_batch('{"prompt": "Hi", "method": "ramole_plus", "abstain": true}').rows[0]
    assert row.request.abstain is True
    record = answer_record(row.request, ANSWER, None)
    assert record["evidence"] == EVIDENCE.record() and json.dumps(record["evidence"])
    assert record["evidence"]["similarity"] == 0.214
    assert "evidence" not in answer_record(row.request, replace(ANSWER, evidence=None), None)


def test_a_row_that_does_not_say_keeps_the_digest_it_had_and_the_others_have_their_own():
    digests = [
        read_batch(json.dumps({"prompt": "Hi", **said})).rows[0].digest
        for said in ({}, {"abstain": None}, {"abstain": True}, {"abstain": False})
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3


@pytest.mark.parametrize("said", [None, True, False])
def test_the_api_takes_it_and_tells_the_evidence(said):
    asked = {"prompt": "Hi", "method": "ramole_plus", "abstain": said}
    request = read_ask(FakeRamole(), asked, owner=None)
    assert request.abstain is said
    told = how_of(ANSWER, request, ())
    assert told["evidence"]["sentence"] == EVIDENCE.sentence and told["adapters"] == []


def test_the_page_tells_it_where_the_found_adapters_stand_and_asks_an_empty_pool_too():
    others = [FoundAdapter("a<b", 0.214, False)]
    html = found_html(others, EVIDENCE)
    assert "No adapter fits, so the base model answers alone: a&lt;b" in html
    assert "answers alone" not in found_html(others)
    ramole = FakeRamole()
    ramole.pool.names = []
    assert found_by(ramole, Request("Hi"), Selection((), ())) == ()
