"""A process that changes a pool and its index without end, and one that looks what a kill left."""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

import chromadb  # noqa: F401 once, for all children

import ramole_core.pool.tensors  # noqa: F401 which has torch
from ramole_core.pool import Pool
from ramole_core.retrieval.index import AdapterIndex
from ramole_core.retrieval.retriever import Retriever
from tests.adapter_files import SHAPES, arrays_of, tree_of, write_adapter
from tests.campaigns.brute_force import nearest
from tests.retrieval_fakes import FakeEncoder

SOURCES = 6
NAMES = [f"n{n}" for n in range(9)]
Held = dict[str, tuple[int, tuple[str, ...]]]
"""By name: which source it is of, and its examples."""


class World:
    """A pool on disk and the index that follows it."""

    def __init__(self, root: Path, data: Path):
        self.root, self.data, self.encoder = root, data, FakeEncoder()
        self.pool = Pool(adapters_dir=root / "samples", data_dir=data, shapes=lambda: SHAPES)
        self.retriever = Retriever(
            pool=self.pool, encoder=self.encoder, index=AdapterIndex(data_dir=data)
        )
        self.pool.listeners.append(self.retriever)

    def close(self) -> None:
        self.retriever.close()
        self.pool.close()


def write_sources(root: Path) -> None:
    (root / "samples").mkdir()
    for n in range(SOURCES):
        write_adapter(root / f"s{n}", arrays=arrays_of(rank=3 + 9 * n, seed=n), config={"r": 3})


def change_on(root: Path, kind: str, dice: random.Random, tell: int) -> None:
    """Changes of that kind, others only where it needs them; each is told to the file `tell`
    before it begins and when it is done."""
    world = World(root, root / "data")
    world.retriever.check()

    def told(word: str, *what: object) -> None:
        os.write(tell, json.dumps([word, *what]).encode() + b"\n")

    told("ready")
    while True:
        there = [card.name for card in world.pool.cards()]
        free = [name for name in NAMES if name not in there]
        now = kind
        if kind == "add" and not free or kind == "remove" and dice.random() < 0.1:
            now = "remove"
        if kind != "add" and len(there) < 2:
            now = "add"
        if now == "add":
            name, source = dice.choice(free), dice.randrange(SOURCES)
            examples = [f"{name} of {source}", f"{dice.random()}"]
            told("begin", "add", name, source, examples)
            world.pool.add(root / f"s{source}", name=name, examples=examples)
        elif now == "remove":
            name = dice.choice(there)
            told("begin", "remove", name)
            world.pool.remove(name)
        else:
            name, examples = dice.choice(there), [f"now {dice.random()}"]
            told("begin", "set examples", name, examples)
            world.pool.set_examples(name, examples)
        told("done")


def replayed(held: Held, lines: Sequence[str]) -> list[Held]:
    """What may be there after the kill: all that was done, with and without what had begun."""
    now, ahead = dict(held), None
    for line in lines:
        word, *what = json.loads(line)
        if word == "begin":
            ahead = dict(now)
            if what[0] == "add":
                there = [n for n, (source, _) in now.items() if source == what[2]]
                ahead[(there or what[1:2])[0]] = (what[2], tuple(what[3]))
            elif what[0] == "remove":
                del ahead[what[1]]
            elif what[0] == "set examples":
                ahead[what[1]] = (now[what[1]][0], tuple(what[2]))
        elif word == "done" and ahead is not None:
            now, ahead = ahead, None
    return [now] if ahead is None else [now, ahead]


def looked_at(root: Path) -> dict[str, object]:
    """What the next process finds: the adapters, and a sentence for whatever is not whole."""
    wrong, world = [], World(root, root / "data")
    wrong += world.pool.problems
    held = {}
    for card in world.pool.all_cards():
        sources = [n for n in range(SOURCES) if (root / f"s{n}").exists() and same(root, n, card)]
        world.pool.tensors(card)
        held[card.name] = (sources[0] if sources else -1, card.examples)
        if not sources:
            wrong.append(f"{card.name} is of no source")
    tree = tree_of(root / "data" / "uploads") if (root / "data" / "uploads").exists() else {}
    here = {path for path in tree if tree[path] == "folder" and "/" in path}
    if here != {f"everyone/{name}" for name in held}:
        wrong.append(f"folders are left: {sorted(here)} for {sorted(held)}")
    left = [path.name for path in (root / "data").rglob("*") if path.name.startswith(".")]
    if left or (root / "data" / "staging").exists():
        wrong.append(f"half-written files are left: {left}")
    if held:
        found = [hit.name for hit in world.retriever.retrieve("n3 of 2", 5)]
        if found != nearest(world.encoder, world.pool.cards(), "n3 of 2", 5):
            wrong.append("other neighbours")
    world.close()
    return {"held": held, "wrong": wrong}


def same(root: Path, source: int, card) -> bool:
    file = "adapter_model.safetensors"
    return (root / f"s{source}" / file).read_bytes() == (card.folder / file).read_bytes()
