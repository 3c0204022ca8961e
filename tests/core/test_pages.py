"""README, CONTRIBUTING and the pages of docs: their links, commands, Python and endpoints."""

import ast
import importlib.util
import re
import shlex

import pytest
import typer

import ramole_core
from ramole_core.cli import app
from tests.core.test_house import PAGES, README, REPOSITORY

PYTHON_BLOCKS = {"README.md": 1, "docs/api.md": 8, "docs/files.md": 1, "docs/recipes.md": 8}
CALL = "python -m ramole_core "


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page: str):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGES[page])
    assert links
    missing = [link for link in links if not (REPOSITORY / page).parent.joinpath(link).exists()]
    assert not missing


def test_every_page_is_reached_from_readme_and_from_each_other():
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README))
    assert linked == PAGES.keys() - {"README.md", "CONTRIBUTING.md"}
    for page in linked:
        others = {f"docs/{name}" for name in re.findall(r"\]\(([\w-]+\.md)\)", PAGES[page])}
        assert linked <= others, f"{page} does not link to {linked - others}"


@pytest.mark.parametrize("page, count", PYTHON_BLOCKS.items())
def test_the_python_of_a_page_uses_names_that_exist(page: str, count: int):
    blocks = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    assert len(blocks) == count
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "ramole_core":
                assert {alias.name for alias in node.names} <= set(ramole_core.__all__)


def test_no_page_has_python_that_is_not_counted():
    with_python = {page for page, text in PAGES.items() if "```python" in text}
    assert with_python == PYTHON_BLOCKS.keys()


def find_command(words: list[str]):
    """(command, words that are left) of `train adapter --rank 4`; fails where there is none."""
    command, left = typer.main.get_command(app), list(words)
    if left[:1] == ["--url"]:  # of the program, before any command
        del left[:2]
    while commands := getattr(command, "commands", None):
        assert left and left[0] in commands, f"there is no command {' '.join(words)!r}"
        command = commands[left.pop(0)]
    return command, left


def check_call(line: str) -> None:
    """Read a whole call as the program would, running nothing; raises what the program would."""
    command, words = find_command(shlex.split(line.removeprefix(CALL), comments=True))
    if words != ["--help"]:
        command.make_context(line, words)


def check_mention(line: str) -> None:
    """A call in running text may leave arguments out; its command and options must exist."""
    command, words = find_command(shlex.split(line.removeprefix(CALL)))
    known = {option for one in command.params for option in one.opts}
    assert {word for word in words if word.startswith("-")} <= known, line


def calls_of(page: str) -> tuple[list[str], list[str]]:
    """The program's calls on a page: lines of shell blocks, and those between backticks in text."""
    parts = re.split(r"```(?:\w*)\n(.*?)```", PAGES[page], flags=re.DOTALL)
    lines = [line for block in parts[1::2] for line in block.splitlines()]
    mentions = [call for text in parts[::2] for call in re.findall(rf"`({CALL}[^`]+)`", text)]
    return [line for line in lines if line.startswith(CALL)], mentions


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist_with_their_options(page: str):
    lines, mentions = calls_of(page)
    for line in lines:
        check_call(line)
    for line in mentions:
        check_mention(line)


def test_a_command_that_does_not_exist_is_noticed():
    assert len(calls_of("README.md")[0]) >= 2 and len(calls_of("docs/api.md")[0]) >= 10
    assert len(calls_of("docs/api.md")[1]) >= 12
    with pytest.raises(AssertionError, match="no command 'forget my-lora'"):
        check_call(f"{CALL}forget my-lora")
    with pytest.raises(typer.TyperException, match="--kk"):
        check_call(f"{CALL}retrieve hello --kk 3")
    with pytest.raises(typer.TyperException, match="prompt"):
        check_call(f"{CALL}retrieve --k 3")
    with pytest.raises(AssertionError, match="--kk"):
        check_mention(f"{CALL}retrieve --kk 3")


@pytest.mark.parametrize("page", PAGES)
def test_the_modules_and_scripts_that_a_page_runs_exist(page: str):
    for module in re.findall(r"python -m ([\w.]+)", PAGES[page]):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"python (\S+\.py)", PAGES[page]):
        assert (REPOSITORY / script).is_file(), script


def test_every_command_has_json():
    waiting = [typer.main.get_command(app)]
    for command in waiting:
        inner = getattr(command, "commands", {})
        waiting += inner.values()
        assert inner or any("--json" in one.opts for one in command.params), command.name
    assert len(waiting) >= 13


def test_the_pages_name_every_command():
    headings = set(re.findall(rf"^#### `{CALL}([\w ]+)`$", PAGES["docs/api.md"], re.MULTILINE))
    assert {"train adapter", "train router", "train retriever", "doctor"} <= headings
    examples = [find_command(shlex.split(line)[3:])[0] for line in calls_of("docs/api.md")[0]]
    told = {command.name for command in examples}
    assert {name.split()[-1] for name in headings} - {"router", "retriever"} <= told


def test_the_pages_name_every_endpoint_and_no_other():
    source = "".join(file.read_text("utf-8") for file in (REPOSITORY / "ui").rglob("*.py"))
    served = set(re.findall(r"\bcalls\.(\w+)", source))
    assert len(served) >= 6
    assert served == set(re.findall(r"^\| `/(\w+)` \|", PAGES["docs/api.md"], re.MULTILINE))


def test_every_promise_of_hosting_has_its_test():
    _, _, table = PAGES["docs/hosting.md"].partition("## What is promised")
    named = re.findall(r"`(test_\w+)`", table)
    tests = "".join(file.read_text("utf-8") for file in (REPOSITORY / "tests").rglob("test_*.py"))
    assert len(named) >= 14
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_hosting_lists_every_status_with_which_the_middleware_refuses():
    code = "".join(path.read_text("utf-8") for path in (REPOSITORY / "ui/middleware").glob("*.py"))
    refusals = re.findall(r"Refused\(\s*(\d{3})(?: if [^,]* else (\d{3}))?,", code)
    _, _, table = PAGES["docs/hosting.md"].partition("| status | when |")
    listed = re.findall(r"^\| (\d{3}) \|", table.partition("\n\n")[0], re.MULTILINE)
    assert listed == sorted({status for pair in refusals for status in pair if status})


def test_every_container_is_published_to_this_machine_alone():
    runs = [run for page in PAGES.values() for run in re.findall(r"docker run[^\n`]*", page)]
    assert runs and [run for run in runs if " -p 127.0.0.1:" not in run] == []


def test_settings_names_every_variable_that_the_program_reads():
    files = [*REPOSITORY.glob("ramole_core/**/*.py"), *REPOSITORY.glob("ui/**/*.py")]
    text = "".join(file.read_text("utf-8") for file in [*files, REPOSITORY / "app.py"])
    named = set(re.findall(r"RAMOLE_[A-Z_]*[A-Z]", text))
    assert {"RAMOLE_LANES", "RAMOLE_PORT"} <= named, "nothing was found"
    assert named <= set(re.findall(r"RAMOLE_[A-Z_]*[A-Z]", PAGES["docs/settings.md"]))


def test_architecture_names_files_that_are_there():
    """With their folder, or of one of the folders named before them."""
    every = [
        file
        for top in ("ramole_core", "ui", "lab", "tests")
        for file in REPOSITORY.glob(f"{top}/**/*")
    ]
    known = {str(file.relative_to(REPOSITORY)).removeprefix("ramole_core/") for file in every}
    for name in re.findall(r"`([\w/]+\.(?:py|js))`", PAGES["docs/architecture.md"]):
        assert any(one == name or one.endswith(f"/{name}") for one in known), name
