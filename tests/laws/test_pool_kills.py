"""A kill -9 at every step on disk leaves the old state or the new one, and no orphan."""

import pytest

from tests.support.adapter_files import write_adapter
from tests.support.workers import python

SCRIPT = '''
import os, signal, sys
from pathlib import Path
from ramole_core.pool import Pool
from tests.support.adapter_files import SHAPES, tree_of

root, change = Path(sys.argv[1]), sys.argv[2]
data = root / "data"
arguments = dict(adapters_dir=root / "samples", data_dir=data, shapes=lambda: SHAPES)
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree")
CHANGES = {
    "add": lambda pool: pool.add(root / "new", name="new", examples=["a", "b"]),
    "remove": lambda pool: pool.remove("old"),
    "set_examples": lambda pool: pool.set_examples("old", ["y", "z"]),
}


def state(tree):
    """Without the manifest, which holds the time of day."""
    return {path: mark for path, mark in tree.items() if "manifest.json" not in path}


def in_child(work):
    """The status of a forked child that does `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(3)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def reset():
    with Pool(**arguments) as pool:
        for name in [card.name for card in pool.all_cards()]:
            pool.remove(name)
        pool.add(root / "old", name="old", examples=["x"])


def kill_at(last):
    """Does the change and dies at its event number `last` in the data folder."""
    seen = 0

    def count(event, details):
        nonlocal seen
        if armed and event in EVENTS and str(data) in str(details):
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

    armed = False
    pool = Pool(**arguments)
    sys.addaudithook(count)
    armed = True
    CHANGES[change](pool)
    armed = False


reset()
old = state(tree_of(data))
assert in_child(lambda: kill_at(0)) == 0
new = state(tree_of(data))
assert new != old, "the change changes nothing"
outcomes = {"old": 0, "new": 0}
killed = 0
while True:
    reset()
    assert state(tree_of(data)) == old
    status = in_child(lambda: kill_at(killed + 1))
    if status == 0:
        break
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    killed += 1
    with Pool(**arguments) as pool:
        assert pool.problems == [], pool.problems
        names = sorted(card.name for card in pool.cards())
    now = state(tree_of(data))
    assert now in (old, new), (killed, now, old, new)
    assert names == sorted({Path(p).parts[2] for p in now if len(Path(p).parts) > 3}), names
    outcomes["old" if now == old else "new"] += 1
print(killed, outcomes["old"], outcomes["new"])
'''


@pytest.mark.parametrize("change", ["add", "remove", "set_examples"])
def test_killed_at_every_step_on_disk(tmp_path, change):
    (tmp_path / "samples").mkdir()
    write_adapter(tmp_path / "old", seed=1)
    write_adapter(tmp_path / "new", seed=2)
    done = python("-c", SCRIPT, str(tmp_path), change)
    assert done.returncode == 0, done.stderr[-2000:]
    killed, old, new = map(int, done.stdout.split())
    fewest = 6 if change == "remove" else 8  # removing makes no folder, which a full disk may lack
    assert killed >= fewest and old > 0 and new > 0, done.stdout
