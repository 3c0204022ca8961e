"""docs/recipes.md does what it says: every block is run, on the real base and real adapters."""

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
from tests.serving import REPOSITORY

PAGE = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
SAMPLE_POOL = Settings.model_fields["adapters_dir"].default
SAMPLES = ("true_case", "fix_punct", "word_segment", "dart", "_router", "_retriever", "_base")
"""As many as the recipes need, so that the model is there soon."""
RIGHT = "I live in Paris"
SAID = {
    "A pool": ["my-lora has rank 8", "Hit(name='true_case'", RIGHT],
    "An adapter of the Hub": ["your-lora cc-by", "0123456789abcdef"],
    "`generate` of transformers": ["live in Paris"],
    "A figure in a notebook": [],
    "The `openai` client": [f"{RIGHT} 5", "true_case", "Rome", "'fix_punct'", "Person(name="],
    "Your own adapter over HTTP": ["my-lora usable", "never"],
    "An MCP client": ["'add_adapter'", RIGHT, "true_case"],
    "curl": ['"ready":true', "adapter:true_case", "data: [DONE]", "event: complete", RIGHT],
}
"""What the blocks under each heading print."""


def blocks() -> list[tuple[str, str, str]]:
    """(heading, language, block) of each, in order."""
    found, heading = [], ""
    for part in re.split(r"^(### [^\n]*|```\w+\n.*?^```)$", PAGE, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("### "):
            heading = part.removeprefix("### ")
        elif part.startswith("```"):
            language, _, rest = part[3:].partition("\n")
            found.append((heading, language, rest.removesuffix("```")))
    return found


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


@pytest.fixture(scope="module")
def results(tmp_path_factory, real_base_folder) -> dict[str, list[dict]]:
    """What came of each block, by its heading."""
    from tests.pool_fakes import zipped

    root = tmp_path_factory.mktemp("reader")
    write_like("fix_punct", root / "my-lora", times=1.01)
    write_like("fix_punct", root / "hub" / "your-lora", times=1.02)
    zipped(write_like("fix_punct", root / "zip", times=1.03), root / "my-lora.zip")
    for name in SAMPLES:
        (root / "adapters").mkdir(exist_ok=True)
        (root / "adapters" / name).symlink_to(SAMPLE_POOL / name)
    (root / "blocks.json").write_text(json.dumps([block[1:] for block in blocks()]))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAMOLE_", "GRADIO_", "HF_"))}
    said = {
        "RAMOLE_DATA_DIR": str(root / "data"),
        "RAMOLE_BASE_MODEL": str(real_base_folder),
        "RAMOLE_ADAPTERS_DIR": str(root / "adapters"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(root / "uploads"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.recipe_session", root, root / "blocks.json"],
        cwd=REPOSITORY,
        env={**kept, **said},
        capture_output=True,
        text=True,
        timeout=280,
    )
    (root / "said").write_text(done.stdout + done.stderr)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(blocks()), done.stderr[-3000:]
    told: dict[str, list[dict]] = {}
    for (heading, *_), line in zip(blocks(), lines, strict=True):
        told.setdefault(heading, []).append({**line, "root": root})
    return told


def test_every_heading_is_looked_at():
    assert list(dict.fromkeys(heading for heading, *_ in blocks())) == list(SAID)
    assert {language for _, language, _ in blocks()} == {"python", "bash"}


@pytest.mark.parametrize("heading", SAID)
def test_a_recipe_does_what_it_says(heading, results):
    for one in results[heading]:
        assert not one["failed"], one["failed"]
    printed = "\n".join(one["printed"] for one in results[heading])
    for text in SAID[heading]:
        assert text in printed, printed


def test_the_figure_is_a_file_that_shows_the_adapters(results):
    root = results["A figure in a notebook"][0]["root"]
    assert "true_case" in (root / "token.html").read_text("utf-8")
