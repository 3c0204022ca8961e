"""What a newcomer reads and runs is true: pages with their links, commands and generated parts;
requirements, container, targets, cluster.
"""

import importlib.util
import re
import shlex
import subprocess

import pytest
import typer
import yaml

from ramole_core import Settings, __version__
from ramole_core.cli import app, main
from tests.support.workers import REPOSITORY, python

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted((REPOSITORY / "docs").glob("*.md")),
    )
}


def generator():
    """The module `docs/readme.py`, which is no package's."""
    spec = importlib.util.spec_from_file_location("readme", REPOSITORY / "docs" / "readme.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", generator().PAGES)
def test_the_generated_parts_of_a_page_are_current(page: str):
    made = generator().generated(page, PAGES[page])
    assert PAGES[page] == made, f"{page} is older than code or results; run `make readme`"


def test_every_method_has_the_same_headings():
    from docs.method_pages import read_words

    heads = "Idea What Options Cost Paper Our Claimed".split()
    for part in PAGES["docs/methods.md"].split("\n### ")[1:]:
        assert [head for head in heads if f"**{head}" not in part] == [], part[:60]
    with pytest.raises(ValueError, match="'All of them.' says nothing under Cost, Claimed"):
        read_words("All of them.\n\ny = x\n\nTrained: nothing.")


def test_readme_s_map_has_every_room():
    rooms = set(re.findall(r"^- `(\S+)/`(?: \(and `terminal/`\))? - \S", README, re.MULTILINE))
    folders = {f"ramole_core/{file.parent.name}" for file in REPOSITORY.glob("ramole_core/*/*.py")}
    assert rooms == folders - {"ramole_core/terminal"} | {"ui", "lab"}


def test_the_head_of_readme_configures_a_space():
    _, head, _ = README.split("---\n", 2)
    space = yaml.safe_load(head)
    assert space["sdk"] == "gradio" and (REPOSITORY / space["app_file"]).is_file()
    assert len(space["short_description"]) <= 60, "the Hub refuses a longer one"
    required = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    lowest = re.search(r"gradio\[mcp\]>=([\d.]+)", required)
    assert lowest and space["sdk_version"].startswith(f"{lowest[1]}.")


def test_the_config_of_a_cluster_is_one():
    from ramole_core.serving import app
    from ramole_core.serving.running import IDLE_SECONDS

    config = yaml.safe_load((REPOSITORY / "docs/serve.yaml").read_text(encoding="utf-8"))
    engines, page = config["applications"]
    assert (engines["name"], page["name"]) == (app.ENGINES, app.PAGE)
    assert config["http_options"]["keep_alive_timeout_s"] == IDLE_SECONDS
    read = app.EnginesArgs(**engines["args"]), app.PageArgs(**page["args"])
    for args, one in zip(read, (engines, page), strict=True):
        module, _, function = one["import_path"].partition(":")
        assert module == app.__name__ and callable(getattr(app, function))
        assert Settings(**args.settings).store == "/mnt/shared/ramole"


def test_the_container_has_what_it_needs():
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^COPY (?:--\S+ )*(\S.*) \S+$", text, re.MULTILINE)
    copied = [source for line in lines for source in line.split()]
    assert {"app.py", "ramole_core", "ui", "adapters", "requirements.txt"} <= set(copied)
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split()
    for source in copied:
        assert (REPOSITORY / source).exists(), f"the Dockerfile copies {source}, which is missing"
        assert source not in ignored, f"{source} is copied, and ignored by .dockerignore"
    assert text.index("USER 1000") < text.index("CMD ["), "it runs without root"
    health = re.search(r'^HEALTHCHECK .*CMD \["python", "-c", "(.*)"\]$', text, re.MULTILINE)
    assert health and "http://127.0.0.1:7860/health" in health[1]
    assert python("-c", health[1].replace("7860", "9")).returncode == 1, "nothing listens there"


def test_make_alone_prints_every_target():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    done = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert targets
    for target in targets[1].split():
        assert re.search(rf"^  make {target} +\S", done.stdout, re.MULTILINE), target


def test_the_console_script_says_its_version_and_completes(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"{__version__}\n"
    code = "import sys; sys.argv[0] = 'ramole'; from ramole_core.cli import main; sys.exit(main())"
    asked = {"_RAMOLE_COMPLETE": "complete_bash", "COMP_WORDS": "ramole generate --method lora"}
    done = python("-c", code, **asked, COMP_CWORD="3")
    assert done.stdout.split() == ["lorahub", "lora_flow", "lorauter"], done.stderr


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
    assert len(calls_of("docs/api.md")[0]) >= 10 and len(calls_of("docs/api.md")[1]) >= 12
    for check, call in (
        (check_call, "forget my-lora"),
        (check_call, "retrieve hello --kk 3"),
        (check_mention, "retrieve --kk 3"),
    ):
        with pytest.raises((AssertionError, typer.TyperException), match="no command|--kk"):
            check(f"{CALL}{call}")


@pytest.mark.parametrize("page", PAGES)
def test_the_modules_and_scripts_that_a_page_runs_exist(page: str):
    for module in re.findall(r"python -m ([\w.]+)", PAGES[page]):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"python (\S+\.py)", PAGES[page]):
        assert (REPOSITORY / script).is_file(), script


def test_the_pages_name_every_command_and_each_has_json():
    commands, waiting = set(), [("", typer.main.get_command(app))]
    for name, command in waiting:
        inner = getattr(command, "commands", {})
        waiting += [(f"{name} {word}".strip(), one) for word, one in inner.items()]
        if not inner:
            commands.add(name)
            assert any("--json" in one.opts for one in command.params), name
    headings = re.findall(rf"^#### `{CALL}([\w ]+)`$", PAGES["docs/api.md"], re.MULTILINE)
    assert set(headings) == commands


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
    tops = ("ramole_core", "ui", "lab", "tests")
    known = [file.as_posix() for top in tops for file in (REPOSITORY / top).glob("**/*")]
    for name in re.findall(r"`([\w/]+\.(?:py|js))`", PAGES["docs/architecture.md"]):
        assert any(file.endswith(f"/{name}") for file in known), name
