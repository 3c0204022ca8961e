"""README's generated parts: the tables of methods, settings and results, and the tree.

`make readme` writes them between their marks; a test fails where README and code disagree.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ramole_core.composition import METHODS  # noqa: E402
from ramole_core.methods import METHOD_LIST  # noqa: E402
from ramole_core.settings import Settings  # noqa: E402
from ui.results.files import Unmeasured, load  # noqa: E402
from ui.results.retrieval import FIRST, PROMPTS, tops_in  # noqa: E402
from ui.results.scores import HELD_OUT, LABELS, Evaluation, evaluation  # noqa: E402
from ui.results.speed import machines_of  # noqa: E402
from ui.results.values import Span  # noqa: E402

README = REPOSITORY / "README.md"
AGAIN = (
    "After the test, which is asked once, the retriever was trained anew and the prior of "
    "`ramole_plus` fitted to it (on other rows, after a first look at these). The same on held-out "
    "dev rows, as it is shipped now:"
)
BEGIN, END = "<!-- {name}: written by `make readme` -->", "<!-- end of {name} -->"

OTHERS = {
    "adapters/": "the sample pool: a folder an adapter, `_router` and `_retriever` beside them",
    "docs/": "pictures, and the scripts that make them and the tables of this page",
    "results/": "measured tables",
    "tests/": "oracles, laws, hostile files, the page in a real browser",
    "Makefile": "every task; `make` prints them",
    "requirements.txt": "what running needs, each line with its reason",
    "requirements-dev.txt": "what tests and checks need beside it",
    "pyproject.toml": "settings of ruff, pyright and pytest",
    "Dockerfile": "the page in a container",
    ".ci/run": "what must pass before a change lands",
    "CONTRIBUTING.md": "how to add a method, and how the house works",
    "LOG.md": "dated experiments with numbers, failures included",
}


def methods() -> str:
    """One row a method, linked to the one file that holds its equation."""
    rows = ["| method | from | what it does |", "|---|---|---|"]
    for method in METHOD_LIST:
        home = type(METHODS[method.name]).__module__.replace(".", "/") + ".py"
        rows.append(f"| [`{method.name}`]({home}) | {method.paper} | {method.summary} |")
    return "\n".join(rows)


def measured() -> str:
    """The evaluation, or the command that makes it."""
    found, missing = evaluation(REPOSITORY / "results")
    if found is None:
        assert missing is not None
        return f"{missing.sentence}\n\n```bash\n{missing.command}\n```"
    again, _ = evaluation(REPOSITORY / "results", HELD_OUT)
    return "\n\n".join([evaluated(found), *([AGAIN, evaluated(again)] if again else [])])


def evaluated(found: Evaluation) -> str:
    """Methods x settings, the aims in a sentence each, retrieval, and the command."""
    scores = {setting: found.scores(setting) for setting in found.settings}
    facts = dict(found.made.facts)
    how = ", ".join(filter(None, (facts.get("rows"), facts.get("adapters mixed"))))
    meanings = "; ".join(
        f"{LABELS.get(name, name)}: {words}" for name, words in found.settings.items() if words
    )
    rows = [
        f"{len(found.tasks)} tasks, {how}, on the base model {facts.get('base model', '')}. Mean "
        "score over rows, 0 to 100, with 95 % bootstrap intervals; bold is the best way of mixing "
        f"in a setting. {meanings}.",
        "",
        f"| method | {' | '.join(LABELS.get(name, name) for name in scores)} |",
        "|---" * (1 + len(scores)) + "|",
    ]
    for name in found.methods:
        label = "the right adapter alone" if name == "perfect" else f"`{name}`"
        cells = [
            _bold(_span(row.get(name)), found.best(setting) == name)
            for setting, row in scores.items()
        ]
        rows.append(f"| {label} | {' | '.join(cells)} |")
    words = {True: "reached", False: "**not reached**", None: "not known yet"}
    aims = [
        f"- {one.what}: aim {one.aim}, measured {one.measured or 'nothing yet'}: "
        f"{words[one.reached]}."
        for one in found.aims
    ]
    aims += [""] if aims else []
    command = f"```bash\n{found.made.command}\n```"
    return "\n".join([*rows, "", *aims, *_retrieval(found), command])


def _retrieval(found: Evaluation) -> Iterator[str]:
    phrases = {"first": "found first", "found": f"among the first {found.k}"}
    told = [
        f"{LABELS.get(setting, setting)}: "
        + ", ".join(f"{phrases[name]} {_span(spans[name])}" for name in phrases if name in spans)
        for setting, spans in found.retrieval.items()
        if spans.keys() & phrases.keys()
    ]
    if told:
        yield f"The right adapter, in percent of the prompts: {'; '.join(told)}."
        yield ""


def _span(span: Span | None) -> str:
    if span is None:
        return ""
    if span.low is None or span.high is None:
        return f"{span.mean:.1f}"
    return f"{span.mean:.1f} [{span.low:.0f}, {span.high:.0f}]"


def _bold(words: str, yes: bool) -> str:
    return f"**{words}**" if yes else words


def retrieved() -> str:
    """The retriever by the paper's protocol, beside the published figures."""
    raw = load(REPOSITORY / "results", "retriever.json")
    assert not isinstance(raw, Unmeasured)
    rows = [
        f"{raw['pool']} LoRAs of the LoraRetriever paper, {raw['prompts']} prompts, percent with "
        "95 % bootstrap intervals over prompts, mean over splits of the tasks.",
        "",
        f"| retriever | prompts | {' | '.join(f'top-{k}' for k in FIRST)} |",
        "|---" * (2 + len(FIRST)) + "|",
    ]
    for name, part, tops, _ in tops_in(raw):
        cells = " | ".join(_span(tops.get(k)) for k in FIRST)
        rows.append(f"| {name} | {PROMPTS.get(part, part)} | {cells} |")
    for name, figures in raw["published"].items():
        rows.append(f"| as published, {name} | all prompts | {' | '.join(map(str, figures))} |")
    return "\n".join([*rows, "", f"```bash\n{raw['command']}\n```"])


def speed() -> str:
    """The engine's aims beside what was measured, and where."""
    run = json.loads((REPOSITORY / "results" / "speed.json").read_text(encoding="utf-8"))
    usual, *others = machines_of(run).items()
    newer = "".join(
        f"{' and '.join(parts)}, measured later, on {where}; " for where, parts in others
    )
    rows = [
        f"{usual[0]}; {newer}quotients within one run, median of the repetitions with smallest and "
        "largest.",
        "",
        "| what | measured | smallest to largest | aim | reached |",
        "|---|---|---|---|---|",
    ]
    for aim in run["aims"]:
        reached = "yes" if aim["reached"] else "**no**"
        spread = f"{aim['min']} to {aim['max']}"
        rows.append(f"| {aim['what']} | {aim['measured']} | {spread} | {aim['aim']} | {reached} |")
    many = json.loads((REPOSITORY / "results" / "many_users.json").read_text(encoding="utf-8"))
    clients = many["by_clients_of_the_endpoint"]["median_times_faster"]
    visitors = (
        f"{many['users']} people at once on the page ({many['quantization']}, {many['cores']} "
        f"cores) wait {many['median_times_faster']} times less than one after another where their "
        f"browser draws on the same cores (aim: 4, not reached), and clients of the endpoint "
        f"{clients} times less."
    )
    commands = f"```bash\n{run['command']}\n{many['command']}\n```"
    return "\n".join([*rows, "", visitors, "", commands])


def settings() -> str:
    """One row a setting: variable, default, meaning."""
    meanings = dict(_attribute_docstrings(REPOSITORY / "ramole_core" / "settings.py", "Settings"))
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{_portable(field.default)}`"
        rows.append(f"| `RAMOLE_{name.upper()}` | {default} | {meanings[name]} |")
    return "\n".join(rows)


def tree() -> str:
    """Every file of the program with the first sentence of its docstring."""
    rows: list[tuple[str, str]] = [("app.py", _phrase(REPOSITORY / "app.py"))]
    for package in ("ramole_core", "ui"):
        rows += _folder(REPOSITORY / package, depth=0)
    rows += OTHERS.items()
    width = max(len(name) for name, _ in rows)
    return "\n".join(["```", *(f"{name:<{width}}  {phrase}" for name, phrase in rows), "```"])


PARTS = {
    "methods": methods,
    "measured": measured,
    "retrieved": retrieved,
    "speed": speed,
    "settings": settings,
    "tree": tree,
}


def generated(text: str) -> str:
    """README's text with each generated part made anew; raises ValueError for a missing mark."""
    for name, make in PARTS.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"README.md lacks the marks {begin} ... {end}; put them back.")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def _interval(measure: dict[str, float]) -> str:
    return f"{measure['mean']:.1f} [{measure['low']:.0f}, {measure['high']:.0f}]"


def _folder(folder: Path, *, depth: int) -> Iterator[tuple[str, str]]:
    yield "  " * depth + folder.name + "/", _phrase(folder / "__init__.py")
    for file in sorted(folder.iterdir()):
        if file.suffix in (".py", ".css", ".js") and file.name != "__init__.py":
            yield "  " * (depth + 1) + file.name, _phrase(file)
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").is_file():
            yield from _folder(inner, depth=depth + 1)


def _phrase(file: Path) -> str:
    """The first sentence of a file's docstring, or of the comment that it begins with."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        words = ast.get_docstring(ast.parse(text)) or ""
    else:
        words = text.partition("*/")[0].replace("/*", "").replace("//", "")
    paragraph = " ".join(words.strip().partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?]) (?=[A-Z`])", paragraph)[0].rstrip(".")
    if not sentence:
        raise ValueError(f"{file} does not say its idea; begin it with a sentence that does.")
    return sentence


def _attribute_docstrings(file: Path, class_name: str) -> Iterator[tuple[str, str]]:
    """The string under each field of a class, by the field's name."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for field, words in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    assert isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant)
                    yield field.target.id, " ".join(str(words.value.value).split())


def _portable(value: object) -> str:
    """A default without this machine's own folders."""
    if not isinstance(value, Path):
        return str(value)
    if value.is_relative_to(REPOSITORY):
        return f"{value.relative_to(REPOSITORY)}/"
    return (
        f"~/{value.relative_to(Path.home())}" if value.is_relative_to(Path.home()) else str(value)
    )


if __name__ == "__main__":
    README.write_text(generated(README.read_text(encoding="utf-8")), encoding="utf-8")
