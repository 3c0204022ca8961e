"""The path of an answer: its numbers are the run's, and what it cannot show it says."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.support.results_page import EVIL
from ui.charts.path import changed_most, path_html
from ui.charts.recorded import FOLDER, read_run
from ui.charts.run import Run


@pytest.fixture(scope="module")
def run() -> Run:
    """A recorded run of three adapters."""
    runs = [read_run(path) for path in sorted(FOLDER.glob("*.json"))]
    return next(one for one in runs if len(one.experts) == 3 and one.effects is not None)


def parts(shown: str) -> list[str]:
    found = re.findall(r'<li style="--turn:\d">(.*?)</li>', shown)
    assert len(found) == 5
    return found


def test_every_part_has_the_numbers_of_the_run(run):
    vector = np.linspace(-0.1, 0.1, 96)
    prompt, cells, near, layers, token = parts(path_html(run, vector))
    assert run.request.prompt[:20] in prompt
    assert cells.count("<i ") == 64 and "96 numbers" in cells
    for found in run.found[:3]:
        assert f"<span>{found.name}</span>" in near and f"<b>{found.score:.2f}</b>" in near
    index = changed_most(run)
    assert run.effects is not None and run.contribution is not None
    assert run.effects.sum(1)[index] == run.effects.sum(1).max()
    assert layers.count("<span ") == run.contribution.shape[1]
    moved = run.contribution[index].mean((0, 1))
    assert f"{run.experts[moved.argmax()]} moves" in layers
    wide = [float(number) for number in re.findall(r"width:([0-9.]+)%", layers)]
    assert sum(sorted(wide, reverse=True)[:1]) <= 100 and max(wide) > 1
    did = run.did(index)
    times = re.search(r"([0-9,.]+) times likelier", token)
    assert float(times[1].replace(",", "")) == pytest.approx(
        np.exp(did.mixture - did.base), rel=0.05
    )


@pytest.mark.parametrize(
    ("piece", "said"), [(" the", "the"), ("\n", "↵"), ("", "(no text)"), ("  ", "␣␣")]
)
def test_the_token_is_spelt_as_elsewhere(run, piece, said):
    pieces = (piece,) * len(run.pieces)
    token = parts(path_html(replace(run, pieces=pieces)))[4]
    assert f'<p class="piece">{said}</p>' in token


def test_what_there_is_not_is_a_sentence(run):
    assert "say what the words are about.</p>" in parts(path_html(run))[1]
    alone = replace(run, answer=replace(run.answer, adapters=[], effects=None), found=())
    shown = parts(path_html(alone))
    assert "None had to be found" in shown[2] and "No adapter answers" in shown[3]
    assert "By the base alone" in shown[4]
    unmeasured = replace(run, answer=replace(run.answer, effects=None))
    assert "not measured" in parts(path_html(unmeasured))[4]
    assert "None came" in parts(path_html(replace(run, pieces=())))[4]
    bare = replace(run, answer=replace(run.answer, trace=None))
    assert "not recorded" in parts(path_html(bare))[3]


@pytest.mark.parametrize(
    ("nats", "said"),
    [
        (40.0, "over 1,000,000 times likelier than by the base alone."),
        (-40.0, "over 1,000,000 times less likely than by the base alone."),
        (3.0, "20 times likelier than by the base alone."),
        (0.01, "About as likely as by the base alone."),
        (0.0, "About as likely as by the base alone."),
    ],
)
def test_a_factor_is_no_more_exact_than_it_is_known(run, nats, said):
    base = np.full_like(run.answer.logprob, -41.0)
    answer = replace(run.answer, base_logprob=base, logprob=base + np.float32(nats))
    assert f"<p>{said}</p>" in parts(path_html(replace(run, answer=answer)))[4]


def test_no_word_of_a_stranger_is_markup(run):
    renamed = replace(run.answer, adapters=[EVIL, *run.experts[1:]])
    asked = replace(run.request, prompt=EVIL)
    pieces = (EVIL,) * len(run.pieces)
    found = tuple(replace(one, name=EVIL) for one in run.found)
    shown = path_html(replace(run, answer=renamed, request=asked, pieces=pieces, found=found))
    assert "<img" not in shown and "${" not in shown
