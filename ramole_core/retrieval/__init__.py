"""Retrieval: embed an instruction and a text, and find the pool's nearest adapters.

Importing this package is light: torch, sentence-transformers and Chroma load on first use.
"""

from ramole_core.retrieval.base_expert import BaseExpert
from ramole_core.retrieval.calibration import Calibration
from ramole_core.retrieval.collection import IndexBroken
from ramole_core.retrieval.encoder import INSTRUCTION, Encoder
from ramole_core.retrieval.index import AdapterIndex, IndexEntry
from ramole_core.retrieval.kept_index import Report
from ramole_core.retrieval.retriever import Hit, Retriever

__all__ = [
    "INSTRUCTION",
    "AdapterIndex",
    "BaseExpert",
    "Calibration",
    "Encoder",
    "IndexEntry",
    "Hit",
    "IndexBroken",
    "Report",
    "Retriever",
]
