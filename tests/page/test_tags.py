"""Tags say what the next question is asked with where it is not as usual; the verdict, in words."""

import re

import gradio as gr
import pytest

from ramole_core import Evidence, Request
from ui.ask.form import FIELDS, Form
from ui.ask.found import MAX_VISIBLE, found_html
from ui.ask.options import OptionField
from ui.ask.tags import TAGGED, USUAL, tagged
from ui.charts.run import FoundAdapter
from ui.parts.asked import verdict


def values(**changes: object) -> list[object]:
    return [changes.get(name, getattr(Form(), name)) for name in FIELDS]


def test_a_form_as_it_opens_has_no_tag_and_gradio_s_lists_are_none():
    assert tagged(values()) == {} == tagged(values(pinned=[], exclude=[], prompt="x", beside=False))


@pytest.mark.parametrize("name", TAGGED)
def test_each_field_that_is_not_as_usual_has_one(name):
    other = {
        tuple: ["ant"], str: "0.7, 0.3", type(None): "mine", bool: True, int: 5, float: 0.5
    }[type(USUAL[name])]  # fmt: skip
    (place,) = found = tagged(values(**{name: other}), fits=[Form().method])
    assert FIELDS[place] == name and found[place]


def test_what_a_tag_says():
    said = tagged(values(method="meteora", k=1, pinned=["ant", "bee"], top_p=0.9))
    assert [*said.values()] == ["method meteora", "k = 1", "exactly ant, bee", "top-p 0.9"]


def test_the_chosen_method_s_own_numbers_have_tags_and_other_methods_have_none():
    options = [
        OptionField(method, name, default, gr.Number(render=False))
        for method in ("meteora", "flow")
        for name, default in (("kept", 2), ("slow", False))
    ]
    form = values(method="flow", examples="a => b", mix="mine")
    said = tagged([*form, 5, True, 3, True], options, fits=["lorahub"])
    assert [*said.values()] == ["method flow", "kept 3", "slow on"]
    assert [*said][1:] == [len(FIELDS) + 2, len(FIELDS) + 3]
    assert [*tagged([*form, 5, True, None, False], options).values()] == ["method flow"]


NEAR = {"nearest": "nl2bash", "similarity": 0.49, "threshold": 0.18}


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (
            Evidence("adapters", **NEAR),
            "nl2bash fits (similarity 0.49; the most similar one needs about 0.18).",
        ),
        (Evidence("adapters", **NEAR, response=0.01), "nl2bash fits, if only just ("),
        (Evidence("base", **NEAR), "No adapter fits; the small base model answers by itself."),
        (Evidence("kept", **NEAR, leader="ant"), "the turn before go on, ant first."),
        (Evidence("adapters", leader="mine", blind=1, response=2.0), "mine fits: it shows no ex"),
        (Evidence("adapters"), "No adapter shows examples"),
    ],
    ids=lambda one: one.decision if isinstance(one, Evidence) else "",
)
def test_the_verdict_is_one_sentence_and_the_rule_s_numbers_are_folded(evidence, words):
    said = verdict(evidence, ["nl2bash", "ant"])
    assert words in said and len(re.findall("[.](?![0-9])", said)) == 1
    html = found_html([FoundAdapter("nl2bash", 0.49, True)], evidence)
    assert html.index("verdict") < html.index("<details") < html.index("By these numbers")


def test_where_the_nearest_does_not_answer_the_verdict_names_who_does():
    said = verdict(Evidence("adapters", **NEAR), ["bee", "ant"])
    near = "(similarity 0.49; the most similar one needs about 0.18)"
    assert said == f"nl2bash is the nearest {near}, but bee comes first."
    said = verdict(Evidence("adapters", **NEAR), ["bee", "nl2bash"])
    assert said == f"nl2bash fits {near}; bee comes first."


def test_of_many_adapters_the_last_are_folded_and_unknown_similarities_have_no_bar():
    many = [FoundAdapter(f"a{n}", float("nan"), True) for n in range(MAX_VISIBLE + 16)]
    html = found_html(many)
    assert "16 more" in html and 'class="bar"' not in html
    assert "more" not in found_html(many[:MAX_VISIBLE])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"method": "mixture"}, "By mixture: the 2 nearest."),
        ({"method": "selection", "k": 1}, "By selection: ant, the nearest."),
        ({"adapters": ["ant", "bee"]}, "You named ant and bee."),
        ({"adapters": ["dog"]}, "You named dog."),
        ({"method": "base"}, "You chose the base: no adapter is mixed."),
        ({"method": "lorahub", "mix": "reds"}, "You chose the kept weights reds."),
        ({"method": "meteora"}, "By meteora: 21 adapters."),
        ({"method": "logo"}, "By logo: ant and cat."),
    ],
)
def test_where_nothing_had_to_be_decided_the_verdict_says_who_chose(asked, words):
    request = Request("boats?", **asked)
    taken = [("ant", 0.9), ("bee", 0.7)][: request.k] if request.method != "base" else []
    if request.method == "meteora":
        taken = [(f"a{n}", float("nan")) for n in range(21)]
    if request.method == "logo":  # bee is nearer, and was left out
        taken = [("ant", 0.9), ("cat", 0.5)]
    if request.adapters:
        taken = [(name, float("nan")) for name in request.adapters]
    left = [name for name in ("bee", "cat", "eel") if name not in dict(taken)]
    found = [FoundAdapter(*one, True) for one in taken]
    found += [FoundAdapter(name, {"bee": 0.7, "cat": 0.5}.get(name, 0.1), False) for name in left]
    html = found_html(found, asked=request)
    assert f'<p class="verdict">{words}</p>' in html and "By these numbers" not in html
    assert 'class="verdict"' not in found_html(found), "none while it is on its way"


def test_no_sentence_of_the_evidence_is_a_riddle():
    """Every branch of it: who decided, by similarity or by response, with and without examples."""
    said = {
        Evidence(decision, near, 0.49, 0.12, 0.18, response, blind, leader, None, known).sentence
        for decision in ("adapters", "base", "kept")
        for near in ("nl2bash", None)
        for response in (None, 0.01, -0.01)
        for blind in (0, 1, 3)
        for leader in ("ant", None)
        for known in (True, False)
        if leader or decision != "kept"
    }
    assert len(said) > 20
    for sentence in said:
        assert "loud" not in sentence and "None" not in sentence and "+" not in sentence, sentence
        assert "of the 1 " not in sentence, sentence
