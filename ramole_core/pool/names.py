"""Names of adapters, and the folders of owners' uploads."""

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable

from ramole_core.errors import AdapterRefused

MAX_NAME = 64
MAX_WANTED = 1024
"""Characters that are read: Unicode's normal form of n accents takes n * n steps."""
EVERYONE = "everyone"
"""Folder of uploads without an owner; an owner's folder is hexadecimal, so they never collide."""


def clean_name(wanted: str) -> str:
    """`wanted` in `[a-z0-9_-]`, at most 64 characters; raises AdapterRefused when nothing is left
    or when it begins with `_`, which is kept for the router and the retriever."""
    plain = unicodedata.normalize("NFKD", wanted[:MAX_WANTED])
    plain = plain.encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-")[:MAX_NAME].strip("-")
    if not name.strip("_-"):
        raise AdapterRefused(
            f"The name {wanted[:80]!r} has no letter or digit that can be kept (a-z, 0-9); give "
            "the adapter another name."
        )
    if name.startswith("_"):
        raise AdapterRefused(
            f"The name {name!r} begins with an underscore, which is kept for RAMoLE's own folders; "
            "begin it with a letter or digit."
        )
    return name


def free_name(name: str, taken: Iterable[str]) -> str:
    """`name-2`, `name-3`, ...: the first that is not taken."""
    taken = set(taken)
    number = 2
    while (other := f"{name[: MAX_NAME - 6]}-{number}") in taken:
        number += 1
    return other


def near_names(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'a', 'b'?`, for the end of an error's sentence."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(map(repr, near)) + "?"
    if not known:
        return "the pool is empty."
    return "there are " + ", ".join(map(repr, known[:8])) + (", ..." if len(known) > 8 else ".")


def owner_folder(owner: str | None) -> str:
    """A safe folder name for any owner string; raises AdapterRefused for one that cannot be."""
    if owner is None:
        return EVERYONE
    if not owner or len(owner) > 256 or owner == "pool":
        raise AdapterRefused(
            f"The owner {owner[:80]!r} cannot be used: it must be 1 to 256 characters and not "
            "'pool'; leave it out to add for everyone."
        )
    return hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:32]
