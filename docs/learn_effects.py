"""The log probabilities that step 6 of the tab Learn shows: a recorded answer, read again with
every choice of its adapters.

`python docs/learn_effects.py` needs the base model, and writes ui/learn/recorded/subsets.json; run
it anew after `python -m ui.ask.record`.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
OUT = REPOSITORY / "ui" / "learn" / "recorded" / "subsets.json"
DIGITS = 4


def record() -> dict[str, object]:
    """Everything that is kept, as plain data."""
    sys.path.insert(0, str(REPOSITORY))
    from ramole_core import Ramole, load_settings
    from ramole_core.engine.effect_reading import EffectReading
    from ui.charts.palette import letter_of
    from ui.learn.kept import gated

    run, found = gated(), {}
    trace, complete = run.answer.trace, EffectReading.complete
    assert trace is not None
    ids = trace.token_ids[trace.prompt_length :]

    def kept(reading: EffectReading, answer, *, seconds: float):
        found.update(reading.values)
        return complete(reading, answer, seconds=seconds)

    EffectReading.complete = kept
    request = replace(run.request, prefix_ids=ids[:-1], max_new_tokens=len(ids), effects=True)
    with Ramole(load_settings()) as ramole:
        (answer,) = ramole.generate([request])
    assert answer.adapters == run.experts, "the run was recorded with other adapters"
    values = {
        "".join(letter_of(e) for e in sorted(subset)): [round(float(one), DIGITS) for one in v]
        for subset, v in found.items()
    }
    return {"command": "python docs/learn_effects.py", "adapters": run.experts, "values": values}


if __name__ == "__main__":
    OUT.write_text(json.dumps(record()) + "\n", "utf-8")
