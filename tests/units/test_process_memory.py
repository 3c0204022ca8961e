"""Threads that take turns do not hold the most that each of them ever held."""

import gc
import sys

import pytest

from ramole_core import keep_few_heaps, postponed_collection
from ramole_core.process_memory import VARIABLE
from tests.support.workers import python

CODE = """
import ctypes, sys, threading
from ramole_core import keep_few_heaps
if sys.argv[1] == "few":
    assert keep_few_heaps()
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
free.argtypes = [ctypes.c_void_p]
barrier, turn = threading.Barrier(24), threading.Lock()

def work():
    barrier.wait()
    with turn:
        held = [malloc(60_000) for _ in range(200)]
        for place in held:
            ctypes.memset(place, 1, 60_000)
        pin = malloc(1000)
        for place in held:
            free(place)
    barrier.wait()

threads = [threading.Thread(target=work) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmRSS")))
"""


def resident(how: str, **said: str) -> int:
    """KiB after 24 threads have each held 12 MB, one after another."""
    done = python("-c", CODE, how, **said)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Heaps are glibc's.")
def test_what_a_thread_gave_back_is_there_for_the_next():
    many, few, said = resident("many"), resident("few"), resident("many", **VARIABLE)
    assert many - max(few, said) > 50_000, (many, few, said)


def test_garbage_is_collected_again_when_the_last_load_ends():
    class Cycle:
        def __init__(self):
            self.own = self

    def left() -> int:
        return sum(type(one) is Cycle for one in gc.get_objects())

    assert gc.isenabled()
    one, other = postponed_collection(), postponed_collection()
    one.__enter__()
    other.__enter__()
    for _ in range(50_000):
        Cycle()
    assert left() == 50_000
    one.__exit__(None, None, None)
    assert not gc.isenabled(), "another is not over yet"
    other.__exit__(None, None, None)
    for _ in range(50_000):
        Cycle()
    assert gc.isenabled() and left() < 50_000


def test_elsewhere_nothing_is_asked(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not keep_few_heaps()
