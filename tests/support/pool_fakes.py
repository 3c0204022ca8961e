"""A system with a real pool and nothing heavy: answers are the prompt's words, similarity is the
share of words in common. Adapters are made here too, small and random."""

import json
import math
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from gradio.utils import get_upload_folder
from safetensors.numpy import save_file

from ramole_core import (
    AdapterCard,
    Fitting,
    Generation,
    Hit,
    Request,
    Selection,
    Step,
    load_settings,
)
from ramole_core.hub import Hub
from ramole_core.methods import METHOD_LIST
from ramole_core.mixes import Mixes
from ramole_core.pool import Limits, Pool, write_manifest
from ramole_core.retrieval import AdapterIndex, Retriever
from tests.support.heard import Heard
from tests.support.word_encoder import WordEncoder

SHAPES = {
    f"model.layers.{layer}.{module}": size
    for layer in range(2)
    for module, size in {
        "self_attn.q_proj": (24, 32),
        "self_attn.v_proj": (24, 16),
        "mlp.down_proj": (48, 24),
    }.items()
}


def write_adapter(
    folder: Path,
    *,
    rank: int = 3,
    modules: Sequence[str] = ("q_proj", "v_proj"),
    seed: int = 0,
    examples: Sequence[str] = (),
    readme: str = "",
    **config: object,
) -> Path:
    """An adapter as PEFT writes it, for a model of `SHAPES`."""
    random = np.random.default_rng(seed)
    tensors = {}
    for path, (i, o) in SHAPES.items():
        if path.rsplit(".", 1)[1] in modules:
            key = f"base_model.model.{path}"
            tensors[f"{key}.lora_A.weight"] = random.normal(size=(rank, i)).astype(np.float32)
            tensors[f"{key}.lora_B.weight"] = random.normal(size=(o, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    said |= {"target_modules": list(modules), "base_model_name_or_path": "tiny", **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    if examples:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in examples)
        (folder / "examples.jsonl").write_text(lines)
    if readme:
        (folder / "README.md").write_text(readme)
    return folder


def write_sample(adapters_dir: Path, name: str, *, command: str = "", **made: object) -> None:
    """An adapter of the sample pool, with its manifest and the command that trained it."""
    folder = write_adapter(adapters_dir / name, **made)
    if command:
        (folder / "train.json").write_text(json.dumps({"command": command}))
    write_manifest(folder, name=name, shapes=SHAPES)


def zipped(folder: Path, target: Path) -> Path:
    """The folder's files in a zip."""
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return target


def upload(file: Path | str, data: bytes | None = None, *, folder: str = "0123") -> str:
    """Put a file, or data under its name, into Gradio's cache as its upload route does; the path
    there."""
    target = Path(get_upload_folder()) / folder / Path(file).name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(Path(file).read_bytes() if data is None else data)
    return str(target)


def _vector(text: str) -> np.ndarray:
    """Of unit length, the same for the same words."""
    seed = sum(word * place for place, word in enumerate(text.encode(), 1))
    vector = np.random.default_rng(seed).normal(size=7)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class PoolRamole:
    """The public methods that the page uses."""

    def __init__(self, root: Path, *, gate: Path | None = None, **settings: object):
        self.settings = load_settings(
            adapters_dir=root / "adapters", data_dir=root / "data", **settings
        )
        s = self.settings
        self.pool = Pool(
            adapters_dir=s.adapters_dir,
            data_dir=s.data_dir,
            shapes=lambda: SHAPES,
            limits=Limits(
                max_upload_mb=s.max_upload_mb, max_rank=s.max_rank, max_adapters=s.max_adapters
            ),
            shared_uploads=s.shared_uploads,
        )
        self.retriever = SimpleNamespace(
            embed=lambda texts: np.eye(len(texts), 3, dtype="f4"),
            vectors=lambda texts: [_vector(text) for text in texts],
            card_vectors=lambda cards: [_vector(" ".join(card.texts)) for card in cards],
            count_tokens=lambda texts: sum(len(text.split()) for text in texts),
        )
        self._mixes = Mixes(s.data_dir)
        encoder = WordEncoder()
        own = Retriever(pool=self.pool, encoder=encoder, index=AdapterIndex(data_dir=s.data_dir))
        named = s.model_copy(update={"hub_base": s.hub_base or "made/base"})
        self.hub = Hub(self.pool, own, encoder=encoder, shapes=lambda: SHAPES, settings=named)
        self.loaded = False
        self.heard: Heard | None = None
        self._gate = gate

    def methods(self):
        return METHOD_LIST

    def load(self, progress=None) -> None:
        if progress:
            progress("reading the weights", 0.5)
        while self._gate is not None and not self._gate.exists():
            time.sleep(0.02)
        self.loaded = True

    def spell(self, token_ids) -> list[str]:
        return [str(token) for token in token_ids]

    def decode(self, token_ids) -> str:
        return " ".join(self.spell(token_ids))

    def stats(self) -> dict[str, int | float]:
        return {"running": 0, "waiting": 0} if self.loaded else {}

    def mix_owners(self) -> set[str]:
        return self._mixes.owners()

    def remove_mixes(self, owner: str) -> int:
        return self._mixes.remove_all(owner)

    def retrieve(self, text, k=3, exclude=(), owner=None) -> list[Hit]:
        cards = [card for card in self.pool.cards(owner) if card.name not in set(exclude)]
        hits = [Hit(card.name, _alike(text, " ".join(card.texts)), card.owner) for card in cards]
        return sorted(hits, key=lambda hit: (-hit.score, hit.name))[:k]

    def neighbours(self, name, k=3, owner=None) -> list[Hit]:
        card: AdapterCard = self.pool.card(name, owner)
        return self.retrieve(" ".join(card.texts), k, (name,), owner)

    def check(self, request: Request) -> None:
        for name in request.adapters or ():
            self.pool.card(name, request.owner)

    def stream_batch(
        self,
        requests: Sequence[Request],
        *,
        waiting=lambda index, place: None,
        fitting=lambda index, how: None,
        selected=lambda index, selection: None,
        **_: object,
    ) -> Iterator[tuple[int, Step | Generation]]:
        """One after the other, a word at a time; weights are found in three steps."""
        for index, request in enumerate(requests):
            selected(index, self._selection(request))
            waiting(index, 0)
            found = [self._found(request, step) for step in (1, 2, 3) if request.examples]
            for how in found:
                fitting(index, how)
            for item in self._answer(request):
                if found and isinstance(item, Generation):
                    item = replace(item, fitted=found[-1])
                yield index, item

    def _selection(self, request: Request) -> Selection:
        if request.adapters is not None:
            return Selection(tuple(request.adapters), (math.nan,) * len(request.adapters))
        hits = self.retrieve(request.prompt, request.k, request.exclude, request.owner)
        return Selection(tuple(hit.name for hit in hits), tuple(hit.score for hit in hits))

    def _found(self, request: Request, step: int) -> Fitting:
        names = tuple(request.adapters or [hit.name for hit in self.retrieve("", request.k)])
        weights = tuple(1.25 - n for n in range(len(names)))
        sums = tuple("0" for _ in names)
        return Fitting("lorahub", names, sums, step, 3, weights, 2.0 - step / 4, 2.0, 0.5)

    def _answer(self, request: Request) -> Iterator[Step | Generation]:
        while not self.loaded:
            time.sleep(0.02)
        hits = self.retrieve(request.prompt, request.k, request.exclude, request.owner)
        for name in request.adapters or ():
            self.pool.card(name, request.owner)
        words = request.prompt.split()[: request.max_new_tokens]
        for i, word in enumerate(words):
            if self.heard is not None and i:
                self.heard.wait(i)
            yield Step(token=i, text=word + " ", weights=None)
        yield Generation(
            text=" ".join(words),
            adapters=list(request.adapters or [hit.name for hit in hits]),
            scores=[float("nan")] * len(request.adapters or ()) or [hit.score for hit in hits],
            trace=None,
            finish_reason="length",
            prompt_tokens=5,
            new_tokens=len(words),
            seconds=0.25,
            first_token_seconds=0.125,
        )

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.hub.close()
        self.pool.close()


def _alike(one: str, other: str) -> float:
    a, b = set(one.lower().split()), set(other.lower().split())
    return len(a & b) / max(len(a | b), 1)
