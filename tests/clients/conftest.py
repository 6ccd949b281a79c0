"""What the tests of foreign clients share: servers, and a way to run the clients' programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.steady import held_upstream
from tests.support.upstream.scripted_chat import TEMPLATE, ScriptedChat, scripted_chat, text
from tools import install_clients

PROGRAMS = Path(__file__).parent / "programs"
#: Tokens after which the upstream of `held` holds an answer, for ever.
HELD = 8
#: What programs get that shall reach nothing but this machine: a proxy that is not there.
OFFLINE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    "NO_PROXY": "127.0.0.1",
}


@dataclass
class Served:
    """A server and, where it is scripted or held, its upstream.

    Attributes:
        url: the base URL for clients.
        script: what a scripted upstream answers.
        upstream: the URL of one that holds its answers.
    """

    server: RunningServer
    script: ScriptedChat = field(default_factory=ScriptedChat)
    upstream: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.server.address}/v1"

    def generations(self) -> list[dict[str, Any]]:
        """The newest first."""
        with urllib.request.urlopen(f"{self.url}/generations", timeout=PATIENCE) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]
        return found

    def cancelled(self) -> int:
        """How many requests were; those that nobody is to see again are in no list."""
        address = f"http://{self.server.address}/metrics"
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            page = answer.read().decode()
        found = re.findall(r'^llcuda_requests_total\{.*state="cancelled".*\} (\S+)$', page, re.M)
        return int(sum(float(one) for one in found))

    def slots(self) -> int:
        """How many are busy at the upstream."""
        with urllib.request.urlopen(f"{self.upstream}/synthetic", timeout=PATIENCE) as answer:
            return int(json.load(answer)["active"])


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """A server with the built-in model."""
    with running_server() as server:
        yield Served(server)


@pytest.fixture(scope="session")
def _scripted() -> Iterator[Served]:
    thinking = TEMPLATE + "{% if enable_thinking %}<think>{% endif %}"
    with (
        scripted_chat(thinking) as script,
        running_server("--upstream", script.url) as server,
    ):
        yield Served(server, script)


@pytest.fixture
def scripted(_scripted: Served) -> Served:
    """A server whose upstream answers what the test says."""
    _scripted.script.asked.clear()
    return _scripted


@pytest.fixture(scope="session")
def held() -> Iterator[Served]:
    """A server whose upstream begins each answer and never ends it."""
    with held_upstream(HELD, "--ctx", "100000") as url, running_server("--upstream", url) as server:
        yield Served(server, upstream=url)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home folder of the clients: empty."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@dataclass
class Client:
    """A foreign client: its interpreter, and what its programs get of the environment."""

    name: str
    interpreter: Path
    environment: dict[str, str]

    def command(self, *arguments: str, text: str = "", **extra: Any) -> str:
        """Run something in its environment; what it prints on stdout. It must succeed."""
        done = subprocess.run(
            [str(self.interpreter), *arguments],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
            **extra,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    @contextmanager
    def running(self, *arguments: str, **extra: Any) -> Iterator[subprocess.Popen[str]]:
        """Run something in its environment, and kill it and its children at the end."""
        with subprocess.Popen(
            [str(self.interpreter), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **extra,
        ) as found:
            try:
                yield found
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(found.pid, signal.SIGKILL)

    def run(self, url: str, *scenarios: str) -> dict[str, Any]:
        """Scenarios of its program, in one go, since its imports are slow: what each has seen."""
        (program,) = PROGRAMS.glob(f"with_{self.name.replace('-', '_')}.*")
        if program.suffix == ".mjs":  # which finds its packages beside itself
            program = Path(shutil.copy(program, install_clients.FOLDER / "node"))
        lines = self.command(str(program), url, *scenarios).splitlines()
        found: dict[str, Any] = json.loads(lines[-1])
        return found


@pytest.fixture
def client_of(home: Path) -> Callable[[str], Client]:
    """Makes a client by its name.

    One that cannot be installed fails the test; a program that there is not for every machine
    skips it, and pytest's summary says why.
    """

    def make(name: str, where: str | None = None) -> Client:
        where = where or name
        reason = install_clients.failure(where)
        program = where in install_clients.PROGRAMS
        if reason is not None and program:
            pytest.skip(f"{name} was not tried: {reason.strip().splitlines()[-1]}")
        if reason is not None:
            pytest.fail(f"{name} cannot be tried: {reason}", pytrace=False)
        plain = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR", "LC_ALL")}
        # Nothing may ask the network for what it could as well do without.
        quiet = {"HOME": str(home), "OPENAI_API_KEY": "any", "HF_HUB_OFFLINE": "1"}
        if program:
            return Client(name, install_clients.program(where), {**plain, **quiet, **OFFLINE})
        interpreter = install_clients.node() if where == "node" else install_clients.python(where)
        return Client(name, interpreter, {**plain, **quiet, "NO_COLOR": "1"})

    return make


def documented(section: str, language: str) -> str:
    """All code of one language in a section of docs/clients.md: what is tried is what it says."""
    page = (install_clients.ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    _, _, rest = page.partition(f"\n### {section}\n")
    text, _, _ = rest.partition("\n##")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found, f"docs/clients.md says nothing of {section}"
    return "\n".join(found)


def frees_its_slot(held: Served, leave: Callable[[], object]) -> None:
    """A client that leaves in the middle of an answer frees the slot, and nothing runs on."""
    before = len(held.generations())
    leave()
    assert len(held.generations()) == before + 1
    # An SDK announces that it may try again, and for 10 s it could have the answer back.
    wait_until(lambda: held.generations()[0]["state"] == "cancelled", "the answer is cancelled")
    wait_until(lambda: held.slots() == 0, "the slot is free")


def leaves_in_the_middle(
    scripted: Served, start: Callable[[], AbstractContextManager[object]]
) -> None:
    """A program that is killed in the middle of an answer ends the answer."""
    scripted.script.answers = [([text("Once "), text("upon a time.")], "stop")]
    scripted.script.gate.clear()
    before = scripted.cancelled()
    try:
        with start():
            wait_until(lambda: bool(scripted.script.asked), "it is answered", 2 * PATIENCE)
        wait_until(lambda: scripted.cancelled() == before + 1, "the answer is cancelled")
    finally:
        scripted.script.gate.set()


@contextmanager
def killed_in_the_middle(data: Path) -> Iterator[tuple[Served, Callable[[], None]]]:
    """A server with a scripted upstream, and what kills it in the middle of the next answer.

    It is there again at the same place, with the same data, until the block ends.
    """
    with ExitStack() as stack:
        script = stack.enter_context(scripted_chat())
        settings = {"LLCUDA_DATA_DIR": str(data)}
        options = ("--upstream", script.url)
        server = stack.enter_context(running_server(*options, **settings))
        script.answers = [([text("The marker "), text("is 4711.")], "stop")]
        script.gate.clear()

        def kill() -> None:
            wait_until(lambda: bool(script.asked), "it is answered", 2 * PATIENCE)
            server.process.kill()
            server.process.wait()
            script.gate.set()
            place = ("--port", str(server.port))
            stack.enter_context(running_server(*options, *place, **settings))

        yield Served(server, script), kill
