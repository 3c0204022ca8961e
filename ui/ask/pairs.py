"""The field for a method's examples, typed or from a file; and kept weights."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ramole_core import Ramole, RamoleError, read_example_lines, read_text

from ..parts.errors import one_sentence
from ..parts.events import QUIET

MAX_FILE_BYTES = 2_000_000
"""Most bytes of a file."""
KEPT = "Or weights that you kept: no examples are needed then"
LABEL = "Examples, about 5 pairs, one a line: input => target, or JSON of inputs and targets"


class Pairs:
    """The field, and the file that fills it, built inside the form that is open."""

    def __init__(self, ramole: Ramole, *, method: str) -> None:
        # The methods that have use for them.
        self.fits = frozenset(row.name for row in ramole.methods() if row.fits)
        with gr.Column(visible=method in self.fits, elem_id="pairs") as self.group:
            self.text = gr.Textbox(
                label=LABEL,
                placeholder="I won a prize! Is this spam? => yes",
                lines=3,
                max_lines=10,
                elem_id="pairs-text",
            )
            self.file = gr.UploadButton(
                "Take them from a file (.jsonl or .txt)",
                file_types=[".jsonl", ".txt"],
                size="sm",
                elem_id="pairs-file",
            )
            with gr.Row(equal_height=True):
                # Weights that were kept, in place of examples.
                self.mix = gr.Dropdown([], value=None, label=KEPT, elem_id="mix", min_width=220)
                self.name = gr.Textbox(
                    label="Keep the weights of this answer as", elem_id="keep-name", min_width=160
                )
                self.keep = gr.Button("Keep them", size="sm", elem_id="keep-button", min_width=90)

    def shown(self, method: str) -> dict[Any, Any]:
        """The field, visible for a method that finds its weights on examples."""
        return {self.group: gr.Column(visible=method in self.fits)}

    def chosen(self, method: str, mix: str | None, text: str | None) -> dict[str, str | None]:
        """The field's value, where the method uses it; a mix replaces examples."""
        if method not in self.fits:
            return {"mix": None, "examples": ""}
        return {"mix": mix or None, "examples": "" if mix else text or ""}

    def mixes(self, ramole: Ramole, owner: str | None) -> list[str]:
        """Names of the weights that were kept, for methods that find them."""
        return sorted(mix.name for mix in ramole.mixes(owner) if mix.method in self.fits)

    def connect(self) -> None:
        """Connect the file to the field."""
        self.file.upload(_taken, self.file, self.text, **QUIET)


def lines_of(examples: Sequence[Sequence[str] | Mapping[str, str]]) -> str:
    """The pairs of a request as the field has them, one a line."""
    pairs = [
        (one["inputs"], one["targets"]) if isinstance(one, Mapping) else one for one in examples
    ]
    return "\n".join(
        json.dumps({"inputs": text, "targets": target}, ensure_ascii=False)
        for text, target in pairs
    )


def text_of(path: Path) -> str:
    """The pairs in a file, as the field has them; raises RamoleError."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise RamoleError(
            f"{path.name} is larger than {MAX_FILE_BYTES // 10**6} MB; about 5 pairs will do."
        )
    pairs = read_example_lines(read_text(path, path.name))
    if not pairs:
        raise RamoleError(f"{path.name} is empty; give about 5 pairs, one a line.")
    return lines_of([(pair.input, pair.target) for pair in pairs])


def _taken(path: str | None) -> str:
    if not path:
        return ""
    with one_sentence():
        return text_of(Path(path))
