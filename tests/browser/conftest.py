"""Tests in Chromium: one for all tests, with a profile of its own in each.

They ask, read and click as a person does, and so find things as one: by what they are and what is
written on them. A profile that is left says what went wrong in it unseen, such as an error in its
console, and fails the test. No test waits for a time: an answer stops where its upstream, a
Storyteller, was told to hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.browser.modules import Run, modules
from tests.support.browser.profiles import Profiles, chromium
from tests.support.processes import RunningServer, running_server
from tests.support.upstream.storyteller import Storyteller, storyteller


@pytest.hookimpl(tryfirst=True)  # before -m is heeded
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here is for make test-browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def js(browser: Browser) -> Iterator[Run]:
    """Runs JavaScript with the chat's modules, without a server; see support.browser.modules."""
    with modules(browser) as run:
        yield run


@pytest.fixture
def profiles(browser: Browser) -> Iterator[Profiles]:
    """Those of a test, which fails at its end for what went wrong in one of them."""
    found = Profiles(browser)
    try:
        yield found
        found.check()
    finally:
        found.close()


@pytest.fixture
def teller() -> Iterator[Storyteller]:
    """An upstream that answers what the test says."""
    with storyteller() as found:
        yield found


@pytest.fixture
def server(teller: Storyteller, tmp_path: Path) -> Iterator[RunningServer]:
    """A server in front of `teller`, with nothing in it."""
    with running_server("--upstream", teller.url, "--data-dir", str(tmp_path / "data")) as found:
        yield found
