"""Tables of how good the answers are: methods x settings, and how often the adapter is found.

Drawn from results/evaluation_dev.json, situations_dev.json, evaluation.json and retriever.json.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ui.results.files import Unmeasured, load
from ui.results.retrieval import FIRST, PROMPTS, over_tasks, tops_in
from ui.results.scores import LABELS, SHIPPED, Evaluation, earlier, evaluation
from ui.results.situations import Situation, heads_of, spans_in
from ui.results.values import Span

EARLIER = (
    "The test, which is asked once, was asked of an earlier state: another pool (six of its "
    "adapters have gone since), another retriever, router and `ramole_plus`. Its table:"
)
AS_SHIPPED = (
    "The system as it ships, on held-out dev rows (the test was asked once, of an earlier state: "
    "[Results](docs/results.md)). "
)
SHORT = ("base", "selection", "mixture", "ramole", "ramole_plus", "similarity", "perfect")
SHORT_SETTINGS = ("iid", "ood")


def measured(results: Path) -> str:
    """The evaluation as shipped and the earlier test, or the command that makes them."""
    found, missing = evaluation(results)
    if found is None:
        assert missing is not None
        return _unmeasured(missing)
    before = earlier(results)
    return "\n\n".join([evaluated(found), *([EARLIER, evaluated(before)] if before else [])])


def short(results: Path) -> str:
    """A few rows for README: of the system that ships, where that was measured after the test."""
    found, missing = evaluation(results)
    told = AS_SHIPPED if (results / SHIPPED).is_file() else ""
    if found is None:
        assert missing is not None
        return _unmeasured(missing)
    return "\n".join(
        [
            f"{told}{_asked(found)}: mean score, 0 to 100, with 95 % intervals over rows. "
            f"{_meanings(found, SHORT_SETTINGS)}. {found.tuned}".rstrip(),
            "",
            *_rows(found, SHORT, SHORT_SETTINGS),
            "",
            _made(found),
        ]
    )


def evaluated(found: Evaluation) -> str:
    """Methods x settings, the aims in a sentence each, retrieval, and the command."""
    words = {True: "reached", False: "**not reached**", None: "not known yet"}
    aims = [
        f"- {one.what}: aim {one.aim}, measured {one.measured or 'nothing yet'}: "
        f"{words[one.reached]}."
        for one in found.aims
    ]
    aims += [""] if aims else []
    settings = list(found.settings)
    told = (
        f"{_asked(found)}. Mean score over rows, 0 to 100, with 95 % bootstrap intervals over "
        "rows; bold is the best way of mixing in a setting. "
        f"{_meanings(found, settings)}. {found.tuned}".rstrip()
    )
    rows = [told, "", *_rows(found, list(found.methods), settings), ""]
    further = [line for name, one in found.situations.items() for line in _situation(name, one)]
    made = [_made(found), *([f"```bash\n{found.further.command}\n```"] if found.further else [])]
    return "\n".join([*rows, *aims, *_retrieval(found), *further, "\n\n".join(made)])


def retrieved(results: Path) -> str:
    """The retriever by the paper's protocol, beside the published figures."""
    raw = load(results, "retriever.json")
    if isinstance(raw, Unmeasured):
        return _unmeasured(raw)
    rows = [
        f"{raw['pool']} LoRAs of the LoraRetriever paper, {raw['prompts']} prompts, percent with "
        "95 % bootstrap intervals over prompts, mean over splits of the tasks; the last column has "
        "top-1 with the interval over tasks.",
        "",
        f"| retriever | prompts | {' | '.join(f'top-{k}' for k in FIRST)} | top-1, over tasks |",
        "|---" * (3 + len(FIRST)) + "|",
    ]
    for name, part, tops, _ in tops_in(raw):
        spans = [*(tops.get(k) for k in FIRST), over_tasks(raw, name, part)]
        cells = " | ".join(span_in_words(span) for span in spans)
        rows.append(f"| {name} | {PROMPTS.get(part, part)} | {cells} |")
    for name, figures in raw["published"].items():
        rows.append(f"| as published, {name} | all prompts | {' | '.join(map(str, figures))} | |")
    return "\n".join([*rows, "", f"```bash\n{raw['command']}\n```"])


def span_in_words(span: Span | None) -> str:
    """`50.1 [48, 52]`; nothing for None."""
    if span is None:
        return ""
    if span.low is None or span.high is None:
        return f"{span.mean:.1f}"
    return f"{span.mean:.1f} [{span.low:.0f}, {span.high:.0f}]"


def _asked(found: Evaluation) -> str:
    """What was asked, of which base."""
    facts = dict(found.made.facts)
    how = ", ".join(filter(None, (facts.get("rows"), facts.get("adapters mixed"))))
    return f"{len(found.tasks)} tasks, {how}, on the base model {facts.get('base model', '')}"


def _meanings(found: Evaluation, settings: Sequence[str]) -> str:
    """What each setting is."""
    return "; ".join(
        f"{LABELS.get(name, name)}: {words}"
        for name in settings
        if (words := found.settings.get(name))
    )


def _rows(found: Evaluation, methods: Sequence[str], settings: Sequence[str]) -> list[str]:
    """The table of these methods in these settings."""
    scores = {setting: found.scores(setting) for setting in settings}
    rows = [
        f"| method | {' | '.join(LABELS.get(name, name) for name in scores)} |",
        "|---" * (1 + len(scores)) + "|",
    ]
    for name in (name for name in methods if name in found.methods):
        label = "the right adapter alone" if name == "perfect" else f"`{name}`"
        cells = [
            _bold(span_in_words(row.get(name)), found.best(setting) == name)
            for setting, row in scores.items()
        ]
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return rows


def _situation(name: str, one: Situation) -> Iterator[str]:
    """A situation's table: all units, then each part of them."""
    yield f"**{name}**: {one.what}. {one.size.capitalize()}."
    yield ""
    names = heads_of(one)
    yield f"| method | {' | '.join(names)} |"
    yield "|---" * (1 + len(names)) + "|"
    for part in (None, *one.parts):
        for system in one.systems if part is None else one.parts[part]:
            label = f"`{system}`" if part is None else f"`{system}`, {part}"
            cells = " | ".join(span_in_words(span) for span in spans_in(one, system, part))
            yield f"| {label} | {cells} |"
    yield ""


def _retrieval(found: Evaluation) -> Iterator[str]:
    phrases = {"first": "found first", "found": f"among the first {found.k}"}
    told = [
        f"{LABELS.get(setting, setting)}: "
        + ", ".join(
            f"{phrases[name]} {span_in_words(spans[name])}" for name in phrases if name in spans
        )
        for setting, spans in found.retrieval.items()
        if spans.keys() & phrases.keys()
    ]
    if told:
        yield f"The right adapter, in percent of the prompts: {'; '.join(told)}."
        yield ""


def _made(found: Evaluation) -> str:
    return f"```bash\n{found.made.command}\n```"


def _unmeasured(missing: Unmeasured) -> str:
    return f"{missing.sentence}\n\n```bash\n{missing.command}\n```"


def _bold(words: str, yes: bool) -> str:
    return f"**{words}**" if yes else words
