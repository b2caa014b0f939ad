"""What tests share: the installed command in a clean environment, and the published numbers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.browsing import ARGUMENTS
from tests.helpers.forking import HANGS, can_fork, clean_environment
from tests.helpers.forking import run as forked
from tests.helpers.processes import COMMAND, COMPUTE, Run, Write

# Where bytecode may not be kept, each of hundreds of processes would compile all of our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Threads that wait for one another leave the cores to those that work: there are more processes than cores here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
with pytest.MonkeyPatch.context() as _patch:  # numpy's always spin; it reads this once
    _patch.setenv("OPENBLAS_NUM_THREADS", "1")
    import numpy as np  # noqa: F401

from twolayer import formatting

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# How many examples: as many as a test asks for, and the same ones each time, so that a failure is of the change at
# hand; or, in `make test-deep`, ten times as many, other ones each time. No example has a deadline.
COMMON: Any = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=100, derandomize=True, **COMMON)
settings.register_profile("deep", max_examples=1000, **COMMON)
settings.load_profile("ci")

__all__ = ["clean_environment", "forked"]


@pytest.fixture(autouse=True, scope="session")
def _heed_signals() -> None:
    """Children inherit ignored signals (`make test &` in a script, `nohup make test`), and would never stop."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("TWOLAYER_")]:
        monkeypatch.delenv(key)
    # A command that ran in this process has made all messages speak of options.
    monkeypatch.setitem(formatting._speech, "options", False)


@pytest.fixture(autouse=True)
def _fresh_consoles() -> Iterator[None]:
    from twolayer.cli import terminal

    terminal.out.cache_clear()
    terminal.err.cache_clear()
    yield
    terminal.out.cache_clear()
    terminal.err.cache_clear()


@pytest.fixture
def twolayer(tmp_path: Path) -> Run:
    """Run the command in a process of its own, in an empty folder: a forked one (see forking.py) where that can be."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        if can_fork(environment):
            bare = not COMPUTE.intersection(arguments)
            return forked(arguments, tmp_path, clean_environment(**environment), bare=bare)
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env=clean_environment(**environment),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=HANGS,
            check=False,
        )

    return run


@pytest.fixture
def config_file(tmp_path: Path) -> Write:
    """Write a config; its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "my.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


# --- `make test-fast`: without the tests that took long the last time they ran

DURATIONS = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", type=float, metavar="SECONDS", help="only tests that took less when they last ran")


def _durations(config: pytest.Config) -> dict[str, float]:
    """The seconds of each test when it last ran here, as far as that is known."""
    cache = getattr(config, "cache", None)  # which pytest may be told to do without
    durations: dict[str, float] = cache.get("twolayer/durations", {}) if cache else {}
    return durations


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DURATIONS] = {}
    config.pluginmanager.register(_Recorder(config))


class _Recorder:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.config.stash[DURATIONS][report.nodeid] = report.duration

    def pytest_sessionfinish(self) -> None:
        cache = getattr(self.config, "cache", None)
        if cache and not hasattr(self.config, "workerinput"):  # the processes of xdist only report
            cache.set("twolayer/durations", _durations(self.config) | self.config.stash[DURATIONS])


@pytest.hookimpl(tryfirst=True)  # before the cases that are deep are deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _sample(items)
    most, took = config.getoption("--fast"), _durations(config)
    if most is not None:
        slow = [item for item in items if took.get(item.nodeid, 0) >= most]
        items[:] = [item for item in items if took.get(item.nodeid, 0) < most]
        config.hook.pytest_deselected(items=slow)


def _sample(items: list[pytest.Item]) -> None:
    """Of the cases of a test that is marked `sample(n)`, leave n to `make test`, evenly spaced; the others are deep."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sample") and not item.get_closest_marker("deep"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for some in cases.values():
        mark = some[0].get_closest_marker("sample")
        assert mark is not None
        count = mark.args[0]
        kept = {i * len(some) // count for i in range(count)}
        for i, item in enumerate(some):
            if i not in kept:
                item.add_marker(pytest.mark.deep)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The Chromium that is there; the tests install none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
