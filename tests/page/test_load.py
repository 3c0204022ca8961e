"""The load campaign in short, on a random model: busy is all that anybody is told."""

from tests.campaigns.load import run, tiny_system
from ui.metrics import COUNTERS, GAUGES

SEVERAL = {"engines", "moves"}
"""Of a page of several engines alone."""


def test_a_crowd_changes_nobodys_answer(tmp_path, tiny_llama):
    found = run(tmp_path, tiny_system(tmp_path, tiny_llama), clients=32, seconds=3, seed=0)
    assert not any(found["must_be_0"].values()), found["failures"]
    happened = found["happened"]
    assert happened["answers"] > 20 and happened["stopped"] and happened["batch"], found
    assert happened["uploads"] and happened["upload_and_ask"], found
    assert set(found["memory_mib"]) >= {"quarter_1", "quarter_4"}
    shown = found["shown"]
    wanted = [f"ramole_{name}" for key, (name, _) in GAUGES.items() if key not in SEVERAL]
    wanted += [f"ramole_{name}_total" for key, (name, _) in COUNTERS.items() if key not in SEVERAL]
    assert [name for name in wanted if name not in shown] == []
