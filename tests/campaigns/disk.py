"""A disk that is full or read-only: one sentence, nothing lost, and on it goes where there is room.

Pool, index, kept mixes and the answers of a batch lie on a small file system of their own.
"""

import json
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

from ramole_core.answer import Fitting, Generation
from ramole_core.cli import main
from ramole_core.errors import RamoleError
from ramole_core.mixes import Mixes
from ramole_core.pool import Pool
from ramole_core.retrieval.card_vector import adapter_vectors
from ramole_core.retrieval.index import AdapterIndex
from ramole_core.retrieval.retriever import Retriever
from tests.campaigns.children import awaited, forked
from tests.campaigns.figures import Figures
from tests.campaigns.small_disk import SmallDisk, small_disk
from tests.support.adapter_files import SHAPES, arrays_of, tree_of, write_adapter
from tests.support.fake_ramole import FakeRamole
from tests.support.retrieval_fakes import FakeEncoder

PROMISED = ("processes_ended", "exceptions", "hangs", "not_one_sentence", "lost", "did_not_go_on")
SECONDS = 300
SOURCES = 6
ROWS = 60


def run(root: Path, *, count: int, seed: int, end: float = float("inf")) -> Figures:
    """`count` small disks; a quarter holds a batch's answers, the others a pool with its index."""
    figures = Figures(PROMISED)
    (root / "samples").mkdir()
    for n in range(SOURCES):
        arrays = arrays_of(rank=3 + 20 * n, seed=n)
        write_adapter(root / f"s{n}", arrays=arrays, config={"r": 3 + 20 * n})
    for number in range(count):
        if time.monotonic() > end:
            break
        dice = random.Random(f"{seed}.{number}")
        work = batch_on if number % 4 == 3 else pool_on
        with small_disk(root / "disk", kib=dice.choice((3000, 4000, 6000))) as disk:
            child = forked(lambda: work(root, disk, dice), root / "said")  # noqa: B023
            status = awaited(child, seconds=SECONDS)
        figures.counts["mishaps"] += 1
        said = (root / "said").read_text() if status in (0, 3) else ""
        if status is None:
            figures.failed("hangs", f"number {number}")
        elif status < 0:
            figures.failed("processes_ended", f"number {number}: signal {-status}")
        elif status:
            figures.failed("exceptions", f"number {number}: {said}")
        else:
            told = json.loads(said)
            figures.counts.update(told["happened"])
            for name, what in told["failures"]:
                figures.failed(name, f"number {number}: {what}")
    return figures


class Told:
    """What happened to one disk."""

    def __init__(self):
        self.happened: list[str] = []
        self.failures: list[tuple[str, str]] = []

    def failed(self, name: str, what: str) -> None:
        self.failures.append((name, what))

    def refused(self, what: str, error: RamoleError, disk: SmallDisk) -> None:
        """Counts a refusal, and whether it is one sentence that names no folder in passing."""
        text = str(error)
        self.happened.append(f"{what} refused")
        if "\n" in text or not text.endswith(".") or not text.isprintable() or len(text) > 500:
            self.failed("not_one_sentence", text)

    def record(self) -> dict[str, object]:
        happened = {name: self.happened.count(name) for name in set(self.happened)}
        return {"happened": happened, "failures": self.failures}


def pool_on(root: Path, disk: SmallDisk, dice: random.Random) -> dict[str, object]:
    """Changes and questions on a disk that is full or closed, in turn with one that has room."""
    told, data = Told(), disk.folder / "data"
    world = World(root, data)
    for n in range(3):
        world.pool.add(root / f"s{n}", name=f"first{n}", examples=[f"text {n}"])
    world.check("with room", told)
    closed = dice.random() < 0.3
    if closed:
        world.close()
        disk.close_for_writing()
        read_only(world, told, disk)
        disk.open_for_writing()
        world = World(root, data)
    else:
        for _ in range(4):
            disk.fill(dice.choice((0, 4096, 20_000, 60_000, 200_000)))
            for step in range(5):
                change(world, told, disk, dice, f"x{step}")
            disk.make_room()
            world.check("with room again", told)
            with suppress(RamoleError):
                world.pool.remove("after")
            went_on(world, told, root)
    world.check("at the end", told)
    world.close()
    again = World(root, data)
    again.check("opened again", told)
    if again.pool.problems:
        told.failed("lost", f"problems: {again.pool.problems}")
    again.close()
    return told.record()


class World:
    """The pool, the index that follows it, and kept mixes."""

    def __init__(self, root: Path, data: Path):
        self.root, self.data, self.encoder = root, data, FakeEncoder()
        self.pool = Pool(adapters_dir=root / "samples", data_dir=data, shapes=lambda: SHAPES)
        self.retriever = Retriever(
            pool=self.pool, encoder=self.encoder, index=AdapterIndex(data_dir=data)
        )
        self.pool.listeners.append(self.retriever)
        self.mixes = Mixes(data)

    def close(self) -> None:
        self.retriever.close()
        self.pool.close()

    def nearest(self, text: str, k: int) -> list[str]:
        """Names by their vectors alone, best first: what any index has to find."""
        cards = self.pool.cards()
        scores = adapter_vectors(self.encoder.embed, list(cards)) @ self.encoder.embed([text])[0]
        best = sorted(range(len(scores)), key=lambda n: (-scores[n], cards[n].name))
        return [cards[n].name for n in best[:k]]

    def check(self, when: str, told: Told) -> None:
        """Every question finds what brute force finds, every adapter can be read."""
        for text in ("text 1", "anything"):
            try:
                found = [hit.name for hit in self.retriever.retrieve(text, 5)]
            except RamoleError as error:
                told.failed("did_not_go_on", f"{when}: {error}")
                continue
            if found != self.nearest(text, 5):
                told.failed("lost", f"{when}: other neighbours")
        for card in self.pool.all_cards():
            self.pool.tensors(card)


def change(world: World, told: Told, disk: SmallDisk, dice: random.Random, name: str) -> None:
    """One change or question; where it is refused all must be as it was."""
    cards = {card.key: card.examples for card in world.pool.all_cards()}
    tree, mixes = tree_of(world.data / "uploads"), world.mixes.all(None)
    kind = dice.choice(("add", "add", "set examples", "remove", "retrieve", "keep a mix"))
    try:
        if kind == "add":
            source = world.root / f"s{dice.randrange(SOURCES)}"
            world.pool.add(source, name=name, examples=[f"text {name}"], owner=name)
        elif kind == "set examples":
            world.pool.set_examples(dice.choice(list(world.pool.all_cards())).name, [f"now {name}"])
        elif kind == "remove" and len(world.pool.cards()) > 1:
            world.pool.remove(dice.choice(world.pool.cards()).name)
        elif kind == "keep a mix":
            world.mixes.keep(f"{name}-{dice.randrange(10**6)}", found_weights(), None)
        else:
            found = [hit.name for hit in world.retriever.retrieve(name, 3)]
            if found != world.nearest(name, 3):
                told.failed("lost", f"other neighbours with {disk.free} bytes free")
    except RamoleError as error:
        told.refused(kind, error, disk)
        if kind == "retrieve":
            told.failed("did_not_go_on", f"retrieve with {disk.free} bytes free: {error}")
        if {card.key: card.examples for card in world.pool.all_cards()} != cards:
            told.failed("lost", f"cards after a refused {kind}")
        if tree_of(world.data / "uploads") != tree:
            told.failed("lost", f"files after a refused {kind}")
        if world.mixes.all(None) != mixes:
            told.failed("lost", f"mixes after a refused {kind}")
    else:
        told.happened.append(kind)


def went_on(world: World, told: Told, root: Path) -> None:
    """With room, an upload is taken and found."""
    try:
        world.pool.add(root / "s0", name="after", examples=["text after"], owner="me")
        found = world.retriever.retrieve("text after", 1, owner="me")
        if world.pool.card("after", "me").examples != ("text after",) or not found:
            told.failed("did_not_go_on", "an upload is not found")
        world.pool.remove("after", "me")
        world.mixes.keep("after", found_weights(), "me")
        world.mixes.remove("after", "me")
    except RamoleError as error:
        told.failed("did_not_go_on", str(error))


def read_only(world: World, told: Told, disk: SmallDisk) -> None:
    """A program that starts on a disk that takes nothing says so; one that only reads, reads."""
    before = tree_of(world.data)
    try:
        World(world.root, world.data).close()
    except RamoleError as error:
        told.refused("open", error, disk)
    else:
        told.happened.append("open")
    pool = Pool(
        adapters_dir=world.root / "samples",
        data_dir=world.data,
        shapes=lambda: SHAPES,
        read_only=True,
    )
    if len(pool.cards()) != 3:
        told.failed("lost", "cards on a disk that is read only")
    if tree_of(world.data) != before:
        told.failed("lost", "files on a disk that is read only")


def found_weights() -> Generation:
    """An answer with weights that can be kept."""
    fitted = Fitting("lorahub", ("first0",), ("0",), 3, 3, (1.0,), 0.5, 2.0, 1.0)
    return Generation("", ["first0"], [1.0], None, "eos", 1, 1, 1.0, 1.0, fitted=fitted)


def batch_on(root: Path, disk: SmallDisk, dice: random.Random) -> dict[str, object]:
    """A batch whose answers find no room, and which goes on with --resume."""
    import ramole_core.ramole

    told = Told()
    ramole_core.ramole.Ramole = lambda settings=None: FakeRamole(length=3, max_batch=1)  # pyright: ignore
    shutil.rmtree(root / "rows", ignore_errors=True)
    (root / "rows").mkdir()
    file, out = root / "rows" / "rows.csv", disk.folder / "out.jsonl"
    file.write_text("prompt\n" + "".join(f"p{i}\n" for i in range(ROWS)))
    words = ["batch", str(file), "--out", str(out), "--resume"]
    for _ in range(3):
        disk.fill(dice.choice((0, 4096, 8192, 12288)))
        had = out.read_bytes() if out.exists() else b""
        status = main(words)
        told.happened.append(f"batch ended with {status}")
        now = out.read_bytes() if out.exists() else b""
        if not now.startswith(had[: had.rfind(b"\n") + 1]):
            told.failed("lost", "answers that were written")
        disk.make_room()
        disk.fill(dice.choice((4096, 12288)))
    said = (root / "said.err").read_text()
    if "Traceback" in said or "No space left on device" not in said:
        told.failed("not_one_sentence", said[-300:])
    disk.make_room()
    if main(words) != 0:
        told.failed("did_not_go_on", "batch")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    if sorted(line["index"] for line in lines) != list(range(ROWS)):
        told.failed("lost", "rows of a batch")
    return told.record()
