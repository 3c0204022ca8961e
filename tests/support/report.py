"""What the suite says at its end, and the second try of a browser test that failed.

By folder: tests, their seconds, and how many engines, servers, browsers, clusters and processes
they started. With `--second-try`, a browser test that failed runs once more, alone, after all
others. If it passes then, it counts as flaky: it is printed with its traceback, and more than
`MAX_FLAKY` of them are a failure of the run. Nothing outside `tests/browser` is repeated.
"""

import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from tests.support import started
from tests.support.started import KINDS, STARTED, Place

MAX_FLAKY = 3
BROWSER = "tests/browser/"
PLURAL = {kind: f"{kind}s" for kind in KINDS} | {"process": "processes"}


def folder_of(nodeid: str) -> str:
    """The folder of tests/ that a test is in."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 else "-"


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "run a browser test that failed once more, alone, after all others"
    parser.addoption("--second-try", action="store_true", help=words)


def pytest_configure(config: pytest.Config) -> None:
    started.count_processes()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report(config), "ramole-report")


def pytest_runtest_logstart(nodeid: str) -> None:
    Place.folder = folder_of(nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands its counts to the process that gathers them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["started"] = [[*key, n] for key, n in STARTED.items()]


class Report:
    """Of the whole run, in the process that prints."""

    def __init__(self, config: pytest.Config):
        self._config = config
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tests: Counter[str] = Counter()
        self._failed: list[str] = []
        self._flaky: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = folder_of(report.nodeid)
        self._seconds[folder] += report.duration
        self._tests[folder] += report.when == "call"
        if report.failed and report.nodeid not in self._failed:
            self._failed.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        for folder, kind, count in getattr(node, "workeroutput", {}).get("started", ()):
            STARTED[folder, kind] += count

    @pytest.hookimpl(trylast=True)  # the workers have ended, and their servers with them
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        again = [one for one in self._failed if one.startswith(BROWSER)]
        if not again or not self._config.getoption("--second-try") or session.shouldfail:
            return
        if len(again) > 2 * MAX_FLAKY:  # no flakes any more, and each may take minutes
            return
        self._flaky = [one for one in again if _passes(one)]
        others = len(self._failed) - len(self._flaky)
        if not others and len(self._flaky) <= MAX_FLAKY and session.exitstatus == 1:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        if self._flaky:
            terminalreporter.section("flaky: failed among others, passed alone")
            for nodeid in self._flaky:
                write(nodeid)
            failed = terminalreporter.stats.get("failed", [])
            broken = terminalreporter.stats.get("error", [])
            for name, reports in (("failed", failed), ("error", broken)):
                flaky = [one for one in reports if one.nodeid in self._flaky]
                left = [one for one in reports if one not in flaky]
                terminalreporter.stats[name] = left
                terminalreporter.stats.setdefault("flaky", []).extend(flaky)
            if len(self._flaky) > MAX_FLAKY:
                write(f"{len(self._flaky)} tests are flaky; more than {MAX_FLAKY} are a failure.")
        terminalreporter.section("by folder")
        kinds = "".join(f"{PLURAL[kind]:>11}" for kind in KINDS)
        write(f"{'':10}{'tests':>7}{'seconds':>9}{kinds}")
        for folder in sorted(self._tests):
            counts = "".join(f"{STARTED[folder, kind]:11}" for kind in KINDS)
            write(f"{folder:10}{self._tests[folder]:7}{self._seconds[folder]:9.0f}{counts}")


def _passes(nodeid: str) -> bool:
    """Whether a test passes alone."""
    print(f"\nonce more, alone: {nodeid}", flush=True)
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", nodeid]
    return subprocess.run(words).returncode == 0
