"""What the parts measure on: pools of made adapters, our engine and the peers, each opened when it
is first asked for."""

import shutil
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import torch

from lab.benchmarks.machine import describe_machine
from lab.benchmarks.peers import Arrow, Bare, LoadBase, OneEach, Peer, Switching, XLora, base_loader
from lab.benchmarks.record import Tell
from lab.benchmarks.sizes import Sizes
from lab.benchmarks.synthetic import bytes_of, write_adapters, write_router
from lab.benchmarks.workload import RANKS, SMALL, make_ranks
from ramole_core.base.fetch import fetch_base
from ramole_core.base.files import weights_checksum
from ramole_core.base.model import DTYPES
from ramole_core.base.shapes import read_shapes
from ramole_core.cli.timed_engine import OurEngine, make_prompts
from ramole_core.errors import RamoleError
from ramole_core.ramole import Ramole
from ramole_core.settings import Settings

MIXED = 3
"""Adapters that Arrow and X-LoRA mix."""


class Stage:
    """Everything under one work folder; `close()` gives models and pools back, not the folder."""

    def __init__(self, settings: Settings, *, work: Path, sizes: Sizes, tell: Tell):
        """`settings`: base, dtype, quantization and cache sizes; its pool gives the router only."""
        self.sizes, self.settings, self.tell, self._work = sizes, settings, tell, work
        self._open = ExitStack()
        folder = fetch_base(settings.base_model, data_dir=settings.data_dir, progress=tell)
        self._base_folder = folder
        self.shapes = read_shapes(folder)
        self.dtype = DTYPES.get(settings.dtype, torch.bfloat16)

    def describe(self) -> dict[str, object]:
        """The machine, and the base as it is served here."""
        s = self.settings
        cuda = s.device != "cpu" and torch.cuda.is_available()
        return describe_machine() | {
            "card": torch.cuda.get_device_name() if cuda else None,
            "device": "cuda" if cuda else "cpu",
            "dtype": str(self.dtype).removeprefix("torch."),
            "quantization": s.quantization,
            "base_checksum": weights_checksum(self._base_folder, data_dir=s.data_dir),
        }

    def close(self) -> None:
        """Close what was opened, and forget it."""
        self._open.close()
        for name in ("ours", "bare", "_one_each", "peers", "load_base"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pool(self) -> Path:
        """The folder of the adapters that all parts but the S-LoRA workload share."""
        return self._work / "pool"

    @cached_property
    def shared(self) -> list[str]:
        """The adapters of one rank that a full batch mixes."""
        ranks = [self.sizes.rank] * self.sizes.adapters
        return write_adapters(self.pool, shapes=self.shapes, ranks=ranks, dtype=self.dtype)

    def many(self, count: int, *, small: bool = False) -> Path:
        """The folder of so many adapters of mixed ranks, for the S-LoRA workload."""
        return self._work / f"{'small' if small else 'many'}_{count}"

    def make_many(self, count: int, *, small: bool = False) -> list[str]:
        """Write those that are not there yet; their names. Raises RamoleError where the disk has
        no room for them."""
        folder, ranks = self.many(count, small=small), make_ranks(count, SMALL if small else RANKS)
        folder.mkdir(parents=True, exist_ok=True)
        left = ranks[sum(1 for _ in folder.glob("made_*")) :]
        needed = bytes_of(self.shapes, left, self.dtype)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise RamoleError(
                f"{len(left)} adapters take {needed / 2**30:.1f} GiB, but {folder} has "
                f"{free / 2**30:.1f} GiB left; give another folder by --work."
            )
        return write_adapters(
            folder,
            shapes=self.shapes,
            ranks=ranks,
            dtype=self.dtype,
            tell=lambda done: self.tell(f"writing {count} adapters", done),
        )

    def prompts(self, count: int, tokens: int) -> list[str]:
        """Different prompts of exactly so many tokens."""
        return make_prompts(self.ours.ramole.base.tokenizer, tokens=tokens, count=count)

    @cached_property
    def ours(self) -> OurEngine:
        """Our engine over the shared adapters."""
        assert self.shared  # they are written
        return OurEngine(self.open_ramole(self.pool))

    def folder(self, name: str) -> Path:
        """A folder under the work folder."""
        folder = self._work / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def in_bits(self, quantization: str, *, head: str) -> OurEngine:
        """Our engine over the shared adapters, its base held in another way than the stage's."""
        assert self.shared  # they are written
        return OurEngine(self.open_ramole(self.pool, quantization=quantization, head=head))

    def open_ramole(self, pool: Path, **held: str) -> Ramole:
        """A loaded Ramole over a folder of adapters; closed with the stage. `held`: settings of the
        base that are not the stage's."""
        like = self.settings.adapters_dir / "_router"
        write_router(pool / "_router", like=like, shapes=self.shapes)
        settings = self.settings.model_copy(
            update={
                "base_model": str(self._base_folder),
                "adapters_dir": pool,
                "data_dir": self._work / "_".join(["data", pool.name, *held.values()]),
                **held,
                "max_new_tokens": max(self.settings.max_new_tokens, 64),
            }
        )
        ramole = self._open.enter_context(Ramole(settings))
        ramole.load(self.tell)
        return ramole

    @cached_property
    def load_base(self) -> LoadBase:
        """Copy of the base for the peers."""
        return base_loader(self.ours.ramole.base, data_dir=self.settings.data_dir)

    @cached_property
    def _one_each(self) -> OneEach:
        return OneEach(self.load_base, [self.pool / name for name in self.shared])

    @cached_property
    def bare(self) -> Bare:
        """The base under `transformers.generate`."""
        return Bare(self.load_base)

    @cached_property
    def peers(self) -> dict[str, Peer]:
        """PEFT in its four ways, by name."""
        folders = [self.pool / name for name in self.shared[:MIXED]]
        found: list[Peer] = [
            self._one_each,
            Switching(self._one_each),
            Arrow(self.load_base, folders),
            XLora(self.load_base, folders),
        ]
        return {peer.name: peer for peer in found}
