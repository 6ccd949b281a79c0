"""What `make demo` runs: a question to a built-in model, and an answer that survives kill -9."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from types import FrameType
from typing import NoReturn

from llcuda_net.util.terminal import echo

QUESTION = "What is llcuda?"
#: Seconds for the server to be ready: loading takes one, a first start on a slow disk more.
PATIENCE = 120.0
#: Tokens of the answer that are shown before the server is killed.
KILL_AFTER = 10
#: Candidates asked for beside each token while the server is to be killed: the model is so small
#: that its answer would be whole before anybody could kill anything.
CANDIDATES = 1000


def main() -> int:
    """Run the demonstration; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="llcuda-demo-") as folder:
        # Not where the user keeps results of their own.
        demo = Demo({**plain_environment(), "LLCUDA_DATA_DIR": folder})
        try:
            demo.ask()
            demo.survive()
            demo.stop()
        except KeyboardInterrupt:
            return 130
        finally:
            demo.end()
    say("done: a real model's answer came over both protocols, outlived its server, and was kept")
    return 0


class Demo:
    """A server, and what is done with it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._bin = Path(sys.executable).parent
        self._server: subprocess.Popen[str] | None = None
        self._address = ""

    def ask(self) -> None:
        """Start a server, ask, and show what was kept."""
        self._start("0")
        where = ("--server", self._address)
        self._run("llcuda-client", *where, "--stats", "--temperature", "0", QUESTION)
        self._run("llcuda", "results", "list")
        self._ask_over_http()

    def _ask_over_http(self) -> None:
        """The same port is the base URL of OpenAI's clients."""
        url = f"http://{self._address}/v1"
        body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
        written = json.dumps(body)
        say(f"\nFor clients of OpenAI's API: base_url={url}")
        say(f"$ curl {url}/chat/completions -H 'Content-Type: application/json' \\")
        say(f"    -d '{written}' | jq -r .choices[0].message.content")
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/chat/completions", written.encode(), headers)
        without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with without_proxy.open(request, timeout=PATIENCE) as answer:
            say(json.load(answer)["choices"][0]["message"]["content"])

    def survive(self) -> None:
        """Kill the server in the middle of an answer, and read on."""
        import llcuda_net.sync  # takes a moment, which a signal may want

        say(
            f"\nThe same question from Python, and after {KILL_AFTER} tokens the server is killed. "
            f"({CANDIDATES:,}\ncandidates are asked for beside each token, which slows the tiny "
            "model down enough.)\n"
        )
        notes: list[str] = []
        with llcuda_net.sync.connect(self._address, on_note=notes.append) as client:
            with client.generate(QUESTION, temperature=0, n_probs=CANDIDATES) as stream:
                for number, piece in enumerate(stream, 1):
                    echo(piece, end="", flush=True)
                    if number == KILL_AFTER:
                        self._kill()
                        self._start(self._address.rpartition(":")[2])
                        echo("…", end="", flush=True)
            result = stream.result
            told = [note for note in notes if note.startswith(("connection lost", "resumed"))]
            where = "".join(f", from number {at} on by the second server" for at in result.splices)
            where = where or ", all of which the first server had journalled"
            say(f"\n\nThe client: {'; '.join(told)}.")
            say(f"{len(result.logprobs or ())} tokens{where}, none missing, none twice:")
            if result.text != client.complete(QUESTION, temperature=0).text:
                fail("the answer is not the one that an undisturbed server gives")
            say("asked once more, undisturbed, the model gives the same answer, word for word.")

    def stop(self) -> None:
        """Stop the server as an operator does."""
        assert self._server is not None
        say("\nstopping the server")
        self._server.send_signal(signal.SIGTERM)
        code = self._server.wait(60)
        if code:
            fail(f"llcuda-server ended with exit code {code}")

    def end(self) -> None:
        """See to it that no server runs."""
        if self._server is not None and self._server.poll() is None:
            self._server.terminate()
            self._server.wait()

    def _start(self, port: str) -> None:
        command = [str(self._bin / "llcuda-server"), "--port", port, "--log-level", "warning"]
        say(f"$ {' '.join(['llcuda-server', *command[1:]])}")
        # A group of its own, so that Ctrl-C reaches the server through us, once.
        self._server = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, process_group=0, env=self._environment
        )
        self._address = wait_for_address(self._server)

    def _kill(self) -> None:
        assert self._server is not None
        say(f"\n$ kill -9 {self._server.pid}")
        self._server.kill()
        self._server.wait()

    def _run(self, name: str, *arguments: str) -> None:
        say(f"\n$ {shlex.join([name, *arguments])}")
        code = subprocess.call([str(self._bin / name), *arguments], env=self._environment)
        if code:
            fail(f"{name} ended with exit code {code}")


def wait_for_address(server: subprocess.Popen[str]) -> str:
    """The address in the server's first line."""
    assert server.stdout is not None
    ready, _, _ = select.select([server.stdout], [], [], PATIENCE)
    line = server.stdout.readline().strip() if ready else ""
    if not line.startswith("listening on "):
        code = server.poll()
        fail(
            f"llcuda-server did not start within {PATIENCE:g} s"
            if code is None and not ready
            else f"llcuda-server did not start (exit code {server.wait(10)})"
        )
    say(line)
    return line.split()[-1]


def end(number: int, frame: FrameType | None) -> NoReturn:
    """End as signalled, but stop the server on the way."""
    sys.exit(128 + number)


def plain_environment() -> dict[str, str]:
    """The environment without the user's own settings of llcuda."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLCUDA_")}


def say(text: str) -> None:
    """Print at once, so that the order is right beside what the commands print."""
    echo(text, flush=True)


def fail(text: str) -> NoReturn:
    """End with one line and exit code 1."""
    echo(f"demo failed: {text}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
