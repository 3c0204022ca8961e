"""The store of packed adapters: one file each, mapped into memory on use.

    the pool's folder  ->  DATA_DIR/units/<checksum>-<layout>.safetensors  ->  host cache  ->  bank

The files are a cache: they can be deleted, and are written again. The host cache keeps the mapped
tensors of the adapters used last, within a number of bytes.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ramole_core.composition import LoraSet
from ramole_core.kernels.threads import kernels_alone
from ramole_core.layers import Layout, Units, pack_units
from ramole_core.whole_file import replacing

FORMAT = 5
"""Version of the files; an adapter in another one is packed again."""


class UnitStore:
    """Packed adapters by content checksum; thread-safe."""

    def __init__(
        self,
        layout: Layout,
        *,
        dtype: torch.dtype,
        limit: int,
        folder: Path | None,
        base: str = "",
        measure: Callable[[Units], Tensor] | None = None,
    ):
        """`limit` in bytes bounds the host cache; `folder` None packs in memory only; `base`
        stands for the base on which a packed adapter's usual responses were measured; `measure`
        gives an adapter's usual responses (`Reference.measure`), None: none are measured."""
        self.measure = measure
        self._layout, self._dtype, self._limit = layout, dtype, limit
        self._folder = folder
        what = repr((FORMAT, base, dtype, layout.flat, [(g.i, g.o) for g in layout.groups]))
        self._layout_name = hashlib.sha256(what.encode()).hexdigest()[:12]
        self._held: OrderedDict[Hashable, Units] = OrderedDict()
        self._alive: WeakValueDictionary[str, Units] = WeakValueDictionary()
        """Adapters held by requests, also after they were removed."""
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._files = threading.Lock()
        """Held while packing, or deleting what is packed: one would delete what the other
        writes."""
        self.nbytes = self.reads = self.packs = self.makes = 0

    @property
    def held(self) -> int:
        return len(self._held)

    def get(self, checksum: str, load: Callable[[], LoraSet]) -> Units:
        """The adapter's units; `load` reads the adapter itself where no packed file is there.

        Whatever `load` raises comes through.
        """
        units = self._look_up(checksum)
        if units is None:
            units = self._keep(checksum, self._read(checksum) or self._packed(checksum, load))
        return units

    def pack(self, checksum: str, load: Callable[[], LoraSet]) -> None:
        """Write the adapter's packed file now, where there is a folder and no file in it yet."""
        file = self._file(checksum)
        if file is not None and not file.is_file():
            self._packed(checksum, load)

    def _packed(self, checksum: str, load: Callable[[], LoraSet]) -> Units:
        """Pack the adapter, unless another thread has."""
        with self._files:
            return self._look_up(checksum) or self._read(checksum) or self._pack(checksum, load())

    def _look_up(self, key: Hashable) -> Units | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            alive = self._alive.get(key) if isinstance(key, str) else None
            return self._held.get(key, alive)

    def _keep(self, key: Hashable, units: Units) -> Units:
        with self._lock:
            if key not in self._held:
                self._held[key] = units
                if isinstance(key, str):
                    self._alive[key] = units
                self.nbytes += units.nbytes
            self._held.move_to_end(key)
            while self.nbytes > self._limit and len(self._held) > 1:
                self.nbytes -= self._held.popitem(last=False)[1].nbytes
            return self._held.get(key, units)

    def made(self, key: Hashable, make: Callable[[], Units], *, keep: bool = True) -> Units:
        """Units that are computed (a merge, a bypass), held in the host cache alone; without `keep`
        not even there. `make` runs one at a time."""
        units = self._look_up(key)  # who waits for nothing new does not wait for others' merges
        if units is None:
            with self._making:
                units = self._look_up(key)
                if units is None:
                    units = make()
                    units = self._keep(key, units) if keep else units
                    self.makes += 1
        return units

    def forget(self, *, files: bool) -> None:
        """Empty the host cache; running requests keep theirs. With `files` the system drops the
        files from memory too, and the next use reads the disk."""
        with self._lock:
            self._held.clear()
            self.nbytes = 0
        if files and self._folder is not None and self._folder.is_dir():
            os.sync()  # what is not written yet stays in memory
            with self._files:
                for file in self._folder.iterdir():
                    _advise(file, "POSIX_FADV_DONTNEED")

    def keep_only(self, checksums: Iterable[str]) -> None:
        """Delete all other adapters, every merge, and files of another base or format; running
        requests keep theirs."""
        kept, ours = set(checksums), f"-{self._layout_name}.safetensors"
        self._remove(lambda key: key not in kept, lambda name: name.removesuffix(ours) not in kept)

    def drop(self, checksums: Iterable[str]) -> None:
        """Delete these adapters and every merge; running requests keep theirs."""
        gone = set(checksums)
        self._remove(gone.__contains__, lambda name: name.rpartition("-")[0] in gone)

    def _remove(self, held: Callable[[str], bool], file: Callable[[str], bool]) -> None:
        """Remove every merge, and the adapters and files whose checksums and names are so."""
        with self._lock:
            for key in [key for key in self._held if not isinstance(key, str) or held(key)]:
                self.nbytes -= self._held.pop(key).nbytes
        if self._folder is not None and self._folder.is_dir():
            with self._files:
                for path in self._folder.iterdir():
                    if file(path.name):
                        path.unlink(missing_ok=True)

    def _file(self, checksum: str) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{checksum}-{self._layout_name}.safetensors"

    def _read(self, checksum: str) -> Units | None:
        file = self._file(checksum)
        if file is None or not file.is_file():
            return None
        try:
            # in memory when its request gets a row; what is only mapped would be read page by page,
            # by the thread that runs the model
            _advise(file, "POSIX_FADV_WILLNEED")
            with safe_open(str(file), framework="pt") as tensors:
                units = _units_of({name: tensors.get_tensor(name) for name in tensors.keys()})
        except (SafetensorError, KeyError, OSError):
            return None  # half-written by a dying machine: packed again
        self.reads += 1
        return units

    def _pack(self, checksum: str, loras: LoraSet) -> Units:
        with kernels_alone():  # requests that come meanwhile have the other cores
            units = pack_units(loras, self._layout, dtype=self._dtype)
            if self.measure is not None:
                units = replace(units, usual=self.measure(units))
        self.packs += 1
        file = self._file(checksum)
        if file is None:
            return units
        try:
            with replacing(file) as part:
                save_file(_tensors_of(units), part)
        except (OSError, SafetensorError):  # a full disk: it works without the file
            return units
        return self._read(checksum) or units


def _advise(file: Path, what: str) -> None:
    """Tell the system what will be done with a file, where it can be told."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, getattr(os, what))


def _tensors_of(units: Units) -> dict[str, torch.Tensor]:
    tensors = {f"A.{g}": A for g, A in enumerate(units.A)}
    for g, one in enumerate(units.B):
        tensors |= {f"B.{g}.{j}": B for j, B in enumerate(one)}
    return tensors | {"present": units.present, "usual": units.usual}


def _units_of(tensors: dict[str, torch.Tensor]) -> Units:
    groups = sum(name.startswith("A.") for name in tensors)
    A = tuple(tensors[f"A.{g}"] for g in range(groups))
    B = tuple(tuple(tensors[f"B.{g}.{j}"] for j in range(A[g].shape[2])) for g in range(groups))
    return Units(A=A, B=B, present=tensors["present"], usual=tensors["usual"])
