"""Whether the graph on disk points only at what is there (hnswlib's files, as Chroma writes them).

A link that points past the end is followed without a look: what lies there may be harmless in one
process and end the next one. So links are looked at as numbers, before anybody follows them.

    header.bin       version, sizes and counts, the element at which a search enters
    data_level0.bin  by element: how many links, the links, the vector, the label
    link_lists.bin   by element: bytes of its upper levels, and of each how many links, and these
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt32

VERSION = 1
HEADER = struct.Struct("<i6QiI3QdQ")
"""Of header.bin, in the order of Header."""
COUNT = 0xFFFF
"""Bits of a list's first word that are its length."""


class Header(NamedTuple):
    """header.bin, under hnswlib's names."""

    version: int
    offset_level0: int
    max_elements: int
    elements: int
    element_bytes: int
    label_offset: int
    data_offset: int
    max_level: int
    enters: int
    most_links: int
    most_links_level0: int
    links: int
    mult: float
    ef_construction: int


def wrong_in_graph(folder: Path) -> str:
    """What is wrong in the graph of one segment's folder; '' where nothing is, where there is none,
    or where it is of another version."""
    try:
        header = Header(*HEADER.unpack((folder / "header.bin").read_bytes()))
    except (OSError, struct.error):
        return ""  # there is none yet, or Chroma says so itself
    if header.version != VERSION or not header.elements:
        return ""
    try:
        return _wrong(header, folder)
    except (OSError, ValueError, struct.error):
        return "the files of its graph do not fit each other"


def _wrong(header: Header, folder: Path) -> str:
    n, level0 = header.elements, np.fromfile(folder / "data_level0.bin", np.uint8)
    if not (n <= header.max_elements and header.enters < n and 0 <= header.max_level < 64):
        return "its graph is entered where nothing is"
    rows = level0.reshape(n, header.element_bytes)
    links = header.most_links_level0
    if header.data_offset != 4 * (1 + links) or header.label_offset < header.data_offset:
        return "its graph has other sizes than it says"
    if not _in_range(_words(rows[:, : header.data_offset]), links, n):
        return "a link of its graph points at nothing"
    return _wrong_above(header, (folder / "link_lists.bin").read_bytes())


def _wrong_above(header: Header, lists: bytes) -> str:
    """The same for the upper levels, which few elements have."""
    n, step = header.elements, 4 * (1 + header.most_links)
    levels, upper, at = np.zeros(n, np.int64), [], 0
    for element in range(n):
        (size,) = struct.unpack_from("<I", lists, at)
        at += 4
        if size % step or at + size > len(lists):
            return "the upper levels of its graph are cut"
        levels[element] = size // step
        for level in range(size // step):
            upper.append((level, lists[at : at + step]))
            at += step
    if at != len(lists) or levels.max() > levels[header.enters] or levels.max() != header.max_level:
        return "the upper levels of its graph are others than it says"
    for level, part in upper:
        words = np.frombuffer(part, np.uint32)[None]
        if not _in_range(words, header.most_links, n):
            return "a link of its graph points at nothing"
        if (levels[words[0, 1 : 1 + (words[0, 0] & COUNT)]] <= level).any():
            return "a link of its graph points at a level that is not there"
    return ""


def _in_range(words: UInt32[np.ndarray, "r w"], most: int, count: int) -> bool:
    """Whether no row's list is longer than it may be, or points at elements that are not there."""
    lengths = words[:, 0] & COUNT
    if (lengths > most).any():
        return False
    used = np.arange(most)[None] < lengths[:, None]
    return bool((words[:, 1:][used] < count).all())


def _words(rows: UInt8[np.ndarray, "r b"]) -> UInt32[np.ndarray, "r w"]:
    return np.ascontiguousarray(rows).view(np.uint32)
