"""Retrieval: embed an instruction and a text, and find the pool's nearest adapters.

Importing this package is light: torch, sentence-transformers and Chroma load on first use.
"""

from ramole_core.retrieval.base_expert import BaseExpert
from ramole_core.retrieval.encoder import INSTRUCTION, Encoder
from ramole_core.retrieval.index import AdapterIndex
from ramole_core.retrieval.retriever import Hit, Retriever

__all__ = ["INSTRUCTION", "AdapterIndex", "BaseExpert", "Encoder", "Hit", "Retriever"]
