"""The page at one server of a cluster, while the one that runs the answer is killed for good."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import expect

from tests.support.browser.chat import asks
from tests.support.browser.profiles import Profiles
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.storage.postgres import Postgres
from tests.support.upstream.storyteller import Hold, Storyteller, words


def _get(server: RunningServer, path: str) -> Any:
    return httpx.get(f"http://{server.address}{path}", timeout=PATIENCE).json()


def test_an_answer_goes_on_in_the_page_when_the_server_that_ran_it_is_killed(
    profiles: Profiles, teller: Storyteller, postgres: Postgres, tmp_path: Path
) -> None:
    hold = Hold()
    teller.tell("Tell me a story", *words("The server was killed,"), hold, *words(" and lives on."))
    shared = ("--store", postgres.new_database(), "--upstream", teller.url)
    with ExitStack() as stack:

        def server(name: str) -> RunningServer:
            options = (*shared, "--name", name, "--data-dir", str(tmp_path / name))
            return stack.enter_context(running_server(*options))

        def has_it() -> bool:
            found = _get(one, "/v1/status")["cluster"]
            return [claim["server"] for claim in found["upstreams"]] == [found["number"]]

        one = server("one")
        wait_until(has_it, "the upstream is its own")
        other = server("other")
        chat = asks(profiles.new(other).open(), "Tell me a story")
        chat.sees("was killed,")
        running = _get(one, "/v1/status")["upstreams"]
        assert [upstream["busy"] for upstream in running] == [1]
        one.stop(signal.SIGKILL)
        shutil.rmtree(tmp_path / "one")
        expect(chat.answer).to_have_attribute("aria-busy", "true")
        hold.set()
        chat.sees("The server was killed, and lives on.")
        chat.sees_the_end()
        found = _get(other, "/v1/status")["cluster"]
        assert found["taken_over"] == {"servers": 1, "generations": 1}
        html = chat.answer.locator(".blocks").inner_html()
        chat.page.reload()
        chat.sees_the_end()
        assert chat.answer.locator(".blocks").inner_html() == html
