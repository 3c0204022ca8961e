"""The machine that a number was measured on, and how much memory this process takes of it."""

import ctypes
import gc
import os
import platform
import subprocess
from pathlib import Path

import torch

from ramole_core.settings import REPOSITORY
from ramole_core.training.card import versions

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile")
"""CPU features that matrix products use."""


def describe_machine() -> dict[str, object]:
    """What a measured time depends on; null where the system does not say."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
    }


def machine_line() -> str:
    """Processor, cores and threads in one line."""
    return f"{_cpu()[0] or platform.machine()}, {cores()} cores, {torch.get_num_threads()} threads"


def cores() -> int | None:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def commit() -> str | None:
    """The commit that is checked out, `+` behind it where files differ; None outside git."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "ramole_core", "lab") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def anonymous_mib() -> float | None:
    """MiB of this process's memory that no file backs (heap, tensors), after giving back what is
    free; None where the system has no `/proc`."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return None
    pages = next(line for line in text.splitlines() if line.startswith("Anonymous:"))
    return round(int(pages.split()[1]) / 1024, 1)


def _cpu() -> tuple[str, frozenset[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor(), frozenset()
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    found = {name.strip(): value.strip() for name, value in found.items()}
    return found.get("model name", platform.processor()), frozenset(found.get("flags", "").split())


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
