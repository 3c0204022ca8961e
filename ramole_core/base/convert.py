"""Convert a GGUF into a Hugging Face folder: bfloat16 safetensors and a chat tokenizer.

Whatever its blocks were rounded to is kept to bfloat16's precision; from here on the model is read
like any other folder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ramole_core.errors import RamoleError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
import json
import re
import shutil
import tempfile
from collections.abc import Mapping

from filelock import FileLock

from ramole_core.base.files import sha256

TURN = ("<|im_start|>", "<|im_end|>")
"""Start and end of a turn in ChatML."""
ANSWER = "Good day."
MARK = re.compile(r"<[^<>\s]+>")
"""A token that occurs in no text."""


def convert_gguf(gguf: Path, folder: Path, tell: Callable[[float], None]) -> None:
    """Write the GGUF's model and its tokenizer into `folder`; `tell` gets the fraction done.

    Raises RamoleError where the file cannot be read as a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        with _read_once(), _tensors_counted(tell):
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except Exception as error:  # whatever the readers say of a file that they cannot read
        raise RamoleError(
            f"{gguf.name} cannot be read as a causal language model "
            f"({first_line(error)}); set "
            "RAMOLE_BASE_MODEL to another source."
        ) from error
    vars(model.config).pop("quantization_config", None)
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise RamoleError(f"{gguf.name} has weights that are not finite; choose another base.")
    mend_tokenizer(tokenizer, gguf.name)
    for said in (model.config, model.generation_config):
        said.eos_token_id, said.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config.eos_token_id = end_tokens(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def mend_tokenizer(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Make a ChatML tokenizer end a text where a turn ends, and give any tokenizer a pad token.

    Raises RamoleError where a mark of the template is not one token: no model learnt it then.
    """
    if TURN[1] in str(tokenizer.chat_template or ""):
        for mark in TURN:
            ids = tokenizer.encode(mark, add_special_tokens=False)
            if len(ids) != 1:
                raise RamoleError(
                    f"{name} has a chat template with {mark}, which its tokenizer splits into "
                    f"{len(ids)} tokens where one was expected; choose another base."
                )
        tokenizer.eos_token = TURN[1]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def end_tokens(tokenizer: "PreTrainedTokenizerBase") -> int | list[int] | None:
    """The end token; with the mark that the chat template writes behind an answer, such as Gemma's
    <end_of_turn>, where that is another one."""
    end: Any = tokenizer.eos_token_id
    talk = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": ANSWER}]
    try:
        behind = str(tokenizer.apply_chat_template(talk, tokenize=False)).rpartition(ANSWER)[2]
    except Exception:  # no template, or one that refuses this
        return end
    mark, *_ = [*tokenizer.encode(behind.strip(), add_special_tokens=False), end]
    spelled = str(tokenizer.convert_ids_to_tokens(mark)) if mark != end else ""
    return [end, mark] if MARK.fullmatch(spelled) else end


@contextmanager
def _read_once() -> Iterator[None]:
    """Cache what transformers computes again for each part of a GGUF: the list of its fields, which
    is the whole vocabulary, and the names of an architecture's tensors. Both take several times
    longer than the weights."""
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        """Read slices of a plain array; those of a `memmap` are five times slower."""

        def _get(self, *place: Any, **how: Any) -> np.ndarray:
            if isinstance(self.data, np.memmap):
                self.data = self.data.view(np.ndarray)
            return super()._get(*place, **how)

    names = cache(gguf.get_tensor_name_map)
    with _replaced(gguf, GGUFReader=cache(Reader), get_tensor_name_map=names):
        yield


@contextmanager
def _tensors_counted(tell: Callable[[float], None]) -> Iterator[None]:
    """Call `tell` with the fraction of a GGUF's tensors read, in place of transformers' own bar."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def count(tensors: Sequence[object], **_: object) -> Iterator[object]:
        for done, tensor in enumerate(tensors):
            tell(done / len(tensors))
            yield tensor

    with _replaced(reader, tqdm=count):
        yield


@contextmanager
def _replaced(module: ModuleType, **others: object) -> Iterator[None]:
    """Replace attributes of a module inside the block."""
    before = {name: getattr(module, name) for name in others}
    for name, other in others.items():
        setattr(module, name, other)
    try:
        yield
    finally:
        for name, own in before.items():
            setattr(module, name, own)


MARKER = "source.json"
"""File with the model's source; a folder without it is incomplete."""


def is_kept(folder: Path) -> bool:
    """Whether the folder holds a complete model."""
    return (folder / MARKER).is_file()


def keep_base(
    final: Path, make: Callable[[Path, Path], Mapping[str, object]], *, source: str
) -> Path:
    """Make the folder `final` if missing, and return it: `make(part, model)` writes the model into
    the new folder `model`, with `part` to work in, and returns where it is from.

    Raises RamoleError where nothing can be kept there.
    """
    home = final.parent
    if is_kept(final):
        return final
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(str(home / f".{final.name}.lock")):
            if not is_kept(final):  # another process may have made it meanwhile
                _make_final(final, make, source=source)
    except OSError as error:
        reason = first_line(error)
        raise RamoleError(
            f"The base model cannot be kept under {home} ({reason}); make room there, or set "
            "RAMOLE_DATA_DIR to a folder that can be written."
        ) from error
    return final


def _make_final(
    final: Path, make: Callable[[Path, Path], Mapping[str, object]], *, source: str
) -> None:
    """Make the folder elsewhere and rename it; delete leftovers of killed processes."""
    for left in final.parent.glob(f"{final.name}.part-*"):
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"{final.name}.part-", dir=final.parent))
    made = part / "model"
    try:
        said = make(part, made)
        sums = {file.name: sha256(file) for file in sorted(made.glob("*.safetensors"))}
        origin = {"source": source, **said, "weights_sha256": sums}
        (made / MARKER).write_text(json.dumps(origin, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        made.replace(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)
