"""What is measured: an upstream of known pace, a real server before it, and a browser."""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tools.install_browser import browser as program
from tools.overhead.processes import Child, llcuda_server, synthetic_upstream
from tools.overhead.usage import Usage

#: Seconds for an answer over HTTP, and milliseconds for what a page shall show.
PATIENCE = 600.0
PAGE_PATIENCE = 120_000
#: Tokens that an upstream takes and makes together.
_CONTEXT = 4_000_000
#: What the page asks of each answer, so that words can be shaded.
CERTAINTY = {"include": ["message.output_text.logprobs"], "top_logprobs": 3}


class BenchError(Exception):
    """Something answered otherwise than it must; nothing was measured."""


@dataclass
class Rig:
    """A server with its upstream.

    Attributes:
        words: the file with what the upstream says.
    """

    upstream: Child
    server: Child
    words: Path

    @property
    def url(self) -> str:
        """Of the page."""
        host, port = self.server.address
        return f"http://{host}:{port}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the server.

        Raises:
            BenchError: it is refused.
        """
        return self._ask(self.server.address, method, path, body)

    def tokens(self) -> int:
        """How many the upstream has made."""
        made: int = self._ask(self.upstream.address, "GET", "/synthetic", None)["tokens"]
        return made

    def usage(self) -> Usage:
        """What the server has used."""
        return self.server.usage()

    @staticmethod
    def _ask(address: tuple[str, int], method: str, path: str, body: Any) -> Any:
        connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
        try:
            data = None if body is None else json.dumps(body)
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise BenchError(f"{method} {path}: {answer.status} {text.decode()[:300]}")
        return json.loads(text)

    # -- conversations ----------------------------------------------------------------------------

    def conversation(self) -> str:
        """A new conversation."""
        found: str = self.ask("POST", "/v1/conversations", {})["id"]
        return found

    def respond(self, question: str, tokens: int, **more: Any) -> dict[str, Any]:
        """A response."""
        body = {"input": question, "max_output_tokens": tokens, "store": True, **more}
        found: dict[str, Any] = self.ask("POST", "/v1/responses", body)
        return found

    def begin(self, question: str, tokens: int, **more: Any) -> tuple[str, str]:
        """An answer that runs, in a conversation of its own: the ids of both."""
        conversation = self.conversation()
        asked = {"conversation": conversation, "background": True, **more}
        return conversation, self.respond(question, tokens, **asked)["id"]

    def stop(self, response: str) -> None:
        """End an answer."""
        self.ask("POST", f"/v1/responses/{response}/cancel", {})


@contextmanager
def rig(
    text: str,
    *,
    rate: float,
    slots: int,
    command: str = str(Path(sys.executable).with_name("llcuda-server")),
    data: Path | None = None,
) -> Iterator[Rig]:
    """A server whose upstream says this text.

    Args:
        rate: tokens/s of each answer; 0: as fast as they are read.
        data: a data directory that is there already.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llcuda-page-")))
        words = folder / "words.md"
        words.write_text(text, "utf-8")
        options = ("--rate", str(rate), "--slots", str(slots), "--ctx", str(_CONTEXT))
        upstream = stack.enter_context(synthetic_upstream(*options, "--text", str(words)))
        if data is None:
            child = llcuda_server(command, upstream.address)
        else:
            url = f"http://{upstream.address[0]}:{upstream.address[1]}"
            line = [command, "--port", "0", "--upstream", url, "--data-dir", str(data)]
            child = Child("llcuda-server", [*line, "--no-analysis"])
        yield Rig(upstream, stack.enter_context(child), words)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that nobody sees."""
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def profile(
    browser: Browser, scripts: Sequence[str] = (), size: tuple[int, int] = (1280, 800)
) -> Iterator[BrowserContext]:
    """A profile with nothing in it.

    Args:
        size: of its windows.
        scripts: run in each of its pages before the page's own.
    """
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    context.set_default_timeout(PAGE_PATIENCE)
    for script in scripts:
        context.add_init_script(script)
    try:
        yield context
    finally:
        context.close()


def opened(context: BrowserContext, url: str) -> Page:
    """A new tab."""
    page = context.new_page()
    page.goto(url)
    return page
