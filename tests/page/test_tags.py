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
    near = "(similarity 0.49; the most similar one needs about 0.18)"
    for second, words in (
        ("ant", f"nl2bash is the nearest {near}, but bee comes first."),
        ("nl2bash", f"nl2bash fits {near}; bee comes first."),
    ):
        assert verdict(Evidence("adapters", **NEAR), ["bee", second]) == words


def test_of_many_adapters_the_last_are_folded_and_unknown_similarities_have_no_bar():
    many = [FoundAdapter(f"a{n}", float("nan"), True) for n in range(MAX_VISIBLE + 16)]
    html = found_html(many)
    assert "16 more" in html and 'class="bar"' not in html
    assert "more" not in found_html(many[:MAX_VISIBLE])


ANT, BEE, CAT = ("ant", 0.9), ("bee", 0.7), ("cat", 0.5)
NAN = float("nan")


@pytest.mark.parametrize(
    ("asked", "taken", "words"),
    [
        ({"method": "mixture"}, [ANT, BEE], "By mixture: the 2 nearest."),
        ({"method": "selection", "k": 1}, [ANT], "By selection: ant, the nearest."),
        ({"adapters": ["ant", "bee"]}, [("ant", NAN), ("bee", NAN)], "You named ant and bee."),
        ({"adapters": ["dog"]}, [("dog", NAN)], "You named dog."),
        ({"method": "base"}, [], "You chose the base: no adapter is mixed."),
        ({"method": "lorahub", "mix": "reds"}, [ANT, BEE], "You chose the kept weights reds."),
        ({"method": "meteora"}, [(f"a{n}", NAN) for n in range(21)], "By meteora: 21 adapters."),
        ({"method": "logo"}, [ANT, CAT], "By logo: ant and cat."),  # bee is nearer, and left out
    ],
)
def test_where_nothing_had_to_be_decided_the_verdict_says_who_chose(asked, taken, words):
    found = [FoundAdapter(*one, True) for one in taken]
    others = [one for one in (BEE, CAT, ("eel", 0.1)) if one[0] not in dict(taken)]
    found += [FoundAdapter(*one, False) for one in others]
    html = found_html(found, asked=Request("boats?", **asked))
    assert f'<p class="verdict">{words}</p>' in html and "By these numbers" not in html
    assert 'class="verdict"' not in found_html(found), "none while it is on its way"
