"""An adapter's usual responses: those to the base's inputs on everyday prompts.

A few dozen everyday requests are read once by the bare base, and what goes into each layer at the
end of each is kept. An adapter's usual response is the mean and the standard deviation of log |B A
x| over those inputs; a response far above it means that the request is of the adapter's kind.
Nothing is trained, and an adapter that comes later is measured in the same way.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.base.model import BaseModel
from ramole_core.engine.layer_inputs import log_responses
from ramole_core.engine.prompt import encode_prompt
from ramole_core.errors import RamoleError
from ramole_core.kernels.code_cache import FOLDER
from ramole_core.kernels.vectors import LANES
from ramole_core.kernels.weight import way_here
from ramole_core.layers import Layout, Units
from ramole_core.request import Request
from ramole_core.whole_file import replacing

PROMPTS = (
    "Good morning! How are you today?",
    "What is the tallest mountain in Africa?",
    "Explain in two sentences how a bicycle stays upright.",
    "My brother says the shop closes at six, but the sign says eight. Who is right?",
    "List three things that you would pack for a week by the sea.",
    "Write a short poem about an old clock.",
    "Is this a good idea: painting the kitchen ceiling dark green?\nOPTIONS:\n- yes\n- no",
    "Read the note and answer.\n\nThe meeting has moved from Tuesday to Friday at nine.\n\n"
    "When is the meeting?",
    "Summarise this: The council voted on Monday to keep the library open on Sundays, after four "
    "hundred people had signed a petition.",
    "Give me a friendly reply to: sorry, I can't make it tonight.",
    "12 plus 30 is how much?",
    "Rewrite in plain words: the aforementioned party shall remit payment forthwith.",
    "name: Ada; city: London; year: 1843\nTurn this into a sentence.",
    "Which word does not belong: apple, pear, hammer, plum?",
    "Fix the spelling: I recieved teh parcel yestreday.",
    "Say good night in Italian.",
    "How do I list the files of a folder?",
    "Sentence 1: The cat sleeps.\nSentence 2: An animal is resting.\nDoes the first imply the "
    "second?",
    "What mood does this line have: the rain has found the hole in every shoe",
    "Choose the right label for this message: where is my parcel?\nOPTIONS:\n- delivery\n"
    "- payment\n- other",
    "Continue the story: The lighthouse had been dark for a year when",
    "Who wrote the music that is played at the start of the film?",
    "Put these in order of size: whale, mouse, horse.",
    "The train leaves at 7:40 and the ride takes 95 minutes. When does it arrive?",
    "Text: The soup was cold and nobody came to take the order.\nHappy or unhappy?\nOPTIONS:\n"
    "- happy\n- unhappy",
    "Translate into French:\nThe window is open.",
    "What does this Spanish sentence mean in English? El perro duerme en la cocina.",
    "Write a query that counts the rows of the table orders.",
    "Convert to JSON: two tickets for Saturday, third row.",
    "Extract all dates from the text.\nShe left on 3 May and came back on 11 June 1998.",
    "article: A storm has closed the harbour of Halvik for the second day. Ferries will sail again "
    "on Thursday.\nHeadline:",
    "Question: Can fish drown?\n\nGive a short answer.",
    'Sentence: He put the cup on the shelf because it was too low.\nWhat does "it" mean?\n'
    "OPTIONS:\n- the cup\n- the shelf",
    "split this sentence in two: the garden was quiet and the bees had gone because it rained",
    "Words: ladder, roof, rain\nWrite a sentence with them.",
    "Claim: Copper is a metal.\nTrue or false?\nOPTIONS:\n- true\n- false",
    "A bakery sells 14 loaves an hour. How many in 6 hours?\nAnswer with a number.",
    "Are these two the same?\nThe bus was late again.\nOnce more the bus did not come on time.\n"
    "OPTIONS:\n- yes\n- no",
    "User: I forgot my password.\nWhat is this about?\nOPTIONS:\n- account\n- refund\n- greeting\n"
    "- complaint",
    "Make this sound friendlier: Send me the file today.",
    "python: reverse a list without changing it",
    "Premise: Two children are building a dam.\nHypothesis: Somebody is outdoors.\nDoes it follow?",
    "Which city is the capital of Portugal?",
    "put capital letters where they belong: on monday anna flew to oslo",
    "height: 1.2 m; colour: red; use: garden chair. Describe the thing.",
    "Passage: The library opens at ten. On Fridays it stays open until nine.\nQ: How long is it "
    "open on Fridays?",
    "Is this message an advertisement? Win a free weekend, reply YES now!",
    "Pick the better ending: She opened the umbrella\nOPTIONS:\n- because it had started to rain.\n"
    "- because the soup was ready.",
)
"""Everyday prompts, written for this purpose."""
MIN_STD = 0.05
"""Least standard deviation, so that a nearly constant response is not overrated."""


class Reference:
    """The inputs of every layer of the base at the end of each prompt above."""

    def __init__(
        self,
        read_ends: Callable[[Sequence[Sequence[int]]], list[Tensor]],
        tokenizer: PreTrainedTokenizerBase,
    ):
        """`read_ends` runs the bare base once over all prompts: by group, [L, b, i]."""
        ids = [_encode(prompt, tokenizer) for prompt in PROMPTS]
        with torch.inference_mode():
            self._inputs = read_ends(ids)

    @torch.inference_mode()
    def measure(self, units: Units) -> Float[Tensor, "modules 2"]:
        """Mean and standard deviation of log |B A x| in each module; (0, 1) where it has none."""
        logs = log_responses(units, self._inputs)
        usual = torch.stack([logs.mean(0), logs.std(0).clamp(min=MIN_STD)], dim=-1)
        usual[~units.present] = torch.tensor([0.0, 1.0])
        return usual


def _encode(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Encode a prompt under the chat template, or raw where that fails."""
    try:
        return encode_prompt(Request(prompt), tokenizer)
    except RamoleError:
        return encode_prompt(Request(prompt, raw=True), tokenizer)


ReadEnds = Callable[[Sequence[Sequence[int]]], list[Tensor]]
"""From prompts to the inputs of each layer at their ends, by group."""


def key_of(base: BaseModel, layout: Layout) -> str:
    """Return the cache key of the numbers, without the prompts: base, precision and code."""
    versions = [metadata.version(name) for name in ("torch", "transformers", "bitsandbytes")]
    kind = base.checksum, base.quantization, base.head, str(base.dtype), base.device.type
    groups = [(group.i, group.paths) for group in layout.groups]
    return repr((kind, groups, FOLDER.name, LANES, way_here(), versions))


def remembered(read: ReadEnds, *, folder: Path | None, what: str) -> ReadEnds:
    """Wrap `read` with a cache in the folder; None: no folder."""
    if folder is None:
        return read

    def find(prompts: Sequence[Sequence[int]]) -> list[Tensor]:
        name = hashlib.sha256(repr((what, [list(ids) for ids in prompts])).encode()).hexdigest()
        file = folder / f"{name[:32]}.safetensors"
        found = _load(file)
        if found is None:
            found = read(prompts)
            _save(file, found)
        return found

    return find


def _load(file: Path) -> list[Tensor] | None:
    try:
        tensors = load_file(file)
        return [tensors[str(g)] for g in range(len(tensors))]
    except (SafetensorError, KeyError, OSError):
        return None  # none yet, or half-written by a dying machine


def _save(file: Path, tensors: Sequence[Tensor]) -> None:
    # on a full disk it is read again at the next start
    with suppress(OSError), replacing(file) as part, torch.inference_mode():
        save_file({str(g): one.contiguous() for g, one in enumerate(tensors)}, part)
