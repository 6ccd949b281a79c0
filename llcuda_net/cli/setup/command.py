"""`llcuda setup`: looks, asks, shows, writes, and says what to type next."""

from __future__ import annotations

import argparse
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import Exit, Parser, end_on_sigterm, fail, run_command
from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo, is_terminal, one_line

if TYPE_CHECKING:
    from llcuda_net.cli.setup.config_file import File
    from llcuda_net.cli.setup.config_text import Chosen
    from llcuda_net.cli.setup.questions import Questions
    from llcuda_net.cli.setup.survey import Survey

PROG = "llcuda setup"

_EPILOG = """\
examples:
  llcuda setup                                      asks
  llcuda setup --dry-run                            shows what it would write
  llcuda setup --yes                                takes what Enter would give
  llcuda setup --yes --model ~/models/qwen3-8b.gguf
  llcuda setup --yes --upstream http://127.0.0.1:8080
  llcuda setup --host 0.0.0.0                       for other machines, too: with a token

It writes a config file with comments (llcuda.toml), makes the data directory, and, where systemd
runs, the units llcuda.service and llcuda.socket of this user: the first client starts the server.
Nothing is replaced unasked: it shows what would change, and keeps the old file as .bak. It may be
called again at any time; what a config file says already is what Enter takes.

exit codes: 0 done, 1 it could not be done or was not wanted, 2 wrong usage or a wrong setting,
130 interrupted; then nothing was written
"""


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog=PROG,
        description="Set up a server on this machine: its settings, folders and systemd units.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--yes", action="store_true", help="ask nothing; take what Enter would give"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be written, and write nothing"
    )
    parser.add_argument("--config", metavar="FILE", help="the config file to write")
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on")
    parser.add_argument("--port", metavar="N", help="port to listen on")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="the model to load at once: a file, a name of `llcuda models list`, one that can be "
        "pulled, or demo: the demonstration model",
    )
    parser.add_argument(
        "--upstream",
        metavar="URL",
        action="append",
        help="a llama-server that runs already, in place of models; may be given several times",
    )
    parser.add_argument(
        "--engine",
        metavar="ENGINE",
        help="what runs models: builtin, or the path of a llama-server",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the journal and the results")
    parser.add_argument(
        "--service",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="write systemd units (default: where the user's systemd runs)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(PROG, lambda: _run(make_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.model is not None and arguments.upstream:
        fail("give --model or --upstream, not both")
    asks = not (arguments.yes or arguments.dry_run)
    if asks and not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        fail("setup asks, and nobody is there: give --yes, or --dry-run to see what it would write")
    end_on_sigterm()
    from llcuda_net.cli.setup.choosing import choose, obtain
    from llcuda_net.cli.setup.questions import Questions
    from llcuda_net.cli.setup.survey import look
    from llcuda_net.util import logs

    logs.configure("warning")
    questions = Questions(asks=asks)
    config = _config_file(arguments)
    now = _settings_now(config)
    folder = _models_folder(now)
    engine = arguments.engine or now.get("engine") or "auto"
    survey = look(folder, str(engine))
    _show(survey)
    chosen = choose(arguments, questions, survey, now, config, folder)
    service = _wants_service(arguments, questions, survey)
    files = _files(chosen, service=service)
    _check(chosen, files[0])
    if arguments.dry_run:
        return _dry(chosen, files)
    _confirm(questions, chosen, files)
    if (there := obtain(chosen, offered=arguments.model is None and not asks)) != chosen:
        chosen = there
        files = _files(chosen, service=service)
    return _write(chosen, files, survey, service=service)


# -- what there is ----------------------------------------------------------------------------


def _config_file(arguments: argparse.Namespace) -> Path:
    import platformdirs

    if arguments.config is not None:
        return Path(arguments.config).expanduser().absolute()
    return platformdirs.user_config_path("llcuda", appauthor=False) / "llcuda.toml"


def _settings_now(config: Path) -> dict[str, Any]:
    """What the config file says now; nothing where there is none that can be read."""
    try:
        return tomllib.loads(config.read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        echo(one_line(f"{config} cannot be used as it is: {why}"), file=sys.stderr)
        return {}


def _models_folder(now: dict[str, Any]) -> Path:
    from llcuda_net.cli.models.command import default_models_folder

    folder = now.get("models")
    found = default_models_folder() if not isinstance(folder, str) else Path(folder).expanduser()
    return found.absolute()


def _show(survey: Survey) -> None:
    gpus = ", ".join(survey.gpus.nvidia) or ("one" if survey.gpus.other else "none found")
    hidden = ", hidden by CUDA_VISIBLE_DEVICES" if survey.gpus.hidden else ""
    engine = survey.engine
    count = len(survey.models)
    models = "none on this machine" if not count else f"{count} on this machine"
    rows = [
        ("GPU", f"{gpus}{hidden}"),
        ("engine", f"{engine.program.name}: {engine.why}"),
        ("models", models),
        ("systemd", survey.manager or "yes: the server can be started by it"),
    ]
    for name, text in rows:
        echo(one_line(f"{name:<9} {text}"), flush=True)
    for warning in engine.warnings:
        echo(one_line(f"{'':<9} {warning}"), flush=True)


# -- what is wanted ---------------------------------------------------------------------------


def _wants_service(arguments: argparse.Namespace, questions: Questions, survey: Survey) -> bool:
    if arguments.service is not None:
        return bool(arguments.service)
    if survey.manager:
        return False
    return questions.yes("Shall systemd start the server when the first client comes?")


# -- writing ----------------------------------------------------------------------------------


def _files(chosen: Chosen, *, service: bool) -> list[File]:
    """What is to be written; the config file first."""
    import secrets

    import platformdirs

    from llcuda_net.cli.setup import units
    from llcuda_net.cli.setup.config_file import File
    from llcuda_net.cli.setup.config_text import config_text
    from llcuda_net.cli.setup.survey import user_name

    out = [File(chosen.config, config_text(chosen), 0o600, "settings")]
    if chosen.tokens is not None and not chosen.tokens.exists():
        token = secrets.token_hex(32)
        line = f"# A line per token: docs/operating.md\n{token} name={user_name()} role=admin\n"
        out.append(File(chosen.tokens, line, 0o600, "who may use it", secret=True))
        mine = chosen.tokens.with_name("token")
        if not mine.exists():
            out.append(File(mine, f"{token}\n", 0o600, "your token, for clients", secret=True))
    if service:
        at = platformdirs.user_config_path() / "systemd" / "user"
        service_text = units.service_text(chosen.config)
        out.append(File(at / f"{units.NAME}.service", service_text, 0o644, "systemd's service"))
        socket_text = units.socket_text(chosen.host, chosen.port)
        out.append(File(at / f"{units.NAME}.socket", socket_text, 0o644, "systemd's socket"))
    return out


def _check(chosen: Chosen, file: File) -> None:
    """That the server takes the file.

    Raises:
        ConfigError: it does not; one line.
    """
    from llcuda_net.cli.server import make_parser as server_parser
    from llcuda_net.config.settings import load

    with tempfile.TemporaryDirectory(prefix="llcuda-setup-") as folder:
        tried = Path(folder) / "llcuda.toml"
        tried.write_text(file.text, "utf-8")
        try:
            load(server_parser().parse_args(["--config", str(tried)]), {})
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(tried), str(chosen.config))) from None


def _dry(chosen: Chosen, files: Sequence[File]) -> int:
    if chosen.pull:
        echo(f"\nwould pull the model {chosen.model} into {chosen.folder}")
    if not chosen.data.exists():
        echo(f"\nwould make the folder {chosen.data} (mode 700)")
    for file in files:
        state = file.state
        if state == "unchanged":
            echo(f"\nwould leave {file.path} as it is: {file.what}")
            continue
        echo(f"\nwould write {file.path} (mode {file.mode:o}, {state}): {file.what}")
        for line in file.shown():
            echo(f"    {line}" if line else "")
    return Exit.OK


def _confirm(questions: Questions, chosen: Chosen, files: Sequence[File]) -> None:
    """Ask about each file that is there already and would change, and once about all.

    Raises:
        CommandError: it is not wanted; nothing was written.
    """
    for file in files:
        if file.state == "changed":
            echo()
            for line in file.shown():
                echo(line)
            if questions.asks and not questions.yes(
                f"Replace {file.path}? The old one is kept beside it", default=False
            ):
                fail("nothing was written", Exit.REFUSED)
    if questions.asks:
        echo()
        for file in files:
            echo(f"{file.state:<10} {file.path}: {file.what}")
        pulls = f"Pull {chosen.model}, and write these?" if chosen.pull else "Write these?"
        if not questions.yes(pulls):
            fail("nothing was written", Exit.REFUSED)


def _write(chosen: Chosen, files: Sequence[File], survey: Survey, *, service: bool) -> int:
    from llcuda_net.cli.setup.service import start
    from llcuda_net.cli.setup.survey import is_taken
    from llcuda_net.models.files.folder import make_folder
    from llcuda_net.storage.data_dir import prepare_folder

    prepare_folder(chosen.data)
    if chosen.model is not None:
        make_folder(chosen.folder)  # the file names it, so the server wants it
    changed = any(file.state == "changed" for file in files)
    for file in [*files[1:], files[0]]:  # the settings last: what they name is there then
        if file.state == "unchanged":
            continue
        try:
            kept = file.write()
        except OSError as error:
            fail(f"cannot write {file.path}: {error.strerror}", Exit.REFUSED)
        echo(f"wrote {file.path}" + (f"; the old one is {kept}" if kept else ""))
    started = service and not survey.manager
    if started:
        start(changed=changed)
    elif service:
        echo(f"the units were not started: {survey.manager}")
    if not started and is_taken(chosen.host, chosen.port):
        echo(
            f"note: something listens on port {chosen.port} already, or {chosen.host} is not here",
            file=sys.stderr,
        )
    _next(chosen, started=started)
    return Exit.OK


def _next(chosen: Chosen, *, started: bool) -> None:
    """Say what to type."""
    import shlex

    from llcuda_net.cli.setup.units import NAME
    from llcuda_net.util.address import Address, is_loopback

    lines: list[tuple[str, str]] = []
    if not started:
        serve = f"llcuda serve --config {shlex.quote(str(chosen.config))}"
        lines.append((serve, "start the server; then, in another terminal:"))
    near = chosen.host if is_loopback(chosen.host) else "127.0.0.1"
    options = "" if chosen.port == 9000 else f" --server {Address(near, chosen.port)}"
    if chosen.tokens is not None:
        options += f" --token-file {shlex.quote(str(chosen.tokens.with_name('token')))}"
    lines.append((f'llcuda ask{options} "What is a slot?"', "ask something"))
    lines.append((f"llcuda chat{options}", "talk"))
    lines.append((f"http://{Address(near, chosen.port)}/", "the page, for a browser"))
    if started:
        lines.append((f"systemctl --user status {NAME}", "what it does"))
        lines.append((f"journalctl --user --unit {NAME} --follow", "its log"))
        lines.append(("loginctl enable-linger", "if it is to run on when you have logged out"))
    echo("\nnext:")
    width = min(60, max(len(text) for text, _ in lines))
    for text, what in lines:
        echo(f"  {text:<{width}}  {what}")
    if not is_loopback(chosen.host):
        echo(
            "\nothers can reach it: texts and tokens are sent as they are until the config file "
            "has tls_cert and tls_key"
        )


if __name__ == "__main__":
    sys.exit(main())
