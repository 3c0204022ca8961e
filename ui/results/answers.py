"""Do the answers get better? Methods x settings, aims, the paper's table, differences, by task."""

from ..parts.markup import escaped
from .files import Unmeasured
from .scores import LABELS, NOT_MIXING, Evaluation, Published
from .sections import made_html, section, unmeasured_html
from .situations import situations_html
from .tables import box, breakable, cell, head, plain, scale_over, verdict
from .values import Span

TITLE = "Do the answers get better?"
LEAD = (
    "The same prompts, answered by each way of using the pool. A score is the task's own metric, "
    "from 0 to 100, averaged over rows; brackets hold the 95 % interval."
)
EARLIER = "An earlier state of the system and its pool, on test rows, which are asked once"
PERFECT = "perfect"
PLAIN_WORDS = {"iid": "An adapter fits", "ood": "The one that fits is hidden"}


def answers_html(
    found: Evaluation | None, missing: Unmeasured | None, before: Evaluation | None = None
) -> str:
    """The section: the main table, aims, the paper's table, and `before`, an earlier state's test,
    folded away."""
    parts = []
    if missing is not None:
        parts.append(unmeasured_html(missing))
    if found is not None:
        parts += [_findings(found), _settings(found)]
        tables = _scores(found)
        if found.published:
            parts.append(f'<div class="rm-pair">{tables}{_published(found.published)}</div>')
        else:
            parts.append(tables)
        parts += [_aims(found), situations_html(found.situations)]
        parts += [_ways(found), _later(found), _lenient(found)]
    parts += [foot_html(found), earlier_html(before)]
    return section("answers", TITLE, LEAD, "".join(parts))


def earlier_html(found: Evaluation | None) -> str:
    """The test of an earlier state, folded away; nothing where there is none."""
    if found is None:
        return ""
    shown = _scores(found) + _aims(found) + situations_html(found.situations)
    shown += made_html(found.made)
    return f"<details><summary>{EARLIER}</summary>{shown}</details>"


def foot_html(found: Evaluation | None) -> str:
    """The commands and the facts."""
    if found is None:
        return ""
    return "".join(made_html(one) for one in (found.made, found.further) if one)


def label(setting: str) -> str:
    """The setting's short name."""
    return LABELS.get(setting, setting)


def choice(setting: str) -> str:
    """The setting's name in plain words."""
    plain_words = PLAIN_WORDS.get(setting)
    return f"{plain_words} ({label(setting)})" if plain_words else label(setting)


def finding(found: Evaluation, setting: str) -> str:
    """One sentence on the setting: who mixes best, against the base and the right adapter."""
    best = found.best(setting)
    if best is None:
        return ""
    scores = found.scores(setting)
    words = f"{label(setting)}: {best} mixes best, {scores[best].mean:.1f}"
    beside = [
        f"{phrase} {scores[name].mean:.1f}"
        for name, phrase in (("base", "the base alone"), (PERFECT, "the right adapter alone"))
        if name in scores
    ]
    words += f" ({', '.join(beside)})." if beside else "."
    higher = [n for n in NOT_MIXING if n not in ("base", PERFECT) and n in scores]
    higher = [n for n in higher if scores[n].mean > scores[best].mean]
    if higher:
        words += f" Without mixing, {higher[0]} scores {scores[higher[0]].mean:.1f}."
    return words


def _findings(found: Evaluation) -> str:
    told = [sentence for setting in found.settings if (sentence := finding(found, setting))]
    return f'<ul class="rm-findings">{"".join(f"<li>{escaped(s)}</li>" for s in told)}</ul>'


def _settings(found: Evaluation) -> str:
    if len(found.settings) < 2:
        return ""
    told = "".join(
        f"<div><dt>{escaped(label(name))}</dt><dd>{escaped(words)}</dd></div>"
        for name, words in found.settings.items()
        if words
    )
    return f'<dl class="rm-terms">{told}</dl>' if told else ""


def _later(found: Evaluation) -> str:
    caption = "Tasks whose adapters the router was never trained on"
    shown = _means(found, found.later, caption, below=", ".join(found.later_tasks))
    if not shown:
        return ""
    summary = "The same, for adapters that came after the router was trained"
    return f"<details><summary>{summary}</summary>{shown}</details>"


def _means(
    found: Evaluation, means: dict[str, dict[str, Span]], caption: str, *, below: str = ""
) -> str:
    """Methods x settings; nothing where no setting has means."""
    settings = [name for name in found.settings if means.get(name)]
    if not settings:
        return ""
    rows = "".join(
        f"<tr>{head(name)}{''.join(cell(means[setting].get(name)) for setting in settings)}</tr>"
        for name in found.methods
    )
    heads = [head("method", scope="col")]
    heads += [head(label(name), scope="col", kind="number") for name in settings]
    return box(caption, heads, rows, kind="names narrow", below=escaped(below))


def _lenient(found: Evaluation) -> str:
    caption = "Lenient scores: bullets and trailing text are stripped first"
    shown = _means(found, found.lenient, caption)
    if not shown:
        return ""
    return f"<details><summary>The same, scored leniently</summary>{shown}</details>"


def _scores(found: Evaluation) -> str:
    spans = [span for setting in found.settings for span in found.scores(setting).values()]
    scale = scale_over(spans, zero=True)
    best = {setting: found.best(setting) for setting in found.settings}
    rows = ""
    for name in found.methods:
        cells = "".join(
            cell(found.scores(setting).get(name), scale=scale, best=best[setting] == name)
            for setting in found.settings
        )
        winner = name in best.values()
        rows += f'<tr class="{"best" if winner else ""}">{head(name)}{cells}</tr>'
    heads = [head("method", scope="col")]
    heads += [head(label(name), scope="col", kind="number") for name in found.settings]
    return box(
        "Mean score of each method, by setting",
        heads,
        rows,
        kind="names" if len(found.settings) > 1 else "names narrow",
        below="Bold: the best way of mixing in its setting. base, perfect and selection use one "
        "adapter or none. A line is the interval over rows, a dot the mean, on one scale for all "
        f"cells. {escaped(found.tuned)}",
    )


def _published(table: Published) -> str:
    best = [
        max((row[c] or 0 for name, row in table.rows.items() if "perfect" not in name), default=0)
        for c in range(len(table.columns))
    ]
    rows = ""
    for name, values in table.rows.items():
        cells = "".join(
            cell(None if value is None else Span(value), best=bool(value) and value == best[c])
            for c, value in enumerate(values)
        )
        rows += f"<tr>{head(name)}{cells}</tr>"
    heads = [head("method", scope="col")]
    heads += [head(name, scope="col", kind="number") for name in table.columns]
    return box(
        "As published, on larger bases",
        heads,
        rows,
        below=f"{escaped(table.source)}: other base models and other rows; compare the order, not "
        "the numbers.",
    )


def _aims(found: Evaluation) -> str:
    if not found.aims:
        return ""
    rows = "".join(
        f"<tr>{head(one.what)}<td>{verdict(one.reached)}</td>"
        f"{plain(one.aim)}{plain(one.measured)}</tr>"
        for one in found.aims
    )
    heads = [head(word, scope="col") for word in ("what", "reached?", "aim", "measured")]
    return box("Aims that were set before measuring", heads, rows, kind="words")


def _ways(found: Evaluation) -> str:
    told = "".join(
        f"<div><dt>{breakable(name)}</dt><dd>{escaped(words)}</dd></div>"
        for name, words in found.methods.items()
        if words
    )
    if not told:
        return ""
    return f'<details><summary>What each row is</summary><dl class="rm-terms">{told}</dl></details>'
