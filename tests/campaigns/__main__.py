"""The command `python -m tests.campaigns NAME`; ends with 1 where a promise was broken."""

import argparse
import importlib
import shlex
import sys
import tempfile
import time
from pathlib import Path

from tests.campaigns.figures import TOLD, machine_words, write_section

COUNTS = {"uploads": 10_000, "disk": 100, "siege": 55, "requests": 10_000}
"""Each campaign's file, and how many mishaps its long form has. A siege's are the seconds of each
attack, ten minutes in all."""


def main(said: list[str] | None = None) -> int:
    """The command; `said`: its words, unsaid those of this process."""
    words = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    words.add_argument("name", choices=COUNTS)
    words.add_argument("--count", type=int, help="mishaps; unsaid, as many as the long form has")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--minutes", type=float, default=25, help="begin none after so many")
    words.add_argument(
        "--page-alone", action="store_true", help="uploads, siege: without the real base"
    )
    words.add_argument("--kinds", help="of these alone, such as add,remove")
    words.add_argument("--out", type=Path, help="the JSON file that takes the figures")
    asked = words.parse_args(said)
    count = asked.count or COUNTS[asked.name]
    campaign = importlib.import_module(f"tests.campaigns.{asked.name}")
    how = {"real": False} if asked.page_alone else {}
    how |= {"kinds": asked.kinds.split(",")} if asked.kinds else {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        figures = campaign.run(
            Path(folder), count=count, seed=asked.seed, end=began + 60 * asked.minutes, **how
        )
    typed = ["python", "-m", "tests.campaigns", asked.name]
    typed += ["--page-alone"] if asked.page_alone else []
    typed += ["--kinds", asked.kinds] if asked.kinds else []
    done = figures.counts["mishaps"]
    section = {
        "command": shlex.join([*typed, "--count", str(count), "--seed", str(asked.seed)]),
        "seed": asked.seed,
        "count": done,
        "seconds": round(time.monotonic() - began),
        **({} if done == count else {"stopped_after_minutes": asked.minutes}),
        **figures.record(),
        **machine_words(),
    }
    for name, value in section.items():
        print(f"{name}: {value}")
    for failure in figures.failures[:TOLD]:
        print(failure, file=sys.stderr)
    if asked.out:
        own = {"requests": f"requests_{asked.kinds}"}  # a section of their own
        own |= {"siege": "siege_passwords"} if "passwords" in (asked.kinds or "").split(",") else {}
        named = own.get(asked.name) if asked.kinds else None
        write_section(asked.out, named or asked.name, section)
    return 0 if figures.sound else 1


if __name__ == "__main__":
    sys.exit(main())
