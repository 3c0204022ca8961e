"""What README, docs and recipes show does what they say: every block of Python is run, and the
shell of the recipes, on the real base and real adapters."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ramole_core.settings import Settings
from tests.support.serving import REPOSITORY, second_start

SAMPLE_POOL = Settings.model_fields["adapters_dir"].default
SAMPLES = ("true_case", "fix_punct", "word_segment", "dart", "_router", "_retriever", "_base")
"""As many as the recipes need, so that the model is there soon."""
RIGHT = "I live in Paris"
RECIPES = "docs/recipes.md"
SESSIONS = {"recipes": (RECIPES,), "reference": ("README.md", "docs/api.md", "docs/files.md")}
"""Pages that are read one after the other, each list of them by a reader of its own."""
SAID = {
    "A pool": ["my-lora has rank 4", "Hit(name='true_case'", RIGHT],
    "An adapter of the Hub": ["your-lora cc-by"],
    "`generate` of transformers": ["live in Paris"],
    "A figure in a notebook": [],
    "The `openai` client": [f"{RIGHT} 5", "true_case", "Rome", "'fix_punct'", "Person(name="],
    "Your own adapter over HTTP": ["my-lora usable", "never"],
    "An MCP client": ["'add_adapter'", RIGHT, "true_case"],
    "curl": ['"ready":true', "adapter:true_case", "data: [DONE]", "event: complete", RIGHT],
}
"""What the blocks under each heading of the recipes print."""
PRINTED = [
    ("README.md", [RIGHT, "true_case", ", 30, 7, 3)"]),
    ("docs/api.md", ["my-lora 4", "Hit(name="]),
    ("docs/api.md", [RIGHT, "true_case", "eos", "mixture=["]),
    ("docs/api.md", ["Rome", "True"]),
    ("docs/api.md", ['"name"', '"age"']),
    ("docs/api.md", ["True", "true_case"]),
    ("docs/api.md", ["listed", "your-name/your-lora", "fits"]),
    ("docs/api.md", [RIGHT, "true_case", "my-lora", "usable"]),
    ("docs/api.md", ["Rome", "True"]),
    ("docs/files.md", ["{", "true_case"]),
]
"""What each block of the other pages prints, in their order."""


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(heading, language, block) of each on a page, in order; of README, api and files, Python."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found, heading = [], ""
    for part in re.split(r"^(##+ [^\n]*|```\w+\n.*?^```)$", text, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("##"):
            heading = part.lstrip("# ")
        elif part.startswith("```"):
            language, _, rest = part[3:].partition("\n")
            if page == RECIPES or language == "python":
                found.append((heading, language, rest.removesuffix("```")))
    return found


def blocks_of(session: str) -> list[tuple[str, str, str]]:
    """Those of its pages."""
    return [block for page in SESSIONS[session] for block in blocks(page)]


def write_like(name: str, folder: Path, *, times: float) -> Path:
    """A LoRA that does what this one of the sample pool does, a little louder."""
    sample = SAMPLE_POOL / name
    folder.mkdir(parents=True)
    tensors = load_file(sample / "adapter_model.safetensors")
    louder = {n: t * times if "lora_B" in n else t for n, t in tensors.items()}
    save_file(louder, folder / "adapter_model.safetensors")
    for other in ("adapter_config.json", "README.md"):
        shutil.copy(sample / other, folder / other)
    return folder


def write_root(root: Path) -> None:
    """What a reader has: a pool, an adapter of his own, as a folder and as a zip, and a Hub."""
    from tests.support.pool_fakes import zipped

    write_like("fix_punct", root / "my-lora", times=1.01)
    write_like("fix_punct", root / "hub" / "your-lora", times=1.02)
    zipped(write_like("fix_punct", root / "zip", times=1.03), root / "my-lora.zip")
    (root / "adapters").mkdir()
    for name in SAMPLES:
        (root / "adapters" / name).symlink_to(SAMPLE_POOL / name)


@pytest.fixture(scope="module")
def readings(tmp_path_factory, real_base_folder) -> dict[str, list[dict]]:
    """What came of each block of each session, in order; one process reads them all."""
    said = {session: [block[1:] for block in blocks_of(session)] for session in SESSIONS}
    roots = {session: tmp_path_factory.mktemp(session) for session in SESSIONS}
    for session, root in roots.items():
        write_root(root)
        second_start(root / "data")
        (root / "blocks.json").write_text(json.dumps(said[session]))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAMOLE_", "GRADIO_", "HF_"))}
    settings = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("uploads")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.recipe_session", *roots.values()],
        cwd=REPOSITORY,
        env={**kept, **settings},
        capture_output=True,
        text=True,
        timeout=560,
    )
    (roots["recipes"] / "said").write_text(done.stdout + done.stderr)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == sum(map(len, said.values())), done.stderr[-3000:]
    each = iter(lines)
    return {
        session: [{**next(each), "root": roots[session]} for _ in said[session]]
        for session in SESSIONS
    }


@pytest.fixture(scope="module")
def results(readings) -> dict[str, list[dict]]:
    """What came of each recipe, by its heading."""
    found: dict[str, list[dict]] = {}
    for (heading, *_), line in zip(blocks(RECIPES), readings["recipes"], strict=True):
        found.setdefault(heading, []).append(line)
    assert list(found) == list(SAID), "every heading is looked at"
    return found


@pytest.fixture(scope="module")
def reference(readings) -> list[dict]:
    """What came of each block of the other pages, in order."""
    pages = [page for page in SESSIONS["reference"] for _ in blocks(page)]
    assert pages == [page for page, _ in PRINTED], "every block is looked at"
    return readings["reference"]


@pytest.mark.parametrize("heading", SAID)
def test_a_recipe_does_what_it_says(heading, results):
    for one in results[heading]:
        assert not one["failed"], one["failed"]
    printed = "\n".join(one["printed"] for one in results[heading])
    for text in SAID[heading]:
        assert text in printed, printed
    if heading == "A figure in a notebook":
        assert "true_case" in (results[heading][0]["root"] / "token.html").read_text("utf-8")


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_a_block_does_what_its_page_says(number, reference):
    one = reference[number]
    assert not one["failed"], one["failed"]
    for text in PRINTED[number][1]:
        assert text in one["printed"], one["printed"]


def test_pyright_accepts_what_the_pages_show(tmp_path):
    """Each block of README, api and files is a program of its own; the recipes use what others
    wrote as it is used, whose types are looser than their clients'."""
    for number, (_, _, text) in enumerate(blocks_of("reference")):
        (tmp_path / f"block_{number}.py").write_text(text)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(REPOSITORY)]}))
    done = subprocess.run(
        [Path(sys.executable).parent / "pyright", "--pythonpath", sys.executable, "-p", tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout
